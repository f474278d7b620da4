// What a frame on a CUDA device takes: workspace, launches and their argument. Plain C++: made
// once, on a machine with or without a GPU, from sizes and rules alone.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "../rules.h"
#include "frame_arguments.h"

namespace talksplat::cuda {

struct Problem {
  int64_t gaussians = 0;        // N
  int cameras = 1;              // C
  int channels = 3;             // D, without depth; 3 with spherical harmonics
  int width = 0, height = 0;    // pixels
  int sh_degree = -1;           // -1: colours are features
  int sh_bases = 0;             // K
  bool half_colors = false;     // colours are IEEE half precision
  bool one_background = false;  // backgrounds are [C,D,1,1], not [C,D,H,W]
  RenderMode render_mode = RenderMode::kRGB;
  Rules rules;
  int64_t tile_entries = 0;  // room for Gaussian-tile pairs of one camera; 0: a default
};

// Device pointers; shapes as in FrameArguments. `backgrounds` may be nullptr: black.
struct Tensors {
  const void *means, *quats, *scales, *opacities, *colors, *viewmats, *Ks, *backgrounds;
  void *out_colors, *out_alphas, *status;
};

// One kernel launch. Every kernel takes one argument, a FrameArguments by value.
struct Launch {
  const char* kernel;  // its extern "C" name in kernels.cu
  unsigned grid[3], block[3];
  unsigned shared_bytes;  // dynamic
};

struct Plan {
  size_t workspace_bytes;        // at an address that is a multiple of kWorkspaceAlignment
  std::vector<Launch> launches;  // in order, on one stream; nothing in them depends on data
};

inline constexpr size_t kWorkspaceAlignment = 256;

// For how many pairs there will be room.
int64_t tile_entries(const Problem&);

// Blended channels: colours, and depth after them.
int output_channels(const Problem&);

// Throws std::invalid_argument, with what was expected and found, for sizes no kernel can take.
Plan make_plan(const Problem&);

// `workspace` [workspace_bytes] need not be cleared, and holds nothing between frames.
FrameArguments make_arguments(const Problem&, const Tensors&, void* workspace);

}  // namespace talksplat::cuda
