#include "running_tensorrt.h"

#include <NvInferRuntime.h>
#include <dlfcn.h>

namespace talksplat::tensorrt {
namespace {

// The headers' own major version first, then others that a process may have loaded instead.
constexpr const char* kLibraries[] = {
#if NV_TENSORRT_MAJOR == 11
    "libnvinfer.so.11", "libnvinfer.so.10",
#else
    "libnvinfer.so.10", "libnvinfer.so.11",
#endif
    "libnvinfer.so.12", "libnvinfer.so.9", "libnvinfer.so.8"};

// In a library that is loaded already.
void* find_in(const char* library_name, const char* symbol) noexcept {
  void* library = dlopen(library_name, RTLD_LAZY | RTLD_NOLOAD);
  if (library == nullptr) return nullptr;
  void* found = dlsym(library, symbol);
  dlclose(library);  // gives back only what RTLD_NOLOAD took
  return found;
}

}  // namespace

void* find_in_tensorrt(const char* symbol) noexcept {
  if (void* found = dlsym(RTLD_DEFAULT, symbol)) return found;
  // Loaded, but not for everybody: as the tensorrt package of Python does.
  for (const char* name : kLibraries) {
    if (void* found = find_in(name, symbol)) return found;
  }
  return nullptr;
}

int32_t running_version(const void* caller) noexcept {
  constexpr char kSymbol[] = "getInferLibVersion";
  void* function = nullptr;
  Dl_info library;
  if (caller != nullptr && dladdr(caller, &library) != 0) {
    function = find_in(library.dli_fname, kSymbol);
  }
  if (function == nullptr) function = find_in_tensorrt(kSymbol);
  return function == nullptr ? 0 : reinterpret_cast<int32_t (*)() noexcept>(function)();
}

std::string version_text(int32_t version) {
  // Up to 9 it was major * 1000 + minor * 100 + patch.
  const int32_t unit = version < 10000 ? 1000 : 10000;
  return std::to_string(version / unit) + "." + std::to_string(version % unit / 100) + "." +
         std::to_string(version % 100);
}

}  // namespace talksplat::tensorrt
