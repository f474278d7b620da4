// GaussianRasterize for ONNX Runtime's CUDA provider: the kernels of ../cuda on its stream.
#pragma once

#include <cuda_runtime_api.h>

#include <map>
#include <mutex>

#include "../cuda/plan.h"
#include "api.h"

namespace talksplat::onnxruntime {

// One node of a session. A call launches kernels and does not wait for them; what they found is in
// the status, which stays on the device.
class CudaKernel {
 public:
  // Throws std::invalid_argument if an attribute has a wrong type or range.
  CudaKernel(const OrtApi& api, const OrtKernelInfo* info);
  ~CudaKernel();
  CudaKernel(const CudaKernel&) = delete;
  CudaKernel& operator=(const CudaKernel&) = delete;

  // Throws std::invalid_argument if shapes do not fit, RuntimeError if CUDA fails.
  void compute(OrtKernelContext* context);

  const OrtApi& api() const { return api_; }

 private:
  // Frames on one stream come one after the other, so they share memory and need not wait.
  struct Lane {
    op::Sizes sizes;
    cuda::Problem problem;
    cuda::Plan plan;
    void* workspace = nullptr;
    size_t bytes = 0;
  };

  void prepare(Lane& lane, const op::Sizes& sizes);

  const OrtApi& api_;
  op::Settings settings_;
  std::mutex mutex_;
  std::map<void*, Lane> lanes_;  // by stream
};

}  // namespace talksplat::onnxruntime
