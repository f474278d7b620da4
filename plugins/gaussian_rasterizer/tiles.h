// Which tiles of 16x16 pixels a Gaussian is listed in.
#pragma once

#include "host_device.h"
#include "projection.h"
#include "rules.h"

namespace talksplat {

inline constexpr float kSqrt2Ln2 = 1.17741002f;

// How far, in u = L d (see blending.h), a Gaussian has an alpha of 1/255 or more.
template <class T>
TALKSPLAT_HOST_DEVICE T reach_of(T log2_opacity) {
  return square_root(maximum(log2_opacity - T(kLog2MinAlpha), T(0.0f)));
}

// The same along x and along y, in pixels.
template <class T>
struct Reach {
  T x, y;
};

// sqrt(2 ln 2) standard deviations, and a little more than rounding can take away.
template <class T>
TALKSPLAT_HOST_DEVICE Reach<T> reach_in_pixels(const Projection<T>& p, T reach) {
  const T slack(1e-3f), wide = reach * T(kSqrt2Ln2 * 1.0001f);
  return {multiply_add(wide, square_root(p.xx), slack),
          multiply_add(wide, square_root(p.yy), slack)};
}

// How far in u0 the middle of a block of pixels may lie from the mean, if the block is to hold a
// pixel that the ellipse alpha = 1/255 reaches. Half sizes are those of the pixel centres.
template <class T>
TALKSPLAT_HOST_DEVICE T reach_of_block(T reach, T l0, T l1, float half_width, float half_height) {
  return reach * T(1.0001f) + T(1e-3f) + T(half_width) * l0 + T(half_height) * absolute(l1);
}

// Tiles [x0, x1) by [y0, y1), whole numbers.
template <class T>
struct TileBounds {
  T x0, y0, x1, y1;
};

// Tiles with a pixel centre where alpha may reach 1/255 and which the dialect visits; empty where
// the dialect drops the Gaussian, and for what is not a number.
template <class T>
TALKSPLAT_HOST_DEVICE TileBounds<T> tile_bounds(const Rules& rules, const Camera& camera,
                                                const Projection<T>& p, T reach,
                                                const Reach<T>& reached) {
  const T zero(0.0f), one(1.0f), half(0.5f), inverse(1.0f / kTileSize);
  const T tiles_x(static_cast<float>((camera.width + kTileSize - 1) / kTileSize));
  const T tiles_y(static_cast<float>((camera.height + kTileSize - 1) / kTileSize));
  T x0 = floor(ceil(p.x - reached.x - half) * inverse);
  T y0 = floor(ceil(p.y - reached.y - half) * inverse);
  T x1 = floor(floor(p.x + reached.x - half) * inverse) + one;
  T y1 = floor(floor(p.y + reached.y - half) * inverse) + one;
  decltype(zero < one) kept;
  if (rules.dialect == Dialect::kInria) {
    const T half_difference = half * (p.xx - p.yy);
    const T split = multiply_add(half_difference, half_difference, p.xy * p.xy);  // mid^2 - det
    const T largest = half * (p.xx + p.yy) + square_root(maximum(split, T(0.1f)));
    const T radius = ceil(T(3.0f) * square_root(largest));
    const T last(kTileSize - 1.0f);
    const T px = p.x - half, py = p.y - half;  // counted in pixel indices
    // inria rounds toward zero; below zero the clamp makes that the same.
    x0 = maximum(x0, floor((px - radius) * inverse));
    y0 = maximum(y0, floor((py - radius) * inverse));
    x1 = minimum(x1, floor((px + radius + last) * inverse));
    y1 = minimum(y1, floor((py + radius + last) * inverse));
    kept = T(rules.radius_clip) < radius;
  } else {
    const T extent = minimum(reach * T(kSqrt2Ln2), T(3.33f));
    const T radius_x = ceil(extent * square_root(p.xx));
    const T radius_y = ceil(extent * square_root(p.yy));
    x0 = maximum(x0, floor((p.x - radius_x) * inverse));
    y0 = maximum(y0, floor((p.y - radius_y) * inverse));
    x1 = minimum(x1, ceil((p.x + radius_x) * inverse));
    y1 = minimum(y1, ceil((p.y + radius_y) * inverse));
    kept = (T(rules.radius_clip) < maximum(radius_x, radius_y)) & (zero < p.x + radius_x) &
           (zero < p.y + radius_y) & (p.x - radius_x < T(static_cast<float>(camera.width))) &
           (p.y - radius_y < T(static_cast<float>(camera.height)));
  }
  return {minimum(maximum(x0, zero), tiles_x), minimum(maximum(y0, zero), tiles_y),
          zero_unless(kept, minimum(maximum(x1, zero), tiles_x)),
          zero_unless(kept, minimum(maximum(y1, zero), tiles_y))};
}

// Least |u|^2 over a box whose sides lie at these places from the mean. Lists are counted by one
// piece of code and written by another, for tiles that this decides: sums of products say which
// product is rounded, so that no compiler may choose differently in the two.
TALKSPLAT_HOST_DEVICE float least_square(float l0, float l1, float l2, float left, float right,
                                         float top, float bottom) {
  const auto square = [=](float dx, float dy) {
    const float u0 = multiply_add(l0, dx, l1 * dy), u1 = l2 * dy;
    return multiply_add(u0, u0, u1 * u1);
  };
  // It lies at the mean itself, or on one of the two edges that face it.
  const float edge_x = minimum(maximum(0.0f, left), right);
  const float edge_y = minimum(maximum(0.0f, top), bottom);
  const float slope = -(l0 * l1) / multiply_add(l1, l1, l2 * l2);
  const float along_y = minimum(maximum(slope * edge_x, top), bottom);
  const float along_x = minimum(maximum(-l1 / l0 * edge_y, left), right);
  return minimum(square(edge_x, along_y), square(along_x, edge_y));
}

// gsplat 1.6 lists a tile when the ellipse of 3.33 deviations meets it; only for opacities above 1
// does that leave out pixels of alpha >= 1/255.
TALKSPLAT_HOST_DEVICE bool narrows_lists(Dialect dialect, float log2_opacity) {
  return dialect == Dialect::kGsplat && log2_opacity > 0.0f;
}

TALKSPLAT_HOST_DEVICE bool ellipse_meets_tile(float x, float y, float l0, float l1, float l2,
                                              int tile_x, int tile_y) {
  const float left = static_cast<float>(tile_x * kTileSize) - x;
  const float top = static_cast<float>(tile_y * kTileSize) - y;
  constexpr float kLimit = 0.5f * kLog2E * 3.33f * 3.33f;
  return least_square(l0, l1, l2, left, left + kTileSize, top, top + kTileSize) <= kLimit;
}

// Whether the ellipse alpha = 1/255, |u| = reach, may meet a pixel centre of the tile: false only
// where it does not, rounding included.
TALKSPLAT_HOST_DEVICE bool pixels_may_be_reached(float x, float y, float l0, float l1, float l2,
                                                 float reach, int tile_x, int tile_y) {
  const float left = static_cast<float>(tile_x * kTileSize) + 0.5f - x;
  const float top = static_cast<float>(tile_y * kTileSize) + 0.5f - y;
  const float limit = multiply_add(reach, 1.0001f, 1e-3f);
  return !(least_square(l0, l1, l2, left, left + (kTileSize - 1), top, top + (kTileSize - 1)) >
           limit * limit);
}

}  // namespace talksplat
