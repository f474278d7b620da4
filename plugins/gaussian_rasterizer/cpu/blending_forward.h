// Splats to pixels.
#pragma once

#include "tile.h"

namespace talksplat::TALKSPLAT_ISA {
namespace {

constexpr int kBatch = 256;  // splats staged at a time: 12 KiB of the first-level cache

// accumulators[c][lane] += sum_k weights[k][lane] * rows[k][c], kChannels at a time in registers.
template <int kChannels>
inline void accumulate(const float* weights, const float* const* rows, int count, int channel,
                       float* accumulators) {
  Float sums[kChannels];
  for (int c = 0; c < kChannels; ++c) sums[c] = load(accumulators + (channel + c) * kTilePixels);
  for (int k = 0; k < count; ++k) {
    const Float weight = load(weights + k * kLanes);
    const float* row = rows[k] + channel;
#pragma GCC unroll 16
    for (int c = 0; c < kChannels; ++c) sums[c] = multiply_add(weight, Float(row[c]), sums[c]);
  }
  for (int c = 0; c < kChannels; ++c) store(accumulators + (channel + c) * kTilePixels, sums[c]);
}

// Half of the vector registers.
constexpr int kChannelsAtATime = kLanes == 16 ? 16 : 8;

inline void accumulate_all(const float* weights, const float* const* rows, int count, int channels,
                           float* accumulators) {
  int c = 0;
  for (; c + kChannelsAtATime <= channels; c += kChannelsAtATime) {
    accumulate<kChannelsAtATime>(weights, rows, count, c, accumulators);
  }
  for (; c + 4 <= channels; c += 4) accumulate<4>(weights, rows, count, c, accumulators);
  for (; c < channels; ++c) accumulate<1>(weights, rows, count, c, accumulators);
}

// Blocks to rows: pixels [block][lane] of one channel to an image whose columns are adjacent.
inline void write_rows(const Tile& tile, const float* pixels, float* out, ptrdiff_t row) {
  for (int y = 0; y < tile.height; ++y) {
    const float* line =
        pixels + y / kBlockHeight * kBlockColumns * kLanes + y % kBlockHeight * kBlockWidth;
    for (int column = 0; column < kBlockColumns; ++column) {
      std::memcpy(out + y * row + column * kBlockWidth, line + column * kLanes,
                  sizeof(float) * kBlockWidth);
    }
  }
}

inline void write_pixels(const Tile& tile, const float* pixels, float* out, ptrdiff_t row,
                         ptrdiff_t column) {
  if (column == 1 && tile.width == kTileSize) return write_rows(tile, pixels, out, row);
  for (int y = 0; y < tile.height; ++y) {
    for (int x = 0; x < tile.width; ++x) {
      const int block = y / kBlockHeight * kBlockColumns + x / kBlockWidth;
      const int lane = y % kBlockHeight * kBlockWidth + x % kBlockWidth;
      out[y * row + x * column] = pixels[block * kLanes + lane];
    }
  }
}

// A strided image's values on a block, 0 outside the image.
inline Float load_block(const ImageView& image, const Tile& tile, int block, int channel) {
  const int x0 = block_x(block), y0 = block_y(block);
  const float* data = image.data + channel * image.channel + (tile.y + y0) * image.row +
                      (tile.x + x0) * image.column;
  if (image.row == 0 && image.column == 0) return Float(*data);
  alignas(64) float out[kLanes] = {};
  const int width = tile.width - x0 < kBlockWidth ? tile.width - x0 : kBlockWidth;
  const int height = tile.height - y0 < kBlockHeight ? tile.height - y0 : kBlockHeight;
  if (image.column == 1 && width == kBlockWidth) {
    for (int y = 0; y < height; ++y) {
      std::memcpy(out + y * kBlockWidth, data + y * image.row, sizeof(float) * kBlockWidth);
    }
  } else {
    for (int y = 0; y < height; ++y) {
      for (int x = 0; x < width; ++x) {
        out[y * kBlockWidth + x] = data[y * image.row + x * image.column];
      }
    }
  }
  return load(out);
}

// accumulators [channels][block][lane] over the background, and the alphas.
inline void write_tile(const Frame& frame, const Tile& tile, float* accumulators,
                       float* transmittances) {
  const int colors = frame.channels - (frame.with_depth ? 1 : 0);
  const uint32_t inside = blocks_inside(tile);
  for (int block = 0; block < kBlocks; ++block) {
    if ((inside >> block & 1) == 0) continue;
    float* pixels = accumulators + block * kLanes;
    const Float transmittance = load(transmittances + block * kLanes);
    const Float alpha = Float(1.0f) - transmittance;
    if (frame.background.data != nullptr) {
      for (int c = 0; c < colors; ++c) {
        store(pixels + c * kTilePixels,
              multiply_add(transmittance, load_block(frame.background, tile, block, c),
                           load(pixels + c * kTilePixels)));
      }
    }
    if (frame.expected_depth) {
      float* depth = pixels + colors * kTilePixels;
      store(depth, load(depth) / maximum(alpha, Float(1e-10f)));
    }
    store(transmittances + block * kLanes, alpha);
  }
  const auto write = [&](const ImageView& image, int channel, const float* pixels) {
    float* out = image.data + channel * image.channel + tile.y * image.row + tile.x * image.column;
    write_pixels(tile, pixels, out, image.row, image.column);
  };
  for (int c = 0; c < frame.channels; ++c) write(frame.colors, c, accumulators + c * kTilePixels);
  write(frame.alphas, 0, transmittances);
}

// kChannels 1..4: in registers, next to the splat. 0: any number, as a product of staged weights
// with feature rows.
template <int kChannels>
void blend_tile_of(const Frame& frame, int index, Scratch& scratch) {
  const Tile tile = locate(frame, index);
  const Limits limits = limits_of(frame.rules);
  const int channels = kChannels > 0 ? kChannels : frame.channels;
  float* accumulators = scratch.accumulators.reserve(static_cast<size_t>(channels) * kTilePixels);
  std::memset(accumulators, 0, sizeof(float) * channels * kTilePixels);
  alignas(64) float transmittances[kTilePixels];
  for (int block = 0; block < kBlocks; ++block) store(transmittances + block * kLanes, Float(1.0f));
  uint32_t open = blocks_inside(tile);

  Staged* staged = reinterpret_cast<Staged*>(scratch.staged.reserve(kBatch * kStagedFloats));
  uint32_t* masks = scratch.masks.reserve(kBatch);
  uint32_t* room = scratch.queues.reserve(Queues::room_for(kBatch));
  float* weights = kChannels > 0 ? nullptr : scratch.weights.reserve((kBatch + 1) * kLanes);
  const float* rows[kBatch + 1];
  for (uint32_t begin = tile.begin; begin < tile.end && open != 0; begin += kBatch) {
    const uint32_t end = tile.end - begin < kBatch ? tile.end : begin + kBatch;
    Queues queues(masks, stage(frame, tile, begin, end, open, staged, masks), room);
    for (uint32_t rest = open; rest != 0; rest &= rest - 1) {
      const int block = __builtin_ctz(rest);
      int size;
      const uint32_t* queue = queues.of(block, &size);
      const Float x = load(kGeometry.pixel_x + block * kLanes);
      const Float y = load(kGeometry.pixel_y + block * kLanes);
      Float transmittance = load(transmittances + block * kLanes);
      float* sums = accumulators + block * kLanes;
      bool finished = false;
      if constexpr (kChannels > 0) {
        Float registers[kChannels];
        for (int c = 0; c < kChannels; ++c) registers[c] = load(sums + c * kTilePixels);
        for (int at = 0; at < size; ++at) {
          const Staged& splat = staged[queue[at]];
          const Blend step = blend(splat, x, y, limits, transmittance);
          for (int c = 0; c < kChannels; ++c) {
            registers[c] =
                multiply_add(step.weight, Float(splat.footprint.values[c]), registers[c]);
          }
          if (!any(step.open)) {
            finished = true;
            break;
          }
        }
        for (int c = 0; c < kChannels; ++c) store(sums + c * kTilePixels, registers[c]);
      } else {
        int kept = 0;
        for (int at = 0; at < size; ++at) {
          const Staged& splat = staged[queue[at]];
          const Blend step = blend(splat, x, y, limits, transmittance);
          store(weights + kept * kLanes, step.weight);
          rows[kept] = frame.features + static_cast<int64_t>(splat.id) * channels;
          kept += any(step.hit & step.open);
          if (!any(step.open)) {
            finished = true;
            break;
          }
        }
        accumulate_all(weights, rows, kept, channels, sums);
      }
      store(transmittances + block * kLanes, transmittance);
      if (finished) open &= ~(1u << block);
    }
  }
  for (int block = 0; block < kBlocks; ++block) {
    store(transmittances + block * kLanes, absolute(load(transmittances + block * kLanes)));
  }
  write_tile(frame, tile, accumulators, transmittances);
}

void blend_tile(const Frame& frame, int tile, Scratch& scratch) {
  switch (frame.channels) {
    case 1:
      return blend_tile_of<1>(frame, tile, scratch);
    case 2:
      return blend_tile_of<2>(frame, tile, scratch);
    case 3:
      return blend_tile_of<3>(frame, tile, scratch);
    case 4:
      return blend_tile_of<4>(frame, tile, scratch);
    default:
      return blend_tile_of<0>(frame, tile, scratch);
  }
}

}  // namespace
}  // namespace talksplat::TALKSPLAT_ISA
