// Gaussians to splats: projection, colour, and how many entries each tile will have.
#pragma once

#include "../blending.h"
#include "../projection.h"
#include "../spherical_harmonics.h"
#include "../tiles.h"
#include "device.cuh"
#include "tile_walk.cuh"

namespace talksplat::cuda {
namespace {

// Half the distances between the outermost pixel centres of a warp's block, see blending.cuh.
constexpr float kHalfBlockWidth = 3.5f, kHalfBlockHeight = 1.5f;

// max(0.5 + sum of the harmonics, 0), in three colours.
template <int kDegree>
__device__ __forceinline__ void sh_color(const FrameArguments& frame, int64_t row,
                                         const float direction[3], float* color) {
  float basis[kMaxShBases];
  sh_basis(kDegree, direction[0], direction[1], direction[2], basis);
  for (int c = 0; c < 3; ++c) color[c] = 0.5f;
#pragma unroll
  for (int term = 0; term < 3 * (kDegree + 1) * (kDegree + 1); ++term) {
    color[term % 3] = multiply_add(basis[term / 3], color_at(frame, row + term), color[term % 3]);
  }
  for (int c = 0; c < 3; ++c) color[c] = maximum(color[c], 0.0f);
}

__device__ __forceinline__ void sh_color(const FrameArguments& frame, const Camera& camera,
                                         uint32_t id, const float mean[3], float* color) {
  float direction[3];
  for (int axis = 0; axis < 3; ++axis) direction[axis] = mean[axis] - camera.position[axis];
  const float inverse =
      1.0f / square_root(direction[0] * direction[0] + direction[1] * direction[1] +
                         direction[2] * direction[2]);
  for (int axis = 0; axis < 3; ++axis) direction[axis] *= inverse;
  const int64_t row = static_cast<int64_t>(id) * frame.sh_bases * 3;
  switch (frame.sh_degree) {
    case 0:
      return sh_color<0>(frame, row, direction, color);
    case 1:
      return sh_color<1>(frame, row, direction, color);
    case 2:
      return sh_color<2>(frame, row, direction, color);
    default:
      return sh_color<3>(frame, row, direction, color);
  }
}

// What is blended if it is at most four channels: colour, then depth.
__device__ __forceinline__ void splat_values(const FrameArguments& frame, const Camera& camera,
                                             uint32_t id, const float mean[3], float depth,
                                             float values[4]) {
  for (int c = 0; c < 4; ++c) values[c] = 0.0f;
  if (frame.channels > 4) return;
  const int colors = frame.color_channels;
  if (colors > 0 && frame.sh_degree >= 0) {
    sh_color(frame, camera, id, mean, values);
  } else {
#pragma unroll
    for (int c = 0; c < 4; ++c) {
      if (c < colors) values[c] = color_at(frame, static_cast<int64_t>(id) * colors + c);
    }
  }
  if (!has_depth(frame.render_mode)) return;
#pragma unroll
  for (int c = 0; c < 4; ++c) {
    if (c == colors) values[c] = depth;
  }
}

// Zero if all are finite, NaN otherwise.
template <int kCount>
__device__ __forceinline__ float zero_if_finite(const float* values) {
  float sum = 0.0f;
  for (int i = 0; i < kCount; ++i) sum = multiply_add(values[i], 0.0f, sum);
  return sum;
}

// Whether the colours of the warp's Gaussians [first, first + 32) are finite, as far as this lane
// looks: all lanes read side by side.
__device__ __forceinline__ bool colors_finite(const FrameArguments& frame, uint32_t first) {
  if (frame.color_channels == 0 || first >= frame.gaussians) return true;
  const int64_t row = frame.sh_degree >= 0 ? static_cast<int64_t>(frame.sh_bases) * 3
                                           : static_cast<int64_t>(frame.color_channels);
  const uint32_t rest = frame.gaussians - first;
  const int64_t last = (static_cast<int64_t>(first) + (rest < kWarp ? rest : kWarp)) * row;
  float zeros = 0.0f;
  for (int64_t at = first * row + threadIdx.x % kWarp; at < last; at += kWarp) {
    zeros = multiply_add(color_at(frame, at), 0.0f, zeros);
  }
  return zeros == 0.0f;
}

__device__ __forceinline__ void project_gaussian(const FrameArguments& frame) {
  const uint32_t id = blockIdx.x * blockDim.x + threadIdx.x;
  const uint32_t view = blockIdx.y;
  const FrameCamera& frame_camera = frame.frame_cameras[view];
  const Camera camera = frame_camera.camera;
  const Rules& rules = frame.rules;
  uint32_t bad = 0;
  TileEntry entry = {};  // of no tile
  if (id < frame.gaussians) {
    float mean[3], quat[4], scale[3];
    for (int i = 0; i < 3; ++i) mean[i] = frame.means[3 * static_cast<int64_t>(id) + i];
    for (int i = 0; i < 4; ++i) quat[i] = frame.quats[4 * static_cast<int64_t>(id) + i];
    for (int i = 0; i < 3; ++i) scale[i] = frame.scales[3 * static_cast<int64_t>(id) + i];
    float opacity = frame.opacities[id];
    if (zero_if_finite<3>(mean) != 0.0f) bad |= kBadMeans;
    if (zero_if_finite<4>(quat) != 0.0f) bad |= kBadQuats;
    if (zero_if_finite<3>(scale) != 0.0f) bad |= kBadScales;
    if (zero_if_finite<1>(&opacity) != 0.0f) bad |= kBadOpacities;

    ProjectionTape<float> tape;
    const Projection<float> p = project(mean, quat, scale, camera, rules, tape);
    if (rules.antialiased) {
      opacity *= square_root(maximum(p.compensation_square, rules.compensation_floor()));
    }
    const float nearest = rules.nearest();
    const bool in_front = rules.drops_at_near_plane() ? nearest < p.depth : nearest <= p.depth;
    TileRange range = {0, 0, 0, 0};
    if (in_front && p.depth <= rules.far_plane && 0.0f < p.determinant && kMinAlpha <= opacity) {
      const Cholesky<float> factor = cholesky(p);
      const float log2_opacity = log2f(opacity);
      const float reach = reach_of(log2_opacity);
      const Reach<float> reached = reach_in_pixels(p, reach);
      const TileBounds<float> bounds = tile_bounds(rules, camera, p, reach, reached);
      if (bounds.x0 < bounds.x1 && bounds.y0 < bounds.y1) {
        range = {static_cast<uint16_t>(bounds.x0), static_cast<uint16_t>(bounds.y0),
                 static_cast<uint16_t>(bounds.x1), static_cast<uint16_t>(bounds.y1)};
        Splat splat;
        splat.l0 = factor.l0;
        splat.l1 = factor.l1;
        splat.l2 = factor.l2;
        splat.log2_opacity = log2_opacity;
        splat_values(frame, camera, id, mean, p.depth, splat.values);
        splat.x = p.x;
        splat.y = p.y;
        splat.reach_x = reached.x + kHalfBlockWidth;
        splat.reach_y = reached.y + kHalfBlockHeight;
        splat.reach_u =
            reach_of_block(reach, factor.l0, factor.l1, kHalfBlockWidth, kHalfBlockHeight);
        splat.reach = reach;
        splat.depth = p.depth;
        splat.unused = 0.0f;
        frame.splats[static_cast<int64_t>(view) * frame.gaussians + id] = splat;
        entry = entry_of(splat, range, id, rules.dialect);
      }
    }
    frame.ranges[static_cast<int64_t>(view) * frame.gaussians + id] = range;
  }
  if (view == 0 && !colors_finite(frame, id - threadIdx.x % kWarp)) bad |= kBadColors;
  bad |= frame_camera.bad;
  if (bad != 0) atomicOr(reinterpret_cast<unsigned*>(&frame.status[kStatusBad]), bad);

  uint32_t* counts = frame.tile_cursors + static_cast<int64_t>(view) * tiles_of(frame);
  for_each_tile(entry, frame.tiles_x,
                [&](const TileEntry&, int tile) { atomicAdd(&counts[tile], 1u); });
}

}  // namespace
}  // namespace talksplat::cuda
