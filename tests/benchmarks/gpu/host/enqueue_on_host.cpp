// talksplat::cuda::enqueue through the emulated kernels.
#include <cstdio>

#include "cuda/launch.h"

extern "C" int talksplat_host_launch(const char* kernel, const unsigned grid[3],
                                     const unsigned block[3], unsigned shared_bytes,
                                     const void* arguments, size_t size);
extern "C" const char* talksplat_host_error();

namespace talksplat::cuda {

cudaError_t enqueue(const Plan& plan, const FrameArguments& arguments, cudaStream_t) {
  for (const Launch& launch : plan.launches) {
    if (talksplat_host_launch(launch.kernel, launch.grid, launch.block, launch.shared_bytes,
                              &arguments, sizeof arguments)) {
      std::fprintf(stderr, "%s: %s\n", launch.kernel, talksplat_host_error());
      return cudaErrorLaunchFailure;
    }
  }
  return cudaSuccess;
}

}  // namespace talksplat::cuda
