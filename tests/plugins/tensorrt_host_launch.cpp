// The launches of a plugin library that is built without CUDA: each is handed to a function of the
// test. The library links with nothing of CUDA but what stands here, so that it links at all shows
// that the plugin calls nothing else: no allocation, no copy, no wait.
#include <algorithm>
#include <cstdlib>
#include <new>
#include <vector>

#include "cuda/launch.h"

namespace {

using Launch = int (*)(const char* kernel, const unsigned grid[3], const unsigned block[3],
                       unsigned shared_bytes, const void* arguments, size_t size, void* stream);

Launch g_launch = nullptr;
long g_allocations = 0;
std::vector<const char*> g_loaded;
bool g_cannot_load = false;

}  // namespace

#define TALKSPLAT_EXPORT extern "C" __attribute__((visibility("default")))

TALKSPLAT_EXPORT void launch_with(Launch launch) { g_launch = launch; }

// Forgets which kernels were loaded; whether others can be.
TALKSPLAT_EXPORT void forget_kernels(bool cannot_load) {
  g_loaded.clear();
  g_cannot_load = cannot_load;
}

// How often this library took memory, while it is linked with -Bsymbolic.
TALKSPLAT_EXPORT long allocations() { return g_allocations; }

void* operator new(size_t size) {
  ++g_allocations;
  if (void* memory = std::malloc(size)) return memory;
  throw std::bad_alloc();
}
void operator delete(void* memory) noexcept { std::free(memory); }
void operator delete(void* memory, size_t) noexcept { std::free(memory); }

// Only what was loaded can be launched, as under a capture.
cudaError_t talksplat::cuda::load_kernels(const Plan& plan) {
  if (g_cannot_load) return cudaErrorNoKernelImageForDevice;
  for (const auto& launch : plan.launches) g_loaded.push_back(launch.kernel);
  return cudaSuccess;
}

cudaError_t talksplat::cuda::enqueue(const Plan& plan, const FrameArguments& frame,
                                     cudaStream_t stream) {
  for (const auto& launch : plan.launches) {
    if (std::find(g_loaded.begin(), g_loaded.end(), launch.kernel) == g_loaded.end()) {
      return cudaErrorStreamCaptureUnsupported;
    }
    if (g_launch(launch.kernel, launch.grid, launch.block, launch.shared_bytes, &frame,
                 sizeof(frame), stream) != 0) {
      return cudaErrorLaunchFailure;
    }
  }
  return cudaSuccess;
}

extern "C" const char* cudaGetErrorName(cudaError_t) { return "cudaErrorLaunchFailure"; }
extern "C" const char* cudaGetErrorString(cudaError_t) { return "unspecified launch failure"; }
