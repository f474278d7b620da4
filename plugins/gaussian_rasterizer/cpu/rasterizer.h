// The CPU rasterizer: stages, threads and memory around the kernels.
#pragma once

#include <vector>

#include "kernels.h"

namespace talksplat {

// The fastest kernels this processor runs, or those that TALKSPLAT_INSTRUCTION_SET names.
const Kernels& kernels();
// By name; nullptr when unknown or not runnable here.
const Kernels* find_kernels(const char* name);
void choose_kernels(const Kernels& kernels);

// What one camera's frame leaves behind for the backward pass.
struct View {
  Frame frame;
  Buffer<Splat> projected;  // visible Gaussians by chunk
  Buffer<Splat> splats;     // the same by depth
  Buffer<uint64_t> keys, other_keys;
  Buffer<float> features;
  Buffer<uint32_t> tile_starts;
  Buffer<uint32_t> cursors;  // [chunks, tiles]
  Buffer<uint32_t> instances;
  int64_t visible = 0;
  uint32_t instance_count = 0;
  int chunks = 1;
};

// Memory kept from call to call. One call at a time.
class Workspace {
 public:
  std::vector<View> views;
  std::vector<Scratch> scratch;
  Buffer<float> instance_records;
  Buffer<float> records;
};

struct Request {
  Rules rules;
  int width = 0, height = 0;
  int channels = 0;  // blended, depth included
  bool with_depth = false;
  bool expected_depth = false;
  int threads = 1;
};

// One camera: returns BadInput bits; the images are unspecified unless 0.
uint32_t rasterize(const Kernels&, const Request&, const Gaussians&, const Camera&,
                   const ImageView& background, const ImageView& colors, const ImageView& alphas,
                   Workspace&, size_t view);

// Adds the gradients of one camera; `view` must come from `rasterize` with the same Gaussians.
void rasterize_backward(const Kernels&, int threads, const Gaussians&, const ImageView& background,
                        const ImageView& grad_colors, const ImageView& grad_alphas,
                        const GaussianGradients&, Workspace&, size_t view);

}  // namespace talksplat
