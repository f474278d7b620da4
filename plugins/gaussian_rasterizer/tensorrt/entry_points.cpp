// What leaves the library: the two functions that TensorRT looks for in a plugin library, and
// those of talksplat_tensorrt_plugin.h.
#include <NvInferRuntime.h>
#include <cuda_runtime_api.h>

#include <stdexcept>

#include "plugin.h"
#include "reporting.h"
#include "running_tensorrt.h"
#include "talksplat_tensorrt_plugin.h"

#define TALKSPLAT_EXPORT extern "C" __attribute__((visibility("default")))

static_assert(NV_TENSORRT_MAJOR == 10 || NV_TENSORRT_MAJOR == 11,
              "talksplat's plugin is written for TensorRT 10 and 11");

namespace talksplat::tensorrt {
namespace {

constexpr int32_t kOldest = NV_TENSORRT_VERSION_INT(10, 3, 0);

Creator& creator() {
  static Creator& instance = *new Creator;  // TensorRT's registry may outlive our statics
  return instance;
}

// Why this plugin cannot serve, as one of the codes of talksplat_tensorrt_plugin.h.
struct Refusal : std::runtime_error {
  Refusal(int32_t code, const std::string& message) : std::runtime_error(message), code(code) {}
  int32_t code;
};

// Interfaces of one major version are binary compatible, those of two are not (the logger finder
// and the registry changed between 10 and 11).
void check(int32_t version) {
  const std::string compiled = "this plugin was compiled for TensorRT " +
                               std::to_string(NV_TENSORRT_MAJOR) + " (with the headers of " +
                               version_text(NV_TENSORRT_VERSION) + ")";
  if (version == 0) {
    throw Refusal(TALKSPLAT_TENSORRT_PLUGIN_NO_TENSORRT,
                  "no TensorRT is loaded in this process; " + compiled);
  }
  if (version < 10000 || version / 10000 != NV_TENSORRT_MAJOR) {
    throw Refusal(TALKSPLAT_TENSORRT_PLUGIN_OTHER_MAJOR,
                  "found TensorRT " + version_text(version) + ", but " + compiled +
                      "; build it again with TENSORRT_ROOT at the headers of the TensorRT in use");
  }
  if (version < kOldest) {
    throw Refusal(TALKSPLAT_TENSORRT_PLUGIN_TOO_OLD, "found TensorRT " + version_text(version) +
                                                         "; this plugin needs " +
                                                         version_text(kOldest) + " or later");
  }
}

// Whether the TensorRT at `caller` may have the plugin. One that cannot be found is linked into its
// program, and has to know what it does.
bool serves(const void* caller) noexcept {
  return reported(nullptr, false, [&] {
    const int32_t version = running_version(caller);
    if (version != 0) check(version);
    return true;
  });
}

// The code of what `work` throws; the words are for talksplat_tensorrt_plugin_last_error.
template <class Work>
int32_t code_of(const Work& work) noexcept {
  try {
    work();
    return TALKSPLAT_TENSORRT_PLUGIN_OK;
  } catch (const Refusal& refusal) {
    remember(refusal.what());
    return refusal.code;
  } catch (const std::exception& error) {
    remember(error.what());
    return TALKSPLAT_TENSORRT_PLUGIN_FAILED;
  }
}

}  // namespace
}  // namespace talksplat::tensorrt

namespace trt = talksplat::tensorrt;

TALKSPLAT_EXPORT nvinfer1::IPluginCreatorInterface* const* getCreators(int32_t& count) {
  static nvinfer1::IPluginCreatorInterface* const creators[] = {&trt::creator()};
  count = trt::serves(__builtin_return_address(0)) ? 1 : 0;
  return count == 0 ? nullptr : creators;
}

TALKSPLAT_EXPORT void setLoggerFinder(nvinfer1::ILoggerFinder* finder) {
  if (trt::serves(__builtin_return_address(0))) trt::set_logger_finder(finder);
}

TALKSPLAT_EXPORT int32_t talksplat_tensorrt_plugin_info(talksplat_tensorrt_plugin_facts* facts,
                                                        size_t size) {
  return trt::code_of([&] {
    if (facts == nullptr || size != sizeof(*facts)) {
      throw trt::Refusal(TALKSPLAT_TENSORRT_PLUGIN_OTHER_ABI,
                         "expected room for " + std::to_string(sizeof(*facts)) +
                             " bytes of facts (ABI " +
                             std::to_string(TALKSPLAT_TENSORRT_PLUGIN_ABI) + "), found " +
                             std::to_string(facts == nullptr ? 0 : size));
    }
    *facts = {TALKSPLAT_TENSORRT_PLUGIN_ABI, NV_TENSORRT_VERSION, CUDART_VERSION, TALKSPLAT_VERSION,
              TALKSPLAT_CUDA_ARCHITECTURES};
  });
}

TALKSPLAT_EXPORT int32_t talksplat_tensorrt_plugin_check(int32_t version) {
  return trt::code_of([&] { trt::check(version == 0 ? trt::running_version() : version); });
}

TALKSPLAT_EXPORT int32_t talksplat_tensorrt_plugin_register(void* registry) {
  return trt::code_of([&] {
    trt::check(trt::running_version());
    auto* own = static_cast<nvinfer1::IPluginRegistry*>(registry);
    if (own == nullptr) {
      void* function = trt::find_in_tensorrt("getPluginRegistry");
      if (function != nullptr) {
        own = reinterpret_cast<nvinfer1::IPluginRegistry* (*)() noexcept>(function)();
      }
    }
    if (own == nullptr || !own->registerCreator(trt::creator(), talksplat::op::kDomain)) {
      throw trt::Refusal(TALKSPLAT_TENSORRT_PLUGIN_NOT_REGISTERED,
                         "TensorRT's registry did not take the plugin; is it registered already?");
    }
  });
}

TALKSPLAT_EXPORT const char* talksplat_tensorrt_plugin_last_error(void) {
  return trt::last_error();
}
