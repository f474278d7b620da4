// Launches of a plan, for C++ that links the kernels (see CMakeLists.txt:
// gaussian_rasterizer_cuda).
#pragma once

#include <cuda_runtime_api.h>

#include "plan.h"

namespace talksplat::cuda {

// Brings the kernels of a plan to the current device. CUDA loads a kernel when it is first asked
// for, which must not happen while a stream is under capture.
cudaError_t load_kernels(const Plan&);

// Puts a frame on a stream: launches only, so that the stream may be under capture. An error is
// that of the launch; what the frame itself ran into is in its status.
cudaError_t enqueue(const Plan&, const FrameArguments&, cudaStream_t);

}  // namespace talksplat::cuda
