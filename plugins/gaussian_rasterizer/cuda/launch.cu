#include <cstring>

#include "kernels.cu"
#include "launch.h"

namespace talksplat::cuda {
namespace {

struct Named {
  const char* name;
  const void* kernel;
};

#define TALKSPLAT_NAMED(kernel) {#kernel, reinterpret_cast<const void*>(&kernel)}
const Named kKernels[] = {TALKSPLAT_NAMED(talksplat_prepare),  TALKSPLAT_NAMED(talksplat_project),
                          TALKSPLAT_NAMED(talksplat_scan),     TALKSPLAT_NAMED(talksplat_scatter),
                          TALKSPLAT_NAMED(talksplat_sort),     TALKSPLAT_NAMED(talksplat_blend_1),
                          TALKSPLAT_NAMED(talksplat_blend_2),  TALKSPLAT_NAMED(talksplat_blend_3),
                          TALKSPLAT_NAMED(talksplat_blend_4),  TALKSPLAT_NAMED(talksplat_blend_8),
                          TALKSPLAT_NAMED(talksplat_blend_16), TALKSPLAT_NAMED(talksplat_blend_32)};
#undef TALKSPLAT_NAMED

const void* kernel_named(const char* name) {
  for (const Named& known : kKernels) {
    if (std::strcmp(known.name, name) == 0) return known.kernel;
  }
  return nullptr;
}

}  // namespace

cudaError_t load_kernels(const Plan& plan) {
  for (const Launch& launch : plan.launches) {
    const void* kernel = kernel_named(launch.kernel);
    if (kernel == nullptr) return cudaErrorInvalidDeviceFunction;
    cudaFuncAttributes unused;
    const cudaError_t error = cudaFuncGetAttributes(&unused, kernel);
    if (error != cudaSuccess) return error;
  }
  return cudaSuccess;
}

cudaError_t enqueue(const Plan& plan, const FrameArguments& arguments, cudaStream_t stream) {
  void* all_arguments[] = {const_cast<FrameArguments*>(&arguments)};
  for (const Launch& launch : plan.launches) {
    const void* kernel = kernel_named(launch.kernel);
    if (kernel == nullptr) return cudaErrorInvalidDeviceFunction;
    const cudaError_t error =
        cudaLaunchKernel(kernel, dim3(launch.grid[0], launch.grid[1], launch.grid[2]),
                         dim3(launch.block[0], launch.block[1], launch.block[2]), all_arguments,
                         launch.shared_bytes, stream);
    if (error != cudaSuccess) return error;
  }
  return cudaSuccess;
}

}  // namespace talksplat::cuda
