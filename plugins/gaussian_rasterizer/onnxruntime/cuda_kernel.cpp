#include "cuda_kernel.h"

#include <algorithm>
#include <array>

#include "../cuda/launch.h"
#include "../cuda/operator_frame.h"

namespace talksplat::onnxruntime {
namespace {

void check(cudaError_t error, const std::string& what) {
  if (error == cudaSuccess) return;
  throw RuntimeError(ORT_EP_FAIL, "GaussianRasterize could not " + what + ": " +
                                      cudaGetErrorString(error) + " (" + cudaGetErrorName(error) +
                                      ")");
}

}  // namespace

CudaKernel::CudaKernel(const OrtApi& api, const OrtKernelInfo* info)
    : api_(api), settings_(op::settings_of(attributes_of(api, info))) {}

CudaKernel::~CudaKernel() {
  // Waits for what still runs there. On a device that was lost there is nothing left to free.
  for (auto& [stream, lane] : lanes_) static_cast<void>(cudaFree(lane.workspace));
}

void CudaKernel::compute(OrtKernelContext* context) {
  const Inputs inputs = inputs_of(api_, context);
  const op::Sizes sizes = op::sizes_of(settings_, inputs.shapes);
  const Outputs outputs = outputs_of(api_, context, settings_, sizes);
  void* stream = nullptr;
  onnxruntime::check(api_, api_.KernelContext_GetGPUComputeStream(context, &stream));

  std::array<const void*, op::kInputs> read;
  std::copy(inputs.data.begin(), inputs.data.end(), read.begin());
  void* const written[op::kOutputs] = {outputs.colors, outputs.alphas, outputs.status};

  // The launches of one frame must not be mixed with those of another on the same stream.
  const std::lock_guard lock(mutex_);
  Lane& lane = lanes_[stream];
  prepare(lane, sizes);
  const cuda::Tensors tensors = cuda::tensors_of(read.data(), written);
  check(cuda::enqueue(lane.plan, cuda::make_arguments(lane.problem, tensors, lane.workspace),
                      static_cast<cudaStream_t>(stream)),
        "launch a kernel");
}

void CudaKernel::prepare(Lane& lane, const op::Sizes& sizes) {
  if (!lane.plan.launches.empty() && lane.sizes == sizes) return;
  const cuda::Problem problem = cuda::problem_of(settings_, sizes, /*half_colors=*/false);
  cuda::Plan plan = cuda::make_plan(problem);
  check(cuda::load_kernels(plan), "load its kernels");
  if (plan.workspace_bytes > lane.bytes) {
    check(cudaFree(lane.workspace), "free its workspace");
    lane.workspace = nullptr;
    lane.bytes = 0;
    check(cudaMalloc(&lane.workspace, plan.workspace_bytes),
          "have " + std::to_string(plan.workspace_bytes) + " bytes for its workspace");
    lane.bytes = plan.workspace_bytes;
  }
  lane.sizes = sizes;
  lane.problem = problem;
  lane.plan = std::move(plan);
}

}  // namespace talksplat::onnxruntime
