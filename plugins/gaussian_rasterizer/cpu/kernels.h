// What each instruction set implements, and the data that passes between the stages.
//
// project -> sort by depth -> bin into 16x16 tiles -> blend each tile
#pragma once

#include <cstddef>
#include <cstdint>

#include "../camera.h"
#include "../rules.h"
#include "buffer.h"

namespace talksplat {

// float32, C-contiguous.
struct Gaussians {
  int64_t count = 0;
  const float* means = nullptr;      // [N,3]
  const float* quats = nullptr;      // [N,4] wxyz
  const float* scales = nullptr;     // [N,3]
  const float* opacities = nullptr;  // [N]
  const float* colors = nullptr;     // [N,D], or [N,K,3] when sh_degree >= 0; of one camera
  int color_channels = 0;            // D, 3 with spherical harmonics
  int sh_degree = -1;
  int sh_bases = 0;  // K
};

// What blending reads of a splat wherever it is.
struct Footprint {
  float l0, l1, l2;    // Cholesky factor, see blending.h
  float log2_opacity;  // compensated
  float values[4];     // blended, up to four channels; more are read from the feature rows
};

// A Gaussian that is seen, ready to blend: one cache line.
struct alignas(64) Splat {
  Footprint footprint;
  float x, y;  // mean, pixels
  // How far from the mean the middle of a block may lie and the block still hold a pixel of
  // alpha >= 1/255: in pixels along x and y, and in u0.
  float reach_x, reach_y, reach_u;
  float depth;  // camera-space z
  uint32_t id;
  uint32_t unused;
};
static_assert(sizeof(Splat) == 64);

// The tiles a splat is listed in, half-open.
struct TileRange {
  uint16_t x0, y0, x1;
  uint16_t y1 : 15;
  uint16_t narrow : 1;  // not all of them: the dialect leaves out tiles that alpha >= 1/255 reaches
};
static_assert(sizeof(TileRange) == 8);

// A strided [H,W,channels] image; strides in floats. data == nullptr: absent.
struct ImageView {
  float* data = nullptr;
  ptrdiff_t row = 0, column = 0, channel = 0;
};

// One camera's frame, as far as blending needs to know.
struct Frame {
  const Gaussians* gaussians;
  Camera camera;
  Rules rules;
  int tiles_x, tiles_y;

  int channels;           // blended, the depth channel included
  bool with_depth;        // the last channel is the camera-space z
  bool expected_depth;    // ... divided by alpha
  const float* features;  // [N,channels] rows for more than 3 channels, by Gaussian id
  bool keep_features;     // projection writes `projected_features`
  float* projected_features;

  Splat* splats;                // seen Gaussians in their own order, with gaps
  TileRange* ranges;            // of the same
  const uint32_t* tile_starts;  // [tiles+1] into instances
  const uint32_t* instances;  // places in splats, by depth within a tile; then kInstancesAhead more

  ImageView colors;
  ImageView alphas;
  ImageView background;  // row == column == 0 for one colour per camera
};

// A record of sums over pixels: six moments of g = dL/d ln(alpha), padded to eight, then the
// gradients of the blended values, padded to a multiple of eight.
inline constexpr int kMoments = 8;

inline int record_size(int channels) { return kMoments + (channels + 7) / 8 * 8; }

// Gradients of the outputs of one camera, and room for the records of every instance. In them the
// moments are of (1, x, y, x^2, x y, y^2) from the centre of the tile.
struct FrameGradients {
  ImageView colors;
  ImageView alphas;
  float* records;
};

// Gradients of the Gaussians; each camera adds its own.
struct GaussianGradients {
  float* means;      // [N,3]
  float* quats;      // [N,4]
  float* scales;     // [N,3]
  float* opacities;  // [N]
  float* colors;     // as Gaussians::colors, of one camera
};

// One worker's memory.
struct Scratch {
  Buffer<float> staged;
  Buffer<uint32_t> masks;
  Buffer<uint32_t> queue;
  Buffer<float> accumulators;
  Buffer<float> weights;
  Buffer<float> products;
};

// Readable places after the last instance: what is fetched ahead need not be checked.
inline constexpr uint32_t kInstancesAhead = 24;

struct Kernels {
  const char* name;
  // Gaussians [begin, end) -> those seen, in order, at frame.splats[begin...] and frame.ranges;
  // returns how many, and adds BadInput bits to `bad`.
  int64_t (*project)(const Frame&, int64_t begin, int64_t end, uint32_t* bad);
  void (*blend_tile)(const Frame&, int tile, Scratch&);
  void (*blend_tile_backward)(const Frame&, const FrameGradients&, int tile, Scratch&);
  // Adds an instance's record to `sum`, whose moments are of (1, u0, u1, ...), see blending.h.
  void (*add_record)(const Splat&, int tile_x, int tile_y, const float* record, int size,
                     float* sum);
  // `records` [count, size], summed over instances, of splats[begin...begin + count).
  void (*project_backward)(const Frame&, const float* records, int64_t begin, int64_t count,
                           const GaussianGradients&);
  // One row of a strided image of three channels -> truncated bytes, interleaved.
  void (*to_uint8)(const float* image, ptrdiff_t column, ptrdiff_t channel, int width,
                   uint8_t* out);
};

const Kernels& portable_kernels();
#if defined(__x86_64__)
const Kernels& avx2_kernels();
const Kernels& avx512_kernels();
#endif

}  // namespace talksplat
