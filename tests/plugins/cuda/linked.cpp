// Links the kernels as a TensorRT plugin does, and puts a frame on a stream where there is no GPU:
// the error is answered, not thrown, and it says so.
#include <cstdio>

#include "cuda/launch.h"

int main() {
  talksplat::cuda::Problem problem;
  problem.gaussians = 10;
  problem.width = problem.height = 32;
  const talksplat::cuda::Plan plan = make_plan(problem);
  const talksplat::cuda::Tensors tensors = {};
  const auto frame = make_arguments(problem, tensors, reinterpret_cast<void*>(1 << 20));
  int devices = 0;
  if (cudaGetDeviceCount(&devices) == cudaSuccess && devices > 0) {
    std::puts("has a GPU");
    return 0;
  }
  std::puts(cudaGetErrorName(talksplat::cuda::enqueue(plan, frame, nullptr)));
}
