// The kernels, written once for every instruction set; included by kernels_<isa>.cpp only.
#pragma once

#include <cmath>

#include "../blending.h"
#include "../projection.h"
#include "../spherical_harmonics.h"
#include "kernels.h"
#include "simd.h"

namespace talksplat::TALKSPLAT_ISA {
namespace {

constexpr int kTilePixels = kTileSize * kTileSize;
// A block is what one vector holds: 4x4 pixels, or 4x2. Small compact blocks waste the fewest lanes on
// splats of a few pixels.
constexpr int kBlockWidth = 4;
constexpr int kBlockHeight = kLanes / kBlockWidth;
constexpr int kBlockColumns = kTileSize / kBlockWidth;
constexpr int kBlocks = kTilePixels / kLanes;
constexpr int kBatch = 256;  // splats staged at a time: 16 KiB, half of the first-level cache

TALKSPLAT_HOST_DEVICE Float load_strided(const float* p, ptrdiff_t stride, int count) {
  Float out(0.0f);
  for (int lane = 0; lane < count; ++lane) out.v[lane] = p[lane * stride];
  return out;
}

// x * 0 is 0 for finite x and NaN otherwise.
TALKSPLAT_HOST_DEVICE bool all_finite(Float zeros) { return bits(zeros == zeros) == (1u << (kLanes - 1)) * 2u - 1u; }

struct TileRange {
  int x0, y0, x1, y1;
};

TALKSPLAT_HOST_DEVICE int clamp_to_int(float x, int low, int high) {
  return x < static_cast<float>(low) ? low
                                     : (x > static_cast<float>(high) ? high : static_cast<int>(x));
}

// Tiles holding a pixel centre where alpha may reach 1/255, and which the dialect visits.
inline TileRange tile_range(const Rules& rules, const Frame& frame, float x, float y, float xx,
                            float yy, float xy, float log2_opacity) {
  const float reach = sqrtf(1.3862944f * (log2_opacity - kLog2MinAlpha));  // 2 ln 2
  const float deviation_x = sqrtf(xx), deviation_y = sqrtf(yy);
  const float slack = 1e-3f;
  const float width = reach * deviation_x * 1.0001f + slack;
  const float height = reach * deviation_y * 1.0001f + slack;
  const TileRange none = {0, 0, 0, 0};
  constexpr float inverse = 1.0f / kTileSize;
  TileRange range = {
      clamp_to_int(floorf(ceilf(x - width - 0.5f) * inverse), 0, frame.tiles_x),
      clamp_to_int(floorf(ceilf(y - height - 0.5f) * inverse), 0, frame.tiles_y),
      clamp_to_int(floorf(floorf(x + width - 0.5f) * inverse) + 1.0f, 0, frame.tiles_x),
      clamp_to_int(floorf(floorf(y + height - 0.5f) * inverse) + 1.0f, 0, frame.tiles_y)};
  TileRange dialect;
  if (rules.dialect == Dialect::kInria) {
    const float half_difference = 0.5f * (xx - yy);
    const float split = half_difference * half_difference + xy * xy;  // mid^2 - det
    const float largest = 0.5f * (xx + yy) + sqrtf(split > 0.1f ? split : 0.1f);
    const float radius = ceilf(3.0f * sqrtf(largest));
    if (radius <= rules.radius_clip) return none;
    const float px = x - 0.5f, py = y - 0.5f;  // counted in pixel indices
    dialect = {clamp_to_int((px - radius) * inverse, 0, frame.tiles_x),
               clamp_to_int((py - radius) * inverse, 0, frame.tiles_y),
               clamp_to_int((px + radius + (kTileSize - 1)) * inverse, 0, frame.tiles_x),
               clamp_to_int((py + radius + (kTileSize - 1)) * inverse, 0, frame.tiles_y)};
  } else {
    const float extent = reach < 3.33f ? reach : 3.33f;
    const float radius_x = ceilf(extent * deviation_x), radius_y = ceilf(extent * deviation_y);
    if (radius_x <= rules.radius_clip && radius_y <= rules.radius_clip) return none;
    if (x + radius_x <= 0.0f || x - radius_x >= frame.camera.width || y + radius_y <= 0.0f ||
        y - radius_y >= frame.camera.height) {
      return none;
    }
    dialect = {clamp_to_int(floorf((x - radius_x) * inverse), 0, frame.tiles_x),
               clamp_to_int(floorf((y - radius_y) * inverse), 0, frame.tiles_y),
               clamp_to_int(ceilf((x + radius_x) * inverse), 0, frame.tiles_x),
               clamp_to_int(ceilf((y + radius_y) * inverse), 0, frame.tiles_y)};
  }
  range.x0 = range.x0 > dialect.x0 ? range.x0 : dialect.x0;
  range.y0 = range.y0 > dialect.y0 ? range.y0 : dialect.y0;
  range.x1 = range.x1 < dialect.x1 ? range.x1 : dialect.x1;
  range.y1 = range.y1 < dialect.y1 ? range.y1 : dialect.y1;
  return range;
}

struct Loaded {
  Float mean[3], quat[4], scale[3], opacity;
};

TALKSPLAT_HOST_DEVICE Loaded load_gaussians(const Gaussians& g, int64_t at, int count) {
  Loaded in;
  for (int axis = 0; axis < 3; ++axis) in.mean[axis] = load_strided(g.means + 3 * at + axis, 3, count);
  for (int axis = 0; axis < 4; ++axis) in.quat[axis] = load_strided(g.quats + 4 * at + axis, 4, count);
  for (int axis = 0; axis < 3; ++axis) in.scale[axis] = load_strided(g.scales + 3 * at + axis, 3, count);
  in.opacity = load_strided(g.opacities + at, 1, count);
  return in;
}

TALKSPLAT_HOST_DEVICE Float compensation(const Projection<Float>& p, const Rules& rules) {
  if (!rules.antialiased) return Float(1.0f);
  return square_root(maximum(p.compensation_square, Float(rules.compensation_floor())));
}

// The unit direction from the camera to a Gaussian, and the distance.
inline float view_direction(const Frame& frame, int64_t id, float direction[3]) {
  const float* mean = frame.gaussians->means + 3 * id;
  for (int axis = 0; axis < 3; ++axis) direction[axis] = mean[axis] - frame.camera.position[axis];
  const float distance = sqrtf(direction[0] * direction[0] + direction[1] * direction[1] +
                               direction[2] * direction[2]);
  for (int axis = 0; axis < 3; ++axis) direction[axis] /= distance;
  return distance;
}

// The blended values of one Gaussian: colour, then depth.
inline void write_values(const Frame& frame, int64_t id, float depth, float* values) {
  const Gaussians& g = *frame.gaussians;
  const int colors = frame.channels - (frame.with_depth ? 1 : 0);
  if (colors > 0 && g.sh_degree >= 0) {
    float direction[3];
    view_direction(frame, id, direction);
    float basis[kMaxShBases];
    sh_basis(g.sh_degree, direction[0], direction[1], direction[2], basis);
    const float* coefficients = g.colors + static_cast<int64_t>(g.sh_bases) * 3 * id;
    const int bases = (g.sh_degree + 1) * (g.sh_degree + 1);
    for (int c = 0; c < 3; ++c) {
      float sum = 0.5f;
      for (int b = 0; b < bases; ++b) sum += basis[b] * coefficients[3 * b + c];
      values[c] = sum > 0.0f ? sum : 0.0f;
    }
  } else {
    const float* row = g.colors + id * g.color_channels;
    for (int c = 0; c < colors; ++c) values[c] = row[c];
  }
  if (frame.with_depth) values[colors] = depth;
}

int64_t project_range(const Frame& frame, int64_t begin, int64_t end, Splat* out, uint32_t* bad) {
  const Gaussians& g = *frame.gaussians;
  const Rules& rules = frame.rules;
  const Splat* first = out;
  Float zero_means(0.0f), zero_quats(0.0f), zero_scales(0.0f), zero_opacities(0.0f);
  for (int64_t at = begin; at < end; at += kLanes) {
    const int count = end - at < kLanes ? static_cast<int>(end - at) : kLanes;
    const Loaded in = load_gaussians(g, at, count);
    for (int axis = 0; axis < 3; ++axis) {
      zero_means = multiply_add(in.mean[axis], Float(0.0f), zero_means);
      zero_scales = multiply_add(in.scale[axis], Float(0.0f), zero_scales);
    }
    for (int axis = 0; axis < 4; ++axis) {
      zero_quats = multiply_add(in.quat[axis], Float(0.0f), zero_quats);
    }
    zero_opacities = multiply_add(in.opacity, Float(0.0f), zero_opacities);

    ProjectionTape<Float> tape;
    const Projection<Float> p = project(in.mean, in.quat, in.scale, frame.camera, rules, tape);
    const Float opacity = in.opacity * compensation(p, rules);
    const Float nearest(rules.nearest()), farthest(rules.far_plane);
    const Mask in_front =
        rules.drops_at_near_plane() ? (nearest < p.depth) : (nearest <= p.depth);
    const Mask seen = in_front & (p.depth <= farthest) & (Float(0.0f) < p.determinant) &
                      (Float(kMinAlpha) <= opacity);
    uint32_t lanes = bits(seen) & ((1u << count) - 1u);
    if (lanes == 0) continue;
    const Cholesky<Float> factor = cholesky(p);
    const Float log2_opacity = log2(opacity);
    const Float ridge_x = p.xy / p.yy, ridge_y = p.xy / p.xx;
    for (; lanes != 0; lanes &= lanes - 1) {
      const int lane = __builtin_ctz(lanes);
      const TileRange range =
          tile_range(rules, frame, p.x.v[lane], p.y.v[lane], p.xx.v[lane], p.yy.v[lane],
                     p.xy.v[lane], log2_opacity.v[lane]);
      if (range.x0 >= range.x1 || range.y0 >= range.y1) continue;
      Splat& splat = *out++;
      splat.x = p.x.v[lane];
      splat.y = p.y.v[lane];
      splat.l0 = factor.l0.v[lane];
      splat.l1 = factor.l1.v[lane];
      splat.l2 = factor.l2.v[lane];
      splat.log2_opacity = log2_opacity.v[lane];
      splat.ridge_x = ridge_x.v[lane];
      splat.ridge_y = ridge_y.v[lane];
      splat.depth = p.depth.v[lane];
      splat.id = static_cast<uint32_t>(at + lane);
      splat.narrow = rules.dialect == Dialect::kGsplat && splat.log2_opacity > 0.0f;
      splat.tile_x0 = static_cast<uint16_t>(range.x0);
      splat.tile_y0 = static_cast<uint16_t>(range.y0);
      splat.tile_x1 = static_cast<uint16_t>(range.x1);
      splat.tile_y1 = static_cast<uint16_t>(range.y1);
      if (frame.channels <= 4) {
        write_values(frame, at + lane, splat.depth, splat.values);
      } else if (frame.keep_features) {
        write_values(frame, at + lane, splat.depth,
                     frame.projected_features + (at + lane) * frame.channels);
      }
    }
  }
  // Colours are read here only to find what is not finite; those of unseen Gaussians count too.
  if (g.colors != nullptr) {
    const int64_t row = g.sh_degree >= 0 ? 3 * g.sh_bases : g.color_channels;
    const float* color = g.colors + begin * row;
    const float* last = g.colors + end * row;
    Float zero_colors(0.0f);
    for (; color + kLanes <= last; color += kLanes) {
      zero_colors = multiply_add(load(color), Float(0.0f), zero_colors);
    }
    float rest = 0.0f;
    for (; color < last; ++color) rest += *color * 0.0f;
    if (!all_finite(zero_colors) || !(rest == rest)) *bad |= kBadColors;
  }
  if (!all_finite(zero_means)) *bad |= kBadMeans;
  if (!all_finite(zero_quats)) *bad |= kBadQuats;
  if (!all_finite(zero_scales)) *bad |= kBadScales;
  if (!all_finite(zero_opacities)) *bad |= kBadOpacities;
  return out - first;
}

// ---- blending ------------------------------------------------------------------------------------

struct Tile {
  int x, y;            // first pixel
  int width, height;   // within the image
  uint32_t begin, end;  // instances
};

inline Tile locate(const Frame& frame, int tile) {
  Tile out;
  out.x = tile % frame.tiles_x * kTileSize;
  out.y = tile / frame.tiles_x * kTileSize;
  out.width = frame.camera.width - out.x < kTileSize ? frame.camera.width - out.x : kTileSize;
  out.height = frame.camera.height - out.y < kTileSize ? frame.camera.height - out.y : kTileSize;
  out.begin = frame.tile_starts[tile];
  out.end = frame.tile_starts[tile + 1];
  return out;
}

// Pixel centres of a block, from the tile's corner.
struct Centres {
  Float x, y;
};

inline Centres block_centres(int block) {
  Centres out;
  for (int lane = 0; lane < kLanes; ++lane) {
    out.x.v[lane] = block % kBlockColumns * kBlockWidth + lane % kBlockWidth + 0.5f;
    out.y.v[lane] = block / kBlockColumns * kBlockHeight + lane / kBlockWidth + 0.5f;
  }
  return out;
}

struct Limits {
  Float log2_max_alpha, max_alpha, last_transmittance;
};

TALKSPLAT_HOST_DEVICE Limits limits_of(const Rules& rules) {
  Limits out;
  out.log2_max_alpha = Float(rules.log2_max_alpha());
  out.max_alpha = exp2(out.log2_max_alpha);
  // Stopping below 1e-4 is stopping at or below the number before it.
  out.last_transmittance =
      Float(rules.stop_at_equality() ? kMinTransmittance : 9.9999990e-5f);
  return out;
}

// Which pixels still take light, and how much.
struct Pixels {
  Float transmittance;
  Mask alive;
};

struct Blend {
  Float alpha;   // 0 where the Gaussian does not count
  Float weight;  // alpha * transmittance before it
  Mask counted;
};

// One Gaussian onto one block; (x, y) of the splat are from the tile's corner.
TALKSPLAT_HOST_DEVICE Blend blend(const Splat& splat, const Centres& centres, const Limits& limits,
                                  Pixels& pixels) {
  const Float dx = centres.x - Float(splat.x), dy = centres.y - Float(splat.y);
  const Float power = exponent(dx, dy, Float(splat.l0), Float(splat.l1), Float(splat.l2),
                               Float(splat.log2_opacity));
  const Mask hit = (Float(kLog2MinAlpha) <= power) & pixels.alive;
  const Float alpha = exp2(maximum(minimum(power, limits.log2_max_alpha), Float(kLog2MinAlpha)));
  const Float next = negative_multiply_add(alpha, pixels.transmittance, pixels.transmittance);
  const Mask stopped = hit & (next <= limits.last_transmittance);
  Blend out;
  out.counted = and_not(hit, stopped);
  out.alpha = select(out.counted, alpha, Float(0.0f));
  out.weight = out.alpha * pixels.transmittance;
  pixels.transmittance = select(out.counted, next, pixels.transmittance);
  pixels.alive = and_not(pixels.alive, stopped);
  return out;
}

// Corners of every block as vectors, for the test of all blocks against one ellipse.
struct BlockBoxes {
  Float left[kBlocks / kLanes], top[kBlocks / kLanes];
};

inline BlockBoxes block_boxes() {
  BlockBoxes out;
  for (int block = 0; block < kBlocks; ++block) {
    out.left[block / kLanes].v[block % kLanes] = block % kBlockColumns * kBlockWidth + 0.5f;
    out.top[block / kLanes].v[block % kLanes] = block / kBlockColumns * kBlockHeight + 0.5f;
  }
  return out;
}

// Bit b: the ellipse alpha >= 1/255 may reach a pixel centre of block b. The exponent is largest on a
// box at the mean itself, or on one of the two edges that face it.
TALKSPLAT_HOST_DEVICE uint32_t blocks_reached(const Splat& splat, const BlockBoxes& boxes) {
  const Float l0(splat.l0), l1(splat.l1), l2(splat.l2);
  const Float slack(0.01f);  // the exact test follows for each pixel
  const Float limit = Float(splat.log2_opacity - kLog2MinAlpha) + slack;
  const Float zero(0.0f);
  uint32_t out = 0;
  for (int part = 0; part < kBlocks / kLanes; ++part) {
    const Float left = boxes.left[part] - Float(splat.x);
    const Float top = boxes.top[part] - Float(splat.y);
    const Float right = left + Float(kBlockWidth - 1.0f), bottom = top + Float(kBlockHeight - 1.0f);
    const Float edge_x = minimum(maximum(zero, left), right);
    const Float edge_y = minimum(maximum(zero, top), bottom);
    const Float along_y = minimum(maximum(Float(splat.ridge_y) * edge_x, top), bottom);
    const Float along_x = minimum(maximum(Float(splat.ridge_x) * edge_y, left), right);
    const Float u0 = multiply_add(l0, edge_x, l1 * along_y), u1 = l2 * along_y;
    const Float v0 = multiply_add(l0, along_x, l1 * edge_y), v1 = l2 * edge_y;
    const Float vertical = multiply_add(u0, u0, u1 * u1);
    const Float horizontal = multiply_add(v0, v0, v1 * v1);
    out |= bits(minimum(vertical, horizontal) <= limit) << (part * kLanes);
  }
  return out;
}

// Blocks with a pixel inside the image.
inline uint32_t blocks_inside(const Tile& tile) {
  uint32_t out = 0;
  for (int block = 0; block < kBlocks; ++block) {
    const bool inside = block % kBlockColumns * kBlockWidth < tile.width &&
                        block / kBlockColumns * kBlockHeight < tile.height;
    out |= static_cast<uint32_t>(inside) << block;
  }
  return out;
}

// Copies splats into the tile's coordinates and finds which blocks each reaches.
inline void stage(const Frame& frame, const Tile& tile, uint32_t begin, uint32_t end,
                  const BlockBoxes& boxes, uint32_t wanted, Splat* splats, uint32_t* masks) {
  for (uint32_t at = begin; at < end; ++at) {
    Splat& splat = splats[at - begin];
    splat = frame.splats[frame.instances[at]];
    splat.x -= static_cast<float>(tile.x);
    splat.y -= static_cast<float>(tile.y);
    masks[at - begin] = blocks_reached(splat, boxes) & wanted;
  }
}

// Which of `count` splats reach `block`, in order.
inline int select_splats(const uint32_t* masks, int count, int block, uint32_t* queue) {
  int size = 0;
  for (int at = 0; at < count; ++at) {
    queue[size] = static_cast<uint32_t>(at);
    size += (masks[at] >> block) & 1;
  }
  return size;
}

inline const float* values_of(const Frame& frame, const Splat& splat) {
  return frame.channels <= 4 ? splat.values
                             : frame.features + static_cast<int64_t>(splat.id) * frame.channels;
}

// accumulators[c][lane] += sum_k weights[k][lane] * rows[k][c], kChannels at a time in registers.
template <int kChannels>
TALKSPLAT_HOST_DEVICE void accumulate(const float* weights, const float* const* rows, int count,
                                      int channel, float* accumulators) {
  Float sums[kChannels];
  for (int c = 0; c < kChannels; ++c) sums[c] = load(accumulators + (channel + c) * kTilePixels);
  for (int k = 0; k < count; ++k) {
    const Float weight = load(weights + k * kLanes);
    const float* row = rows[k] + channel;
    for (int c = 0; c < kChannels; ++c) sums[c] = multiply_add(weight, Float(row[c]), sums[c]);
  }
  for (int c = 0; c < kChannels; ++c) store(accumulators + (channel + c) * kTilePixels, sums[c]);
}

// accumulators: [channels][block][lane].
inline void write_tile(const Frame& frame, const Tile& tile, const float* accumulators,
                       const float* transmittances) {
  for (int y = 0; y < tile.height; ++y) {
    for (int x = 0; x < tile.width; ++x) {
      const int block = y / kBlockHeight * kBlockColumns + x / kBlockWidth;
      const int pixel = block * kLanes + y % kBlockHeight * kBlockWidth + x % kBlockWidth;
      const float transmittance = transmittances[pixel];
      const ptrdiff_t row = tile.y + y, column = tile.x + x;
      const float alpha = 1.0f - transmittance;
      frame.alphas.data[row * frame.alphas.row + column * frame.alphas.column] = alpha;
      float* out = frame.colors.data + row * frame.colors.row + column * frame.colors.column;
      const float* behind = frame.background.data == nullptr
                                ? nullptr
                                : frame.background.data + row * frame.background.row +
                                      column * frame.background.column;
      const int colors = frame.channels - (frame.with_depth ? 1 : 0);
      for (int c = 0; c < colors; ++c) {
        float value = accumulators[c * kTilePixels + pixel];
        if (behind != nullptr) value += transmittance * behind[c * frame.background.channel];
        out[c * frame.colors.channel] = value;
      }
      if (frame.with_depth) {
        float value = accumulators[colors * kTilePixels + pixel];
        if (frame.expected_depth) value /= alpha > 1e-10f ? alpha : 1e-10f;
        out[colors * frame.colors.channel] = value;
      }
    }
  }
}

// kChannels 1..4: in registers, next to the splat. 0: any number, as a product of staged weights with
// feature rows.
template <int kChannels>
void blend_tile_of(const Frame& frame, int index, Scratch& scratch) {
  const Tile tile = locate(frame, index);
  const Limits limits = limits_of(frame.rules);
  const BlockBoxes boxes = block_boxes();
  const int channels = kChannels > 0 ? kChannels : frame.channels;
  float* accumulators = scratch.accumulators.reserve(static_cast<size_t>(channels) * kTilePixels);
  std::memset(accumulators, 0, sizeof(float) * channels * kTilePixels);
  alignas(64) float transmittances[kTilePixels];
  Mask alive[kBlocks];
  for (int pixel = 0; pixel < kTilePixels; ++pixel) transmittances[pixel] = 1.0f;
  for (int block = 0; block < kBlocks; ++block) alive[block] = all_lanes();
  uint32_t open = blocks_inside(tile);

  Splat* splats = scratch.splats.reserve(kBatch);
  uint32_t* masks = scratch.masks.reserve(kBatch);
  uint32_t* queue = scratch.queue.reserve(kBatch + 1);
  float* weights = kChannels > 0 ? nullptr : scratch.weights.reserve(kBatch * kLanes);
  const float* rows[kBatch];
  for (uint32_t begin = tile.begin; begin < tile.end && open != 0; begin += kBatch) {
    const uint32_t end = tile.end - begin < kBatch ? tile.end : begin + kBatch;
    stage(frame, tile, begin, end, boxes, open, splats, masks);
    for (int block = 0; block < kBlocks; ++block) {
      if ((open >> block & 1) == 0) continue;
      const int size = select_splats(masks, static_cast<int>(end - begin), block, queue);
      const Centres centres = block_centres(block);
      Pixels pixels = {load(transmittances + block * kLanes), alive[block]};
      float* sums = accumulators + block * kLanes;
      if constexpr (kChannels > 0) {
        Float registers[kChannels];
        for (int c = 0; c < kChannels; ++c) registers[c] = load(sums + c * kTilePixels);
        for (int at = 0; at < size; ++at) {
          const Splat& splat = splats[queue[at]];
          const Blend step = blend(splat, centres, limits, pixels);
          for (int c = 0; c < kChannels; ++c) {
            registers[c] = multiply_add(step.weight, Float(splat.values[c]), registers[c]);
          }
          if (!any(pixels.alive)) break;
        }
        for (int c = 0; c < kChannels; ++c) store(sums + c * kTilePixels, registers[c]);
      } else {
        int kept = 0;
        for (int at = 0; at < size; ++at) {
          const Splat& splat = splats[queue[at]];
          const Blend step = blend(splat, centres, limits, pixels);
          store(weights + kept * kLanes, step.weight);
          rows[kept] = frame.features + static_cast<int64_t>(splat.id) * channels;
          kept += any(step.counted);
          if (!any(pixels.alive)) break;
        }
        int c = 0;
        for (; c + 8 <= channels; c += 8) accumulate<8>(weights, rows, kept, c, sums);
        for (; c < channels; ++c) accumulate<1>(weights, rows, kept, c, sums);
      }
      store(transmittances + block * kLanes, pixels.transmittance);
      alive[block] = pixels.alive;
      if (!any(pixels.alive)) open &= ~(1u << block);
    }
  }
  write_tile(frame, tile, accumulators, transmittances);
}

void blend_tile(const Frame& frame, int tile, Scratch& scratch) {
  switch (frame.channels) {
    case 1: return blend_tile_of<1>(frame, tile, scratch);
    case 2: return blend_tile_of<2>(frame, tile, scratch);
    case 3: return blend_tile_of<3>(frame, tile, scratch);
    case 4: return blend_tile_of<4>(frame, tile, scratch);
    default: return blend_tile_of<0>(frame, tile, scratch);
  }
}

// ---- backward ------------------------------------------------------------------------------------

// A strided image's values on a block, 0 outside the image.
inline Float load_block(const ImageView& image, const Tile& tile, int block, int channel) {
  Float out(0.0f);
  const int x0 = block % kBlockColumns * kBlockWidth, y0 = block / kBlockColumns * kBlockHeight;
  const float* data = image.data + channel * image.channel;
  for (int lane = 0; lane < kLanes; ++lane) {
    const int x = x0 + lane % kBlockWidth, y = y0 + lane / kBlockWidth;
    if (x < tile.width && y < tile.height) {
      out.v[lane] = data[(tile.y + y) * image.row + (tile.x + x) * image.column];
    }
  }
  return out;
}

// Eight floats whatever the instruction set: the width of a record's parts.
using Octet = float __attribute__((vector_size(32)));

TALKSPLAT_HOST_DEVICE Octet load_octet(const float* p) {
  Octet out;
  std::memcpy(&out, p, sizeof(out));
  return out;
}

// For k in [0, count): records[queue[k]][0..8) += sum over lanes of values[k][lane] * matrix[lane].
// Four rows at a time, so that the sums do not wait for each other.
inline void add_products(const float* values, const float* matrix, int matrix_stride,
                         const uint32_t* queue, int count, float* records, int record_stride) {
  const auto add = [&](int k, Octet sum) {
    float* record = records + static_cast<size_t>(queue[k]) * record_stride;
    sum += load_octet(record);
    std::memcpy(record, &sum, sizeof(sum));
  };
  int k = 0;
  for (; k + 4 <= count; k += 4) {
    Octet sums[4] = {};
    const float* rows = values + k * kLanes;
#pragma GCC unroll 16
    for (int lane = 0; lane < kLanes; ++lane) {
      const Octet column = load_octet(matrix + lane * matrix_stride);
      for (int i = 0; i < 4; ++i) sums[i] += rows[i * kLanes + lane] * column;
    }
    for (int i = 0; i < 4; ++i) add(k + i, sums[i]);
  }
  for (; k < count; ++k) {
    Octet sum = {};
    for (int lane = 0; lane < kLanes; ++lane) {
      sum += values[k * kLanes + lane] * load_octet(matrix + lane * matrix_stride);
    }
    add(k, sum);
  }
}

template <int kChannels>  // 0: any number
void blend_tile_backward_of(const Frame& frame, const FrameGradients& gradients, int index,
                            Scratch& scratch) {
  const Tile tile = locate(frame, index);
  const uint32_t count = tile.end - tile.begin;
  if (count == 0) return;
  const Limits limits = limits_of(frame.rules);
  const BlockBoxes boxes = block_boxes();
  const int channels = kChannels > 0 ? kChannels : frame.channels;
  const int size = record_size(channels), padded = size - kMoments;
  float* records = gradients.records + static_cast<size_t>(tile.begin) * size;
  std::memset(records, 0, sizeof(float) * count * size);

  Splat* splats = scratch.splats.reserve(count);
  uint32_t* masks = scratch.masks.reserve(count);
  uint32_t* queue = scratch.queue.reserve(count + 1);
  // Per splat of the queue: alpha, then g; transmittance, then weight.
  float* alphas = scratch.weights.reserve(static_cast<size_t>(count) * kLanes);
  float* weights = scratch.products.reserve(static_cast<size_t>(count) * kLanes);
  // dL/d image of a block: by channel and lane, and by lane and channel.
  float* seeds = scratch.accumulators.reserve(static_cast<size_t>(channels + padded) * kLanes);
  float* seed_rows = seeds + channels * kLanes;
  std::memset(seed_rows, 0, sizeof(float) * padded * kLanes);
  alignas(32) float monomials[kLanes * kMoments];
  const uint32_t inside = blocks_inside(tile);
  stage(frame, tile, tile.begin, tile.end, boxes, inside, splats, masks);
  const Float zero(0.0f), one(1.0f);
  for (int block = 0; block < kBlocks; ++block) {
    if ((inside >> block & 1) == 0) continue;
    const int selected = select_splats(masks, static_cast<int>(count), block, queue);
    if (selected == 0) continue;
    const Centres centres = block_centres(block);
    Pixels pixels = {one, all_lanes()};
    int kept = 0;
    for (int at = 0; at < selected; ++at) {
      const Float before = pixels.transmittance;
      const Blend step = blend(splats[queue[at]], centres, limits, pixels);
      store(alphas + kept * kLanes, step.alpha);
      store(weights + kept * kLanes, before);
      queue[kept] = queue[at];
      kept += any(step.counted);
      if (!any(pixels.alive)) break;
    }
    // What one more unit of light from behind would bring: dL/dT of the last transmittance.
    Float behind = zero - load_block(gradients.alphas, tile, block, 0);
    for (int c = 0; c < channels; ++c) {
      const Float seed = load_block(gradients.colors, tile, block, c);
      store(seeds + c * kLanes, seed);
      for (int lane = 0; lane < kLanes; ++lane) seed_rows[lane * padded + c] = seed.v[lane];
      const bool is_depth = frame.with_depth && c == channels - 1;
      if (frame.background.data != nullptr && !is_depth) {
        behind = multiply_add(seed, load_block(frame.background, tile, block, c), behind);
      }
    }
    Float suffix = behind * pixels.transmittance;  // of all that lies behind splat `at`
    for (int at = kept - 1; at >= 0; --at) {
      const Splat& splat = splats[queue[at]];
      const float* values = kChannels > 0 ? splat.values : values_of(frame, splat);
      Float through = zero;  // dL/d weight
      for (int c = 0; c < channels; ++c) {
        through = multiply_add(load(seeds + c * kLanes), Float(values[c]), through);
      }
      const Float alpha = load(alphas + at * kLanes), before = load(weights + at * kLanes);
      const Float weight = alpha * before;
      // alpha (before through - suffix / (1 - alpha)); the clamp of alpha passes no gradient.
      const Float g = select(alpha < limits.max_alpha,
                             negative_multiply_add(suffix, alpha / (one - alpha), weight * through),
                             zero);
      suffix = multiply_add(weight, through, suffix);
      store(alphas + at * kLanes, g);
      store(weights + at * kLanes, weight);
    }
    for (int lane = 0; lane < kLanes; ++lane) {
      const float x = centres.x.v[lane] - 0.5f * kTileSize, y = centres.y.v[lane] - 0.5f * kTileSize;
      const float row[kMoments] = {1.0f, x, y, x * x, x * y, y * y, 0.0f, 0.0f};
      std::memcpy(monomials + lane * kMoments, row, sizeof(row));
    }
    add_products(alphas, monomials, kMoments, queue, kept, records, size);
    for (int c = 0; c < padded; c += 8) {
      add_products(weights, seed_rows + c, padded, queue, kept, records + kMoments + c, size);
    }
  }
}

void blend_tile_backward(const Frame& frame, const FrameGradients& gradients, int tile,
                         Scratch& scratch) {
  switch (frame.channels) {
    case 1: return blend_tile_backward_of<1>(frame, gradients, tile, scratch);
    case 2: return blend_tile_backward_of<2>(frame, gradients, tile, scratch);
    case 3: return blend_tile_backward_of<3>(frame, gradients, tile, scratch);
    case 4: return blend_tile_backward_of<4>(frame, gradients, tile, scratch);
    default: return blend_tile_backward_of<0>(frame, gradients, tile, scratch);
  }
}

// In a tile u = c + l0 x + l1 y with c the value at its centre, so that nothing large cancels along
// thin splats.
void add_record(const Splat& splat, int tile_x, int tile_y, const float* record, int size,
                float* sum) {
  const float x = tile_x * kTileSize + 0.5f * kTileSize - splat.x;
  const float y = tile_y * kTileSize + 0.5f * kTileSize - splat.y;
  const float l0 = splat.l0, l1 = splat.l1, l2 = splat.l2;
  const float c0 = l0 * x + l1 * y, c1 = l2 * y;
  const float* m = record;
  const float p0 = l0 * m[1] + l1 * m[2], p1 = l2 * m[2];  // sums of g (u - c)
  const float p00 = l0 * l0 * m[3] + 2.0f * l0 * l1 * m[4] + l1 * l1 * m[5];
  const float p01 = l2 * (l0 * m[4] + l1 * m[5]);
  const float p11 = l2 * l2 * m[5];
  sum[0] += m[0];
  sum[1] += p0 + c0 * m[0];
  sum[2] += p1 + c1 * m[0];
  sum[3] += p00 + c0 * (2.0f * p0 + c0 * m[0]);
  sum[4] += p01 + c0 * p1 + c1 * (p0 + c0 * m[0]);
  sum[5] += p11 + c1 * (2.0f * p1 + c1 * m[0]);
  for (int at = kMoments; at < size; at += 8) {
    const Octet total = load_octet(sum + at) + load_octet(record + at);
    std::memcpy(sum + at, &total, sizeof(total));
  }
}

// Spherical harmonics of one Gaussian: gradients of coefficients and, through the view direction, of
// the mean.
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

void project_backward_range(const Frame& frame, const float* records, int64_t begin, int64_t end,
                            const GaussianGradients& out) {
  const Gaussians& g = *frame.gaussians;
  const Rules& rules = frame.rules;
  const int colors = frame.channels - (frame.with_depth ? 1 : 0);
  const int size = record_size(frame.channels);
  for (int64_t first = begin; first < end; first += kLanes) {
    const int count = end - first < kLanes ? static_cast<int>(end - first) : kLanes;
    int64_t ids[kLanes];
    for (int lane = 0; lane < count; ++lane) ids[lane] = frame.splats[first + lane].id;
    const auto gather = [&](const float* p, int stride, int offset) {
      Float values(1.0f);
      for (int lane = 0; lane < count; ++lane) values.v[lane] = p[stride * ids[lane] + offset];
      return values;
    };
    const auto record = [&](int offset) {
      return load_strided(records + first * size + offset, size, count);
    };
    Float mean[3], quat[4], scale[3];
    for (int axis = 0; axis < 3; ++axis) mean[axis] = gather(g.means, 3, axis);
    for (int axis = 0; axis < 4; ++axis) quat[axis] = gather(g.quats, 4, axis);
    for (int axis = 0; axis < 3; ++axis) scale[axis] = gather(g.scales, 3, axis);
    ProjectionTape<Float> tape;
    const Projection<Float> p = project(mean, quat, scale, frame.camera, rules, tape);
    const Moments<Float> moments = {record(0), record(1), record(2), record(3), record(4), record(5)};
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
    for (int lane = 0; lane < count; ++lane) {
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

void to_uint8(const float* image, ptrdiff_t column, ptrdiff_t channel, int width, uint8_t* out) {
  for (int x = 0; x < width; ++x) {
    for (int c = 0; c < 3; ++c) {
      float value = image[x * column + c * channel];
      value = value > 0.0f ? value : 0.0f;  // also of NaN
      value = value < 1.0f ? value : 1.0f;
      out[3 * x + c] = static_cast<uint8_t>(value * 255.0f);
    }
  }
}

}  // namespace
}  // namespace talksplat::TALKSPLAT_ISA
