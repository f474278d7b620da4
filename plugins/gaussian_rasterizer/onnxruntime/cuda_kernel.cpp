#include "cuda_kernel.h"

#include "../cuda/launch.h"

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

  cuda::Tensors tensors;
  tensors.means = inputs.data[op::kMeans];
  tensors.quats = inputs.data[op::kQuats];
  tensors.scales = inputs.data[op::kScales];
  tensors.opacities = inputs.data[op::kOpacities];
  tensors.colors = inputs.data[op::kColors];
  tensors.viewmats = inputs.data[op::kViewmats];
  tensors.Ks = inputs.data[op::kKs];
  tensors.backgrounds = inputs.data[op::kBackgrounds];
  tensors.out_colors = outputs.colors;
  tensors.out_alphas = outputs.alphas;
  tensors.status = outputs.status;

  // The launches of one frame must not be mixed with those of another on the same stream.
  const std::lock_guard lock(mutex_);
  Lane& lane = lanes_[stream];
  prepare(lane, sizes);
  check(cuda::enqueue(lane.plan, cuda::make_arguments(lane.problem, tensors, lane.workspace),
                      static_cast<cudaStream_t>(stream)),
        "launch a kernel");
}

void CudaKernel::prepare(Lane& lane, const op::Sizes& sizes) {
  if (!lane.plan.launches.empty() && lane.sizes == sizes) return;
  cuda::Problem problem;
  problem.gaussians = sizes.gaussians;
  problem.cameras = sizes.cameras;
  problem.channels = sizes.channels;
  problem.width = sizes.width;
  problem.height = sizes.height;
  problem.sh_degree = settings_.sh_degree;
  problem.sh_bases = sizes.sh_bases;
  problem.one_background = sizes.one_background;
  problem.render_mode = settings_.render_mode;
  problem.rules = settings_.rules;
  problem.tile_entries = settings_.tile_entries;
  cuda::Plan plan = cuda::make_plan(problem);
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
