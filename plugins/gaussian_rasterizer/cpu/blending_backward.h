// Gradients of pixels to gradients of splats.
#pragma once

#include "blending_forward.h"

namespace talksplat::TALKSPLAT_ISA {
namespace {

// Eight floats whatever the instruction set: the width of a record's parts.
using Octet = float __attribute__((vector_size(32)));

TALKSPLAT_HOST_DEVICE Octet load_octet(const float* p) {
  Octet out;
  std::memcpy(&out, p, sizeof(out));
  return out;
}

// For k in [0, count): records[instances[k]][0..8) += sum over lanes of values[k][lane] *
// matrix[lane]. Four rows at a time, so that the sums do not wait for each other.
inline void add_products(const float* values, const float* matrix, int matrix_stride,
                         const uint32_t* instances, int count, float* records, int record_stride) {
  const auto add = [&](int k, Octet sum) {
    float* record = records + static_cast<size_t>(instances[k]) * record_stride;
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
  const int channels = kChannels > 0 ? kChannels : frame.channels;
  const int size = record_size(channels), padded = size - kMoments;
  float* records = gradients.records + static_cast<size_t>(tile.begin) * size;
  std::memset(records, 0, sizeof(float) * count * size);

  Staged* staged =
      reinterpret_cast<Staged*>(scratch.staged.reserve(static_cast<size_t>(count) * kStagedFloats));
  uint32_t* masks = scratch.masks.reserve(queue_room(count));
  uint32_t* queue = scratch.queue.reserve(queue_room(count));
  // Per splat of the queue: alpha, then g; transmittance, then weight.
  float* alphas = scratch.weights.reserve(static_cast<size_t>(count + 1) * kLanes);
  float* weights = scratch.products.reserve(static_cast<size_t>(count + 1) * kLanes);
  // dL/d image of a block: by channel and lane, and by lane and channel.
  float* seeds = scratch.accumulators.reserve(static_cast<size_t>(channels + padded) * kLanes);
  float* seed_rows = seeds + channels * kLanes;
  std::memset(seed_rows, 0, sizeof(float) * padded * kLanes);
  alignas(32) float monomials[kLanes * kMoments];
  const uint32_t inside = blocks_inside(tile);
  const int staged_count =
      stage<kChannels == 0>(frame, tile, tile.begin, tile.end, inside, staged, masks);
  const Float zero(0.0f), one(1.0f);
  for (int block = 0; block < kBlocks; ++block) {
    if ((inside >> block & 1) == 0) continue;
    const int size_of_queue = select_splats(masks, staged_count, block, queue);
    if (size_of_queue == 0) continue;
    const Float x = load(kGeometry.pixel_x + block * kLanes);
    const Float y = load(kGeometry.pixel_y + block * kLanes);
    Light light = {one, one};
    int kept = 0;
    for_each_alpha(staged, queue, size_of_queue, x, y, limits, [&](uint32_t at, Float alpha) {
      const Float before = light.left;
      const Blend step = blend(alpha, limits, light);
      store(alphas + kept * kLanes, zero_unless(step.open, alpha));
      store(weights + kept * kLanes, before);
      queue[kept] = at;
      kept += any(zero < step.weight);
      return any(step.open);
    });
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
    Float suffix = behind * light.left;  // of all that lies behind splat `at`
    for (int at = kept - 1; at >= 0; --at) {
      const Staged& splat = staged[queue[at]];
      const float* values = kChannels > 0
                                ? splat.footprint.values
                                : frame.features + static_cast<int64_t>(splat.id) * channels;
      Float through = zero;  // dL/d weight
      for (int c = 0; c < channels; ++c) {
        through = multiply_add(load(seeds + c * kLanes), Float(values[c]), through);
      }
      const Float alpha = load(alphas + at * kLanes), before = load(weights + at * kLanes);
      const Float weight = alpha * before;
      // alpha (before through - suffix / (1 - alpha)); the clamp of alpha passes no gradient.
      const Float g =
          select(alpha < limits.max_alpha,
                 negative_multiply_add(suffix, alpha / (one - alpha), weight * through), zero);
      suffix = multiply_add(weight, through, suffix);
      store(alphas + at * kLanes, g);
      store(weights + at * kLanes, weight);
    }
    for (int at = 0; at < kept; ++at) queue[at] = staged[queue[at]].instance;
    for (int lane = 0; lane < kLanes; ++lane) {
      const float px = x.v[lane], py = y.v[lane];
      const float row[kMoments] = {1.0f, px, py, px * px, px * py, py * py, 0.0f, 0.0f};
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
    case 1:
      return blend_tile_backward_of<1>(frame, gradients, tile, scratch);
    case 2:
      return blend_tile_backward_of<2>(frame, gradients, tile, scratch);
    case 3:
      return blend_tile_backward_of<3>(frame, gradients, tile, scratch);
    case 4:
      return blend_tile_backward_of<4>(frame, gradients, tile, scratch);
    default:
      return blend_tile_backward_of<0>(frame, gradients, tile, scratch);
  }
}

// In a tile u = c + l0 x + l1 y with c the value at its centre, so that nothing large cancels along
// thin splats.
void add_record(const Splat& splat, int tile_x, int tile_y, const float* record, int size,
                float* sum) {
  const float x = tile_x * kTileSize + 0.5f * kTileSize - splat.x;
  const float y = tile_y * kTileSize + 0.5f * kTileSize - splat.y;
  const float l0 = splat.footprint.l0, l1 = splat.footprint.l1, l2 = splat.footprint.l2;
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

}  // namespace
}  // namespace talksplat::TALKSPLAT_ISA
