// A frame of the operator as the plan knows frames, for the carriers that run it on a CUDA device.
#pragma once

#include "../operator.h"
#include "plan.h"

namespace talksplat::cuda {

inline Problem problem_of(const op::Settings& settings, const op::Sizes& sizes, bool half_colors) {
  Problem problem;
  problem.gaussians = sizes.gaussians;
  problem.cameras = sizes.cameras;
  problem.channels = sizes.channels;
  problem.width = sizes.width;
  problem.height = sizes.height;
  problem.sh_degree = settings.sh_degree;
  problem.sh_bases = sizes.sh_bases;
  problem.half_colors = half_colors;
  problem.one_background = sizes.one_background;
  problem.render_mode = settings.render_mode;
  problem.rules = settings.rules;
  problem.tile_entries = settings.tile_entries;
  return problem;
}

// `inputs` [kInputs] and `outputs` [kOutputs] in the order of the operator.
inline Tensors tensors_of(const void* const* inputs, void* const* outputs) {
  return {inputs[op::kMeans],      inputs[op::kQuats],       inputs[op::kScales],
          inputs[op::kOpacities],  inputs[op::kColors],      inputs[op::kViewmats],
          inputs[op::kKs],         inputs[op::kBackgrounds], outputs[op::kOutColors],
          outputs[op::kOutAlphas], outputs[op::kOutStatus]};
}

}  // namespace talksplat::cuda
