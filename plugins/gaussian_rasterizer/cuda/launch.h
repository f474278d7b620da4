// Launches of a plan, for C++ that links the kernels (see CMakeLists.txt:
// gaussian_rasterizer_cuda).
#pragma once

#include <cuda_runtime_api.h>

#include "plan.h"

namespace talksplat::cuda {

// Puts a frame on a stream: launches only, so that the stream may be under capture. An error is
// that of the launch; what the frame itself ran into is in its status.
cudaError_t enqueue(const Plan&, const FrameArguments&, cudaStream_t);

}  // namespace talksplat::cuda
