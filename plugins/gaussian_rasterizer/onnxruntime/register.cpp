// The one symbol of the library: onnxruntime.SessionOptions.register_custom_ops_library calls it.
#include <algorithm>
#include <cstdlib>
#include <map>
#include <mutex>

#include "../cpu/thread_pool.h"
#include "cpu_kernel.h"

namespace talksplat::onnxruntime {
namespace {

constexpr int kMaxThreads = 256;
constexpr const char* kThreadsEntry = "talksplat.threads";
constexpr const char* kInstructionSet = "TALKSPLAT_INSTRUCTION_SET";

// The operator as ONNX Runtime sees it; `threads` is what its kernels may use.
struct CpuOperator : OrtCustomOp {
  explicit CpuOperator(int threads);

  int threads;
  OrtCustomOpDomain* domain = nullptr;
};

template <class T>
T& of(void* kernel) {
  return *static_cast<T*>(kernel);
}

CpuOperator::CpuOperator(int threads) : OrtCustomOp{}, threads(threads) {
  version = kApiVersion;
  GetName = [](const OrtCustomOp*) { return kOperator; };
  GetExecutionProviderType = [](const OrtCustomOp*) { return "CPUExecutionProvider"; };
  GetStartVersion = [](const OrtCustomOp*) { return 1; };
  GetEndVersion = [](const OrtCustomOp*) { return 1; };

  GetInputTypeCount = [](const OrtCustomOp*) -> size_t { return kInputs; };
  GetInputType = [](const OrtCustomOp*, size_t) { return ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT; };
  GetInputCharacteristic = [](const OrtCustomOp*, size_t) { return INPUT_OUTPUT_REQUIRED; };
  GetInputMemoryType = [](const OrtCustomOp*, size_t) { return OrtMemTypeDefault; };
  GetOutputTypeCount = [](const OrtCustomOp*) -> size_t { return kOutputs; };
  GetOutputType = [](const OrtCustomOp*, size_t index) {
    return index == kOutStatus ? ONNX_TENSOR_ELEMENT_DATA_TYPE_INT32
                               : ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT;
  };
  GetOutputCharacteristic = [](const OrtCustomOp*, size_t) { return INPUT_OUTPUT_REQUIRED; };

  CreateKernelV2 = [](const OrtCustomOp* op, const OrtApi* api, const OrtKernelInfo* info,
                      void** kernel) -> OrtStatus* {
    return as_status(*api, [&] {
      *kernel = new CpuKernel(*api, info, static_cast<const CpuOperator*>(op)->threads);
    });
  };
  KernelComputeV2 = [](void* kernel, OrtKernelContext* context) -> OrtStatus* {
    auto& own = of<CpuKernel>(kernel);
    return as_status(own.api(), [&] { own.compute(context); });
  };
  KernelDestroy = [](void* kernel) { delete &of<CpuKernel>(kernel); };
}

// The same instructions as talksplat.rasterize takes, so that numbers are the same.
void choose_instruction_set() {
  const char* asked = std::getenv(kInstructionSet);
  if (asked == nullptr || *asked == '\0') return;
  const Kernels* found = find_kernels(asked);
  if (found == nullptr) {
    refuse(std::string(kInstructionSet) + " names '" + asked +
           "', which is unknown or not available on this processor.");
  }
  choose_kernels(*found);
}

// How many threads the options of a session allow the rasterizer.
int threads_of(const OrtApi& api, const OrtSessionOptions* options) {
  int present = 0;
  check(api, api.HasSessionConfigEntry(options, kThreadsEntry, &present));
  std::string text;
  if (present != 0) {
    size_t size = 0;  // with the zero at the end
    check(api, api.GetSessionConfigEntry(options, kThreadsEntry, nullptr, &size));
    text.resize(size);
    check(api, api.GetSessionConfigEntry(options, kThreadsEntry, text.data(), &size));
    text.resize(size - 1);
  }
  char* end = nullptr;
  const long threads = std::strtol(text.c_str(), &end, 10);
  if (*end != '\0' || threads < 0 || threads > kMaxThreads) {
    refuse(std::string("The session's configuration entry ") + kThreadsEntry +
           " expects 0 (one per processor) to " + std::to_string(kMaxThreads) + ", found '" + text +
           "'.");
  }
  return threads != 0 ? static_cast<int>(threads) : std::min(available_processors(), kMaxThreads);
}

// Sessions keep pointers to the operator and its domain and do not own them, so there is one of
// each for every number of threads, for as long as the process lives.
OrtCustomOpDomain* domain_with(const OrtApi& api, int threads) {
  static std::mutex mutex;
  static auto& operators = *new std::map<int, CpuOperator>;
  const std::lock_guard lock(mutex);
  CpuOperator& op = operators.try_emplace(threads, threads).first->second;
  if (op.domain == nullptr) {
    OrtCustomOpDomain* domain = nullptr;
    check(api, api.CreateCustomOpDomain(kDomain, &domain));
    check(api, api.CustomOpDomain_Add(domain, &op));
    op.domain = domain;
  }
  return op.domain;
}

}  // namespace
}  // namespace talksplat::onnxruntime

extern "C" __attribute__((visibility("default"))) OrtStatus* ORT_API_CALL
RegisterCustomOps(OrtSessionOptions* options, const OrtApiBase* base) {
  using namespace talksplat::onnxruntime;
  const OrtApi* api = base->GetApi(kApiVersion);
  if (api == nullptr) {
    const std::string message = "GaussianRasterize needs ONNX Runtime 1." +
                                std::to_string(kApiVersion) + " or later, found " +
                                base->GetVersionString() + ".";
    return base->GetApi(1)->CreateStatus(ORT_FAIL, message.c_str());
  }
  return as_status(*api, [&] {
    choose_instruction_set();
    check(*api, api->AddCustomOpDomain(options, domain_with(*api, threads_of(*api, options))));
  });
}
