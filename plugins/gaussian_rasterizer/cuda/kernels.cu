// The CUDA rasterizer: prepare -> project -> scan -> scatter -> sort -> blend, one launch each, see
// plan.h. No kernel depends on what the host learns of the one before, none allocates.
#include "binning.cuh"
#include "blending.cuh"
#include "device.cuh"
#include "frame_arguments.h"
#include "projecting.cuh"
#include "sorting.cuh"

namespace talksplat::cuda {
namespace {

// BadInput bits of one camera's matrices.
__device__ __forceinline__ uint32_t check_camera(const FrameArguments& frame, const float* viewmat,
                                                 const float* K, const Camera& camera) {
  uint32_t bad = 0;
  if (zero_if_finite<16>(viewmat) != 0.0f) bad |= kBadViewmats;
  if (frame.sh_degree >= 0 &&
      (talksplat::is_singular(viewmat) || zero_if_finite<3>(camera.position) != 0.0f)) {
    bad |= kBadViewmats;
  }
  if (zero_if_finite<9>(K) != 0.0f || !(K[0] > 0.0f) || !(K[4] > 0.0f)) bad |= kBadKs;
  return bad;
}

}  // namespace
}  // namespace talksplat::cuda

using namespace talksplat::cuda;

// Clears what is counted, and reads the cameras.
extern "C" __global__ void __launch_bounds__(kThreads)
    talksplat_prepare(const FrameArguments frame) {
  const int view = blockIdx.y, tile = blockIdx.x * blockDim.x + threadIdx.x;
  const int tiles = tiles_of(frame);
  if (tile < tiles) frame.tile_cursors[static_cast<int64_t>(view) * tiles + tile] = 0;
  if (tile != 0) return;
  const float* viewmat = frame.viewmats + 16 * view;
  const float* K = frame.Ks + 9 * view;
  FrameCamera& out = frame.frame_cameras[view];
  out.camera = talksplat::make_camera(viewmat, K, frame.width, frame.height, frame.rules.dialect,
                                      frame.sh_degree >= 0);
  out.bad = check_camera(frame, viewmat, K, out.camera);
  if (view != 0) return;
  frame.status[kStatusBad] = 0;
  frame.status[kStatusNeeded] = 0;
  frame.status[kStatusRoom] = static_cast<int32_t>(frame.room);
  frame.status[kStatusUnused] = 0;
}

extern "C" __global__ void __launch_bounds__(kThreads)
    talksplat_project(const FrameArguments frame) {
  project_gaussian(frame);
}

extern "C" __global__ void __launch_bounds__(kScanThreads)
    talksplat_scan(const FrameArguments frame) {
  scan_tiles(frame);
}

extern "C" __global__ void __launch_bounds__(kThreads)
    talksplat_scatter(const FrameArguments frame) {
  scatter_gaussian(frame);
}

extern "C" __global__ void __launch_bounds__(kSortThreads)
    talksplat_sort(const FrameArguments frame) {
  sort_tile(frame);
}

#define TALKSPLAT_BLEND(channels)                                                             \
  extern "C" __global__ void __launch_bounds__(kBlendThreads, Batch<channels>::kBlocksAtOnce) \
      talksplat_blend_##channels(const FrameArguments frame) {                                \
    __shared__ Batch<channels> batch;                                                         \
    blend_tile(frame, batch);                                                                 \
  }
TALKSPLAT_BLEND(1)
TALKSPLAT_BLEND(2)
TALKSPLAT_BLEND(3)
TALKSPLAT_BLEND(4)
TALKSPLAT_BLEND(8)
TALKSPLAT_BLEND(16)
TALKSPLAT_BLEND(32)
