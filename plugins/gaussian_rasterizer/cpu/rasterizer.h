// The CPU rasterizer: stages, threads and memory around the kernels.
#pragma once

#include <cstdint>
#include <stdexcept>
#include <vector>

#include "kernels.h"

namespace talksplat {

// The fastest kernels this processor runs, unless others were chosen.
const Kernels& kernels();
// By name; nullptr when unknown or not runnable here.
const Kernels* find_kernels(const char* name);
void choose_kernels(const Kernels& kernels);

// Milliseconds of the last call on a workspace, over all its cameras.
struct StageTimes {
  double project = 0, sort = 0, bin = 0, blend = 0;
  double blend_backward = 0, project_backward = 0;
};

// One camera's lists: all that the backward pass needs again.
struct View {
  Frame frame;
  Buffer<Splat> splats;  // by projection chunk, with gaps
  Buffer<TileRange> ranges;
  Buffer<float> features;
  std::vector<int64_t> chunk_counts;  // splats of each projection chunk
  Buffer<uint32_t> order;             // places in splats by depth
  Buffer<uint32_t> tile_starts;
  Buffer<uint32_t> instances;
  // Only when kept for the backward pass: where each splat's instances lie.
  Buffer<uint32_t> slot_starts;
  Buffer<uint32_t> slots;
};

// Memory kept from call to call. One call at a time.
struct Workspace {
  std::vector<View> views;
  std::vector<Scratch> scratch;
  Buffer<uint64_t> keys, sorting[2];
  std::vector<uint64_t> depth_sample;
  std::vector<int> rows;  // of tiles, where each worker's begin; then the end
  Buffer<int32_t> tile_grids;
  Buffer<uint32_t> tile_cursors;
  Buffer<float> instance_records;
  StageTimes times;
};

// What the lists of one camera, and the gradients of their entries when those are wanted, may take.
inline constexpr uint64_t kMaxListBytes = uint64_t{4} << 30;

// The Gaussians cover so many tiles that their lists would take more than kMaxListBytes.
class TooManyTileEntries : public std::length_error {
 public:
  using std::length_error::length_error;
};

struct Request {
  Rules rules;
  int width = 0, height = 0;
  int channels = 0;  // blended, depth included
  bool with_depth = false;
  bool expected_depth = false;
  bool keep_for_backward = false;
  int threads = 1;
};

// One camera: returns BadInput bits; the images are unspecified unless 0. Throws TooManyTileEntries
// before it reserves memory for them.
uint32_t rasterize(const Kernels&, const Request&, const Gaussians&, const Camera&,
                   const ImageView& background, const ImageView& colors, const ImageView& alphas,
                   Workspace&, size_t view);

// Adds the gradients of one camera; `view` must come from `rasterize` with the same Gaussians and
// keep_for_backward.
void rasterize_backward(const Kernels&, int threads, const Gaussians&, const ImageView& background,
                        const ImageView& grad_colors, const ImageView& grad_alphas,
                        const GaussianGradients&, Workspace&, size_t view);

}  // namespace talksplat
