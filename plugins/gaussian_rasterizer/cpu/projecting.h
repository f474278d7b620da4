// Gaussians to splats, a vector of Gaussians at a time, and the way back of their gradients.
#pragma once

#include "../blending.h"
#include "../projection.h"
#include "../spherical_harmonics.h"
#include "../tiles.h"
#include "block.h"
#include "kernels.h"
#include "simd.h"

namespace talksplat::TALKSPLAT_ISA {
namespace {

// The unit direction from the camera to a Gaussian, and the distance.
inline float view_direction(const Frame& frame, int64_t id, float direction[3]) {
  const float* mean = frame.gaussians->means + 3 * id;
  for (int axis = 0; axis < 3; ++axis) direction[axis] = mean[axis] - frame.camera.position[axis];
  const float distance = sqrtf(direction[0] * direction[0] + direction[1] * direction[1] +
                               direction[2] * direction[2]);
  for (int axis = 0; axis < 3; ++axis) direction[axis] /= distance;
  return distance;
}

TALKSPLAT_HOST_DEVICE bool all_finite(Float zeros) {
  return bits(zeros == zeros) == (1u << (kLanes - 1)) * 2u - 1u;
}

// Colours are read here only to find what is not finite: x * 0 is 0 for finite x and NaN otherwise.
inline bool colors_finite(const Gaussians& g, int64_t begin, int64_t end) {
  if (g.colors == nullptr) return true;
  const int64_t row = g.sh_degree >= 0 ? 3 * g.sh_bases : g.color_channels;
  const float* color = g.colors + begin * row;
  const float* last = g.colors + end * row;
  Float first_zeros(0.0f), second_zeros(0.0f);
  for (; color + 2 * kLanes <= last; color += 2 * kLanes) {
    first_zeros = multiply_add(load(color), Float(0.0f), first_zeros);
    second_zeros = multiply_add(load(color + kLanes), Float(0.0f), second_zeros);
  }
  float rest = 0.0f;
  for (; color < last; ++color) rest += *color * 0.0f;
  return all_finite(first_zeros + second_zeros) && rest == rest;
}

template <int kStride>
TALKSPLAT_HOST_DEVICE void load_rows(const float* array, int64_t at, int count, Float* out) {
  if (count == kLanes) return load_columns<kStride>(array + at * kStride, out);
  float padded[kStride * kLanes] = {};
  std::memcpy(padded, array + at * kStride, sizeof(float) * kStride * count);
  load_columns<kStride>(padded, out);
}

// Colours of the Gaussians [at, at + count) by spherical harmonics: max(sum + 0.5, 0).
inline void sh_colors(const Frame& frame, int64_t at, int count, const Float mean[3],
                      Float colors[3]) {
  const Gaussians& g = *frame.gaussians;
  Float direction[3];
  for (int axis = 0; axis < 3; ++axis)
    direction[axis] = mean[axis] - Float(frame.camera.position[axis]);
  const Float inverse =
      Float(1.0f) / square_root(direction[0] * direction[0] + direction[1] * direction[1] +
                                direction[2] * direction[2]);
  Float basis[kMaxShBases];
  sh_basis(g.sh_degree, direction[0] * inverse, direction[1] * inverse, direction[2] * inverse,
           basis);
  const int terms = 3 * (g.sh_degree + 1) * (g.sh_degree + 1);
  const int64_t row = 3 * g.sh_bases, last = g.count * row;
  for (int c = 0; c < 3; ++c) colors[c] = Float(0.5f);
  for (int first = 0; first < terms; first += kLanes) {
    Float columns[kLanes];
    for (int lane = 0; lane < kLanes; ++lane) {
      const int64_t begin = (at + lane) * row + first;
      if (begin + kLanes <= last) {
        columns[lane] = load(g.colors + begin);
        continue;
      }
      float padded[kLanes] = {};
      if (lane < count) std::memcpy(padded, g.colors + begin, sizeof(float) * (last - begin));
      columns[lane] = load(padded);
    }
    transpose(columns);
    for (int i = 0; i < kLanes && first + i < terms; ++i) {
      Float& color = colors[(first + i) % 3];
      color = multiply_add(basis[(first + i) / 3], columns[i], color);
    }
  }
  for (int c = 0; c < 3; ++c) colors[c] = maximum(colors[c], Float(0.0f));
}

// What is blended of the Gaussians [at, at + count) if it is at most four channels: colour, then
// depth.
inline void load_values(const Frame& frame, int64_t at, int count, const Float mean[3], Float depth,
                        Float values[4]) {
  const Gaussians& g = *frame.gaussians;
  const int colors = frame.channels - (frame.with_depth ? 1 : 0);
  for (int c = 0; c < 4; ++c) values[c] = Float(0.0f);
  if (colors > 0 && g.sh_degree >= 0) {
    sh_colors(frame, at, count, mean, values);
  } else if (colors == 1) {
    load_rows<1>(g.colors, at, count, values);
  } else if (colors == 2) {
    load_rows<2>(g.colors, at, count, values);
  } else if (colors == 3) {
    load_rows<3>(g.colors, at, count, values);
  } else if (colors == 4) {
    load_rows<4>(g.colors, at, count, values);
  }
  if (frame.with_depth) values[colors] = depth;
}

int64_t project_range(const Frame& frame, int64_t begin, int64_t end, uint32_t* bad) {
  const Gaussians& g = *frame.gaussians;
  const Rules& rules = frame.rules;
  int64_t out = begin;
  const Float zero(0.0f), one(1.0f);
  Float zero_means = zero, zero_quats = zero, zero_scales = zero, zero_opacities = zero;
  for (int64_t at = begin; at < end; at += kLanes) {
    const int count = end - at < kLanes ? static_cast<int>(end - at) : kLanes;
    Float mean[3], quat[4], scale[3], opacity;
    load_rows<3>(g.means, at, count, mean);
    load_rows<4>(g.quats, at, count, quat);
    load_rows<3>(g.scales, at, count, scale);
    load_rows<1>(g.opacities, at, count, &opacity);
    zero_means = multiply_add(mean[0] + mean[1] + mean[2], zero, zero_means);
    zero_quats = multiply_add(quat[0] + quat[1] + quat[2] + quat[3], zero, zero_quats);
    zero_scales = multiply_add(scale[0] + scale[1] + scale[2], zero, zero_scales);
    zero_opacities = multiply_add(opacity, zero, zero_opacities);

    ProjectionTape<Float> tape;
    const Projection<Float> p = project(mean, quat, scale, frame.camera, rules, tape);
    if (rules.antialiased) {
      opacity =
          opacity * square_root(maximum(p.compensation_square, Float(rules.compensation_floor())));
    }
    const Float nearest(rules.nearest());
    const Mask in_front = rules.drops_at_near_plane() ? (nearest < p.depth) : (nearest <= p.depth);
    const Mask seen = in_front & (p.depth <= Float(rules.far_plane)) & (zero < p.determinant) &
                      (Float(kMinAlpha) <= opacity);
    uint32_t lanes = bits(seen) & ((1u << count) - 1u);
    if (lanes == 0) continue;
    const Cholesky<Float> factor = cholesky(p);
    const Float log2_opacity = log2(opacity);
    const Float reach = reach_of(log2_opacity);
    const Reach<Float> reached = reach_in_pixels(p, reach);
    const TileBounds<Float> bounds = tile_bounds(rules, frame.camera, p, reach, reached);
    const NativeInt low = to_int(bounds.x0) | to_int(bounds.y0) << 16;
    const NativeInt high = to_int(bounds.x1) | to_int(bounds.y1) << 16;
    constexpr float kHalfWidth = 0.5f * (kBlockWidth - 1), kHalfHeight = 0.5f * (kBlockHeight - 1);
    const Float reach_u = reach_of_block(reach, factor.l0, factor.l1, kHalfWidth, kHalfHeight);
    Float values[4] = {zero, zero, zero, zero};
    if (frame.channels <= 4) load_values(frame, at, count, mean, p.depth, values);
    Float records[16] = {factor.l0,
                         factor.l1,
                         factor.l2,
                         log2_opacity,
                         values[0],
                         values[1],
                         values[2],
                         values[3],
                         p.x,
                         p.y,
                         reached.x + Float(kHalfWidth),
                         reached.y + Float(kHalfHeight),
                         reach_u,
                         p.depth,
                         zero,
                         zero};
    for (int part = 0; part < 16; part += kLanes) transpose(records + part);
    for (; lanes != 0; lanes &= lanes - 1) {
      const int lane = __builtin_ctz(lanes);
      TileRange range;
      range.x0 = static_cast<uint16_t>(low[lane]);
      range.y0 = static_cast<uint16_t>(static_cast<uint32_t>(low[lane]) >> 16);
      range.x1 = static_cast<uint16_t>(high[lane]);
      range.y1 = static_cast<uint32_t>(high[lane]) >> 16;
      if (range.x0 >= range.x1 || range.y0 >= range.y1) continue;
      Splat& splat = frame.splats[out];
      for (int part = 0; part < 16 / kLanes; ++part) {
        store(reinterpret_cast<float*>(&splat) + part * kLanes, records[part * kLanes + lane]);
      }
      splat.id = static_cast<uint32_t>(at + lane);
      range.narrow = narrows_lists(rules.dialect, splat.footprint.log2_opacity);
      frame.ranges[out++] = range;
      if (frame.keep_features) {  // more than three colours, and depth behind them
        float* row = frame.projected_features + (at + lane) * frame.channels;
        std::memcpy(row, g.colors + (at + lane) * g.color_channels,
                    sizeof(float) * g.color_channels);
        row[g.color_channels] = splat.depth;
      }
    }
  }
  if (!all_finite(zero_means)) *bad |= kBadMeans;
  if (!all_finite(zero_quats)) *bad |= kBadQuats;
  if (!all_finite(zero_scales)) *bad |= kBadScales;
  if (!all_finite(zero_opacities)) *bad |= kBadOpacities;
  if (!colors_finite(g, begin, end)) *bad |= kBadColors;
  return out - begin;
}

// Spherical harmonics of one Gaussian: gradients of coefficients and, through the view direction,
// of the mean.
inline void sh_backward(const Frame& frame, int64_t id, const float* grad_color, float* grad_shs,
                        float* grad_mean) {
  const Gaussians& g = *frame.gaussians;
  float direction[3];
  const float distance = view_direction(frame, id, direction);
  float basis[kMaxShBases];
  sh_basis(g.sh_degree, direction[0], direction[1], direction[2], basis);
  const int bases = (g.sh_degree + 1) * (g.sh_degree + 1);
  const float* coefficients = g.colors + static_cast<int64_t>(g.sh_bases) * 3 * id;
  float* out = grad_shs + static_cast<int64_t>(g.sh_bases) * 3 * id;
  float along[kMaxShBases] = {};
  for (int c = 0; c < 3; ++c) {
    float value = 0.5f;
    for (int b = 0; b < bases; ++b) value += basis[b] * coefficients[3 * b + c];
    if (!(value > 0.0f)) continue;
    for (int b = 0; b < bases; ++b) {
      out[3 * b + c] += basis[b] * grad_color[c];
      along[b] += coefficients[3 * b + c] * grad_color[c];
    }
  }
  float grad[3];
  sh_basis_backward(g.sh_degree, direction[0], direction[1], direction[2], along, grad);
  const float radial = grad[0] * direction[0] + grad[1] * direction[1] + grad[2] * direction[2];
  for (int axis = 0; axis < 3; ++axis) {
    grad_mean[axis] += (grad[axis] - radial * direction[axis]) / distance;
  }
}

void project_backward_range(const Frame& frame, const float* records, int64_t begin, int64_t count,
                            const GaussianGradients& out) {
  const Gaussians& g = *frame.gaussians;
  const Rules& rules = frame.rules;
  const int colors = frame.channels - (frame.with_depth ? 1 : 0);
  const int size = record_size(frame.channels);
  for (int64_t first = 0; first < count; first += kLanes) {
    const int lanes = count - first < kLanes ? static_cast<int>(count - first) : kLanes;
    int64_t ids[kLanes];
    for (int lane = 0; lane < lanes; ++lane) ids[lane] = frame.splats[begin + first + lane].id;
    const auto gather = [&](const float* p, int stride, int offset) {
      Float values(1.0f);
      for (int lane = 0; lane < lanes; ++lane) values.v[lane] = p[stride * ids[lane] + offset];
      return values;
    };
    const auto record = [&](int offset) {
      Float values(0.0f);
      for (int lane = 0; lane < lanes; ++lane) {
        values.v[lane] = records[(first + lane) * size + offset];
      }
      return values;
    };
    Float mean[3], quat[4], scale[3];
    for (int axis = 0; axis < 3; ++axis) mean[axis] = gather(g.means, 3, axis);
    for (int axis = 0; axis < 4; ++axis) quat[axis] = gather(g.quats, 4, axis);
    for (int axis = 0; axis < 3; ++axis) scale[axis] = gather(g.scales, 3, axis);
    ProjectionTape<Float> tape;
    const Projection<Float> p = project(mean, quat, scale, frame.camera, rules, tape);
    const Moments<Float> moments = {record(0), record(1), record(2),
                                    record(3), record(4), record(5)};
    ProjectionGradient<Float> grad;
    cholesky_backward(cholesky(p), moments, tape.rows, grad);
    grad.depth = frame.with_depth ? record(kMoments + colors) : Float(0.0f);
    // ln(alpha) holds ln(compensation) = ln(ratio) / 2 unless the floor does.
    grad.compensation_square =
        select(Float(rules.compensation_floor()) < p.compensation_square,
               Float(0.5f) * moments.one / p.compensation_square, Float(0.0f));
    Float grad_mean[3], grad_quat[4], grad_scale[3];
    project_backward(p, tape, quat, scale, frame.camera, rules, grad, grad_mean, grad_quat,
                     grad_scale);
    for (int lane = 0; lane < lanes; ++lane) {
      const int64_t id = ids[lane];
      const float* grad_values = records + (first + lane) * size + kMoments;
      for (int axis = 0; axis < 3; ++axis) out.means[3 * id + axis] += grad_mean[axis].v[lane];
      for (int axis = 0; axis < 4; ++axis) out.quats[4 * id + axis] += grad_quat[axis].v[lane];
      for (int axis = 0; axis < 3; ++axis) out.scales[3 * id + axis] += grad_scale[axis].v[lane];
      out.opacities[id] += moments.one.v[lane] / g.opacities[id];
      if (colors > 0 && g.sh_degree >= 0) {
        sh_backward(frame, id, grad_values, out.colors, out.means + 3 * id);
      } else {
        for (int c = 0; c < colors; ++c) out.colors[id * g.color_channels + c] += grad_values[c];
      }
    }
  }
}

}  // namespace
}  // namespace talksplat::TALKSPLAT_ISA
