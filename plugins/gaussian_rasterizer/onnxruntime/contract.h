// What GaussianRasterize accepts: attributes, shapes and ranges, checked before any work.
#pragma once

#include <array>

#include "../rules.h"
#include "api.h"

namespace talksplat::onnxruntime {

// Inputs in the order of the operator.
enum Input : size_t {
  kMeans,
  kQuats,
  kScales,
  kOpacities,
  kColors,
  kViewmats,
  kKs,
  kBackgrounds,
  kInputs
};
// Outputs likewise.
enum Output : size_t { kOutColors, kOutAlphas, kOutStatus, kOutputs };

using Inputs = std::array<Tensor<const float>, kInputs>;

struct Settings {
  Rules rules;
  int width = 0, height = 0;  // 0: those of the backgrounds
  int sh_degree = -1;         // -1: colors are features
  bool with_colors = true, with_depth = false, expected_depth = false;
  int64_t tile_entries = 0;  // only devices with fixed room for them ask
};

// Throws Error if an attribute has a wrong type or range.
Settings read_settings(const Attributes& attributes);

struct Sizes {
  int64_t gaussians = 0, cameras = 0;
  int channels = 0;  // D
  int sh_bases = 0;  // K
  int width = 0, height = 0;
  bool one_background = false;  // [C,D,1,1]

  int blended(const Settings& settings) const {
    return (settings.with_colors ? channels : 0) + (settings.with_depth ? 1 : 0);
  }
};

// Throws Error if shapes do not fit each other.
Sizes check_shapes(const Settings& settings, const Inputs& inputs);

// Throws Error unless the cameras, in host memory, can be drawn from.
void check_cameras(const Settings& settings, const Sizes& sizes, const float* viewmats,
                   const float* Ks);

}  // namespace talksplat::onnxruntime
