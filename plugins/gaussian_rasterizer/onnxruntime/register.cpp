// The one symbol of the library: onnxruntime.SessionOptions.register_custom_ops_library calls it.
#include <algorithm>
#include <cstdlib>
#include <map>
#include <mutex>

#include "../cpu/thread_pool.h"
#include "cpu_kernel.h"
#ifdef TALKSPLAT_WITH_CUDA
#include "cuda_kernel.h"
#endif

namespace talksplat::onnxruntime {
namespace {

constexpr int kMaxThreads = 256;
constexpr const char* kThreadsEntry = "talksplat.threads";
constexpr const char* kInstructionSet = "TALKSPLAT_INSTRUCTION_SET";

// The operator as ONNX Runtime sees it, for one execution provider.
template <class Kernel>
struct Operator : OrtCustomOp {
  Operator();
};

template <class Kernel>
Operator<Kernel>::Operator() : OrtCustomOp{} {
  version = kApiVersion;
  GetName = [](const OrtCustomOp*) { return op::kName; };
  GetStartVersion = [](const OrtCustomOp*) { return 1; };
  GetEndVersion = [](const OrtCustomOp*) { return 1; };

  GetInputTypeCount = [](const OrtCustomOp*) -> size_t { return op::kInputs; };
  GetInputType = [](const OrtCustomOp*, size_t) { return ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT; };
  GetInputCharacteristic = [](const OrtCustomOp*, size_t) { return INPUT_OUTPUT_REQUIRED; };
  GetInputMemoryType = [](const OrtCustomOp*, size_t) { return OrtMemTypeDefault; };
  GetOutputTypeCount = [](const OrtCustomOp*) -> size_t { return op::kOutputs; };
  GetOutputType = [](const OrtCustomOp*, size_t index) {
    return index == op::kOutStatus ? ONNX_TENSOR_ELEMENT_DATA_TYPE_INT32
                                   : ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT;
  };
  GetOutputCharacteristic = [](const OrtCustomOp*, size_t) { return INPUT_OUTPUT_REQUIRED; };

  KernelComputeV2 = [](void* kernel, OrtKernelContext* context) -> OrtStatus* {
    auto& own = *static_cast<Kernel*>(kernel);
    return as_status(own.api(), [&] { own.compute(context); });
  };
  KernelDestroy = [](void* kernel) { delete static_cast<Kernel*>(kernel); };
}

struct CpuOperator : Operator<CpuKernel> {
  explicit CpuOperator(int threads) : threads(threads) {
    GetExecutionProviderType = [](const OrtCustomOp*) { return "CPUExecutionProvider"; };
    CreateKernelV2 = [](const OrtCustomOp* own, const OrtApi* api, const OrtKernelInfo* info,
                        void** kernel) -> OrtStatus* {
      return as_status(*api, [&] {
        *kernel = new CpuKernel(*api, info, static_cast<const CpuOperator*>(own)->threads);
      });
    };
  }

  int threads;  // that its kernels may use
};

#ifdef TALKSPLAT_WITH_CUDA
struct CudaOperator : Operator<CudaKernel> {
  CudaOperator() {
    GetExecutionProviderType = [](const OrtCustomOp*) { return "CUDAExecutionProvider"; };
    CreateKernelV2 = [](const OrtCustomOp*, const OrtApi* api, const OrtKernelInfo* info,
                        void** kernel) -> OrtStatus* {
      return as_status(*api, [&] { *kernel = new CudaKernel(*api, info); });
    };
  }
};
#endif

// The domain with its operators. Sessions keep pointers to them and do not own them.
struct Domain {
  explicit Domain(int threads) : cpu(threads) {}

  CpuOperator cpu;
#ifdef TALKSPLAT_WITH_CUDA
  CudaOperator cuda;
#endif
  OrtCustomOpDomain* registered = nullptr;
};

// The same instructions as talksplat.rasterize takes, so that numbers are the same.
void choose_instruction_set() {
  const char* asked = std::getenv(kInstructionSet);
  if (asked == nullptr || *asked == '\0') return;
  const Kernels* found = find_kernels(asked);
  if (found == nullptr) {
    throw std::invalid_argument(std::string(kInstructionSet) + " names '" + asked +
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
    throw std::invalid_argument(std::string("The session's configuration entry ") + kThreadsEntry +
                                " expects 0 (one per processor) to " + std::to_string(kMaxThreads) +
                                ", found '" + text + "'.");
  }
  return threads != 0 ? static_cast<int>(threads) : std::min(available_processors(), kMaxThreads);
}

// One for every number of threads, for as long as the process lives.
OrtCustomOpDomain* domain_with(const OrtApi& api, int threads) {
  static std::mutex mutex;
  static auto& domains = *new std::map<int, Domain>;
  const std::lock_guard lock(mutex);
  Domain& domain = domains.try_emplace(threads, threads).first->second;
  if (domain.registered == nullptr) {
    OrtCustomOpDomain* created = nullptr;
    check(api, api.CreateCustomOpDomain(op::kDomain, &created));
    check(api, api.CustomOpDomain_Add(created, &domain.cpu));
#ifdef TALKSPLAT_WITH_CUDA
    check(api, api.CustomOpDomain_Add(created, &domain.cuda));
#endif
    domain.registered = created;
  }
  return domain.registered;
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
