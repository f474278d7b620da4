// The one argument of every kernel, and the records that pass between kernels.
#pragma once

#include "../camera.h"
#include "../host_device.h"
#include "../rules.h"

namespace talksplat::cuda {

// A Gaussian that a camera sees, ready to blend: 64 bytes.
struct alignas(16) Splat {
  float l0, l1, l2;    // Cholesky factor, see blending.h
  float log2_opacity;  // compensated
  float values[4];     // blended, up to four channels; more are read from the feature rows
  float x, y;          // mean, pixels
  // How far from the mean the middle of a warp's 8x4 pixels may lie and one of them still have an
  // alpha of 1/255 or more: in pixels along x and y, and in u0.
  float reach_x, reach_y, reach_u;
  float reach;  // of the ellipse alpha = 1/255, in u
  float depth;  // camera-space z
  float unused;
};
static_assert(sizeof(Splat) == 64);

// The tiles a Gaussian may be listed in, half-open; empty where it is not seen.
struct alignas(8) TileRange {
  uint16_t x0, y0, x1, y1;
};

// A camera as read from the device's memory, and what was wrong with it (BadInput bits).
struct FrameCamera {
  Camera camera;
  uint32_t bad;
};
static_assert(sizeof(FrameCamera) == 104);

// What `status` [4] holds after a frame.
enum Status {
  kStatusBad,     // BadInput bits
  kStatusNeeded,  // Gaussian-tile pairs of the camera that has most; saturates at 2^31 - 1
  kStatusRoom,    // pairs there is room for
  kStatusUnused
};

// Plain data of one layout for the host's compiler, nvcc and NVRTC. C cameras, N Gaussians, D
// colour channels, X blended channels, T tiles of a camera.
struct FrameArguments {
  // Inputs on the device, C-contiguous.
  const float* means;        // [N,3]
  const float* quats;        // [N,4] wxyz
  const float* scales;       // [N,3]
  const float* opacities;    // [N]
  const void* colors;        // [N,D], or [N,K,3] when sh_degree >= 0; float, or half
  const float* viewmats;     // [C,4,4]
  const float* Ks;           // [C,3,3]
  const float* backgrounds;  // [C,D,H,W] or [C,D,1,1]; nullptr: black
  // Outputs.
  float* out_colors;  // [C,X,H,W]
  float* out_alphas;  // [C,1,H,W]
  int32_t* status;    // [4], see Status
  // Workspace.
  FrameCamera* frame_cameras;  // [C]
  Splat* splats;               // [C,N], only those seen
  TileRange* ranges;           // [C,N]
  uint32_t* tile_cursors;      // [C,T] entries of each tile; then where the next one goes
  uint32_t* tile_starts;       // [C,T+1] into the camera's pairs
  uint64_t* pairs;             // [C,room] depth bits << 32 | Gaussian, tile after tile

  Rules rules;
  // Of those, what every step of blending asks: alpha is clamped to the first; a pixel whose
  // transmittance would fall to the second or below is finished.
  float max_alpha, last_transmittance;
  RenderMode render_mode;
  uint32_t gaussians, cameras;
  int32_t color_channels;  // D; 0 when only depth is blended
  int32_t channels;        // X
  int32_t width, height, tiles_x, tiles_y;
  int32_t sh_degree, sh_bases;
  uint32_t room;  // pairs of one camera
  // Whether colours are half; whether each row may be read four at a time; whether a camera has
  // one background colour.
  uint32_t half_colors, wide_rows, one_background;
};
static_assert(sizeof(FrameArguments) == 232);

inline constexpr int kChannelsAPass = 32;  // more are blended in several passes over the alphas

// Threads of a block.
inline constexpr int kThreads = 256;  // where blocks have no meaning
inline constexpr int kScanThreads = 1024;
inline constexpr uint32_t kSortThreads = 256;
inline constexpr int kBlendThreads = kTileSize * kTileSize;

}  // namespace talksplat::cuda
