// Splats to pixels.
#pragma once

#include "tile.h"

namespace talksplat::TALKSPLAT_ISA {
namespace {

// sums[c][lane] += sum_k weights[k][lane] * rows[k][c], kChannels at a time in registers.
template <int kChannels>
inline void accumulate(const float* weights, const float* const* rows, int count, int channel,
                       float* sums) {
  Float registers[kChannels];
  for (int c = 0; c < kChannels; ++c) registers[c] = load(sums + (channel + c) * kLanes);
  for (int k = 0; k < count; ++k) {
    const Float weight = load(weights + k * kLanes);
    const float* row = rows[k] + channel;
    asm("" : "+r"(row));  // one address and constant offsets, not an address for every channel
#pragma GCC unroll 16
    for (int c = 0; c < kChannels; ++c) {
      registers[c] = multiply_add(weight, Float(row[c]), registers[c]);
    }
  }
  for (int c = 0; c < kChannels; ++c) store(sums + (channel + c) * kLanes, registers[c]);
}

// Half of the vector registers.
constexpr int kChannelsAtATime = kLanes == 16 ? 16 : 8;

inline void accumulate_all(const float* weights, const float* const* rows, int count, int channels,
                           float* sums) {
  int c = 0;
  for (; c + kChannelsAtATime <= channels; c += kChannelsAtATime) {
    accumulate<kChannelsAtATime>(weights, rows, count, c, sums);
  }
  for (; c + 4 <= channels; c += 4) accumulate<4>(weights, rows, count, c, sums);
  for (; c < channels; ++c) accumulate<1>(weights, rows, count, c, sums);
}

// The blocks of one channel side by side, kBlockColumns of them, to kBlockHeight rows of a tile.
TALKSPLAT_HOST_DEVICE void blocks_to_rows(const Float* blocks, Float* rows) {
#if defined(__AVX512F__)
  const NativeFloat a = blocks[0].v, b = blocks[1].v, c = blocks[2].v, d = blocks[3].v;
  const auto low = [](NativeFloat p, NativeFloat q) {
    return __builtin_shufflevector(p, q, 0, 1, 2, 3, 4, 5, 6, 7, 16, 17, 18, 19, 20, 21, 22, 23);
  };
  const auto high = [](NativeFloat p, NativeFloat q) {
    return __builtin_shufflevector(p, q, 8, 9, 10, 11, 12, 13, 14, 15, 24, 25, 26, 27, 28, 29, 30,
                                   31);
  };
  const auto even = [](NativeFloat p, NativeFloat q) {
    return __builtin_shufflevector(p, q, 0, 1, 2, 3, 8, 9, 10, 11, 16, 17, 18, 19, 24, 25, 26, 27);
  };
  const auto odd = [](NativeFloat p, NativeFloat q) {
    return __builtin_shufflevector(p, q, 4, 5, 6, 7, 12, 13, 14, 15, 20, 21, 22, 23, 28, 29, 30,
                                   31);
  };
  rows[0] = even(low(a, b), low(c, d));
  rows[1] = odd(low(a, b), low(c, d));
  rows[2] = even(high(a, b), high(c, d));
  rows[3] = odd(high(a, b), high(c, d));
#else
  for (int half = 0; half < 2; ++half) {
    const NativeFloat a = blocks[2 * half].v, b = blocks[2 * half + 1].v;
    rows[half] = __builtin_shufflevector(a, b, 0, 1, 2, 3, 8, 9, 10, 11);
    rows[2 + half] = __builtin_shufflevector(a, b, 4, 5, 6, 7, 12, 13, 14, 15);
  }
#endif
}

// One channel, `pixels` [block * block_stride + lane], to an image whose columns are adjacent.
// Images of many channels are larger than the caches; their rows go past them when they can.
inline void write_rows(const Tile& tile, const float* pixels, int block_stride, float* out,
                       ptrdiff_t row, bool past_caches) {
  past_caches &= (reinterpret_cast<uintptr_t>(out) | static_cast<uintptr_t>(row * 4)) % 64 == 0;
  for (int y = 0; y < tile.height; y += kBlockHeight) {
    Float blocks[kBlockColumns], rows[kBlockColumns];
    for (int column = 0; column < kBlockColumns; ++column) {
      blocks[column] = load(pixels + (y / kBlockHeight * kBlockColumns + column) * block_stride);
    }
    blocks_to_rows(blocks, rows);
    for (int i = 0; i < kBlockColumns; ++i) {
      const int line = y + i * kLanes / kTileSize;
      if (line >= tile.height) break;
      float* to = out + line * row + i * kLanes % kTileSize;
      if (past_caches) {
        stream(to, rows[i]);
      } else {
        store(to, rows[i]);
      }
    }
  }
}

inline void write_pixels(const Tile& tile, const float* pixels, int block_stride, float* out,
                         ptrdiff_t row, ptrdiff_t column, bool past_caches) {
  if (column == 1 && tile.width == kTileSize) {
    return write_rows(tile, pixels, block_stride, out, row, past_caches);
  }
  for (int y = 0; y < tile.height; ++y) {
    for (int x = 0; x < tile.width; ++x) {
      const int block = y / kBlockHeight * kBlockColumns + x / kBlockWidth;
      const int lane = y % kBlockHeight * kBlockWidth + x % kBlockWidth;
      out[y * row + x * column] = pixels[block * block_stride + lane];
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

// accumulators [block][channels][lane] over the background, and the alphas.
inline void write_tile(const Frame& frame, const Tile& tile, float* accumulators,
                       const float* transmittances, float* alphas) {
  const int colors = frame.channels - (frame.with_depth ? 1 : 0);
  const uint32_t inside = blocks_inside(tile);
  for (int block = 0; block < kBlocks; ++block) {
    if ((inside >> block & 1) == 0) continue;
    float* pixels = accumulators + block * frame.channels * kLanes;
    const Float transmittance = load(transmittances + block * kLanes);
    const Float alpha = Float(1.0f) - transmittance;
    if (frame.background.data != nullptr) {
      for (int c = 0; c < colors; ++c) {
        store(pixels + c * kLanes,
              multiply_add(transmittance, load_block(frame.background, tile, block, c),
                           load(pixels + c * kLanes)));
      }
    }
    if (frame.expected_depth) {
      float* depth = pixels + colors * kLanes;
      store(depth, load(depth) / maximum(alpha, Float(1e-10f)));
    }
    store(alphas + block * kLanes, alpha);
  }
  const auto write = [&](const ImageView& image, int channel, const float* pixels,
                         int block_stride) {
    float* out = image.data + channel * image.channel + tile.y * image.row + tile.x * image.column;
    write_pixels(tile, pixels, block_stride, out, image.row, image.column, frame.channels > 4);
  };
  for (int c = 0; c < frame.channels; ++c) {
    write(frame.colors, c, accumulators + c * kLanes, frame.channels * kLanes);
  }
  write(frame.alphas, 0, alphas, kLanes);
}

// The background alone.
inline void write_empty_tile(const Frame& frame, const Tile& tile) {
  const auto write = [&](const ImageView& image, int channel, const ImageView& behind) {
    const ptrdiff_t row = image.row, column = image.column;
    float* out = image.data + channel * image.channel + tile.y * row + tile.x * column;
    const bool past_caches =
        frame.channels > 4 &&
        (reinterpret_cast<uintptr_t>(out) | static_cast<uintptr_t>(row * 4)) % 64 == 0;
    alignas(64) float line[kTileSize] = {};
    for (int y = 0; y < tile.height; ++y) {
      if (behind.data != nullptr && (y == 0 || behind.row != 0)) {
        const float* from = behind.data + channel * behind.channel + (tile.y + y) * behind.row +
                            tile.x * behind.column;
        for (int x = 0; x < tile.width; ++x) line[x] = from[x * behind.column];
      }
      float* to = out + y * row;
      if (column != 1 || tile.width != kTileSize) {
        for (int x = 0; x < tile.width; ++x) to[x * column] = line[x];
      } else if (past_caches) {
        for (int x = 0; x < kTileSize; x += kLanes) stream(to + x, load(line + x));
      } else {
        std::memcpy(to, line, sizeof(line));
      }
    }
  };
  const int colors = frame.channels - (frame.with_depth ? 1 : 0);
  for (int c = 0; c < colors; ++c) write(frame.colors, c, frame.background);
  if (frame.with_depth) write(frame.colors, colors, {});
  write(frame.alphas, 0, {});
}

// kChannels 1..4: in registers, next to the splat. 0: any number, as a product of staged weights
// with feature rows.
template <int kChannels>
void blend_tile_of(const Frame& frame, int index, Scratch& scratch) {
  // Splats staged at a time: many, so that queues are long, but not more than the second-level
  // cache holds together with their features.
  constexpr int kBatch = kChannels > 0 ? 512 : 256;
  const Tile tile = locate(frame, index);
  if (tile.begin == tile.end) return write_empty_tile(frame, tile);
  const Limits limits = limits_of(frame.rules);
  const int channels = kChannels > 0 ? kChannels : frame.channels;
  float* accumulators = scratch.accumulators.reserve(static_cast<size_t>(channels) * kTilePixels);
  std::memset(accumulators, 0, sizeof(float) * channels * kTilePixels);
  alignas(64) float products[kTilePixels], transmittances[kTilePixels];
  for (int pixel = 0; pixel < kTilePixels; pixel += kLanes) {
    store(products + pixel, Float(1.0f));
    store(transmittances + pixel, Float(1.0f));
  }
  uint32_t open = blocks_inside(tile);

  Staged* staged = reinterpret_cast<Staged*>(scratch.staged.reserve(kBatch * kStagedFloats));
  uint32_t* masks = scratch.masks.reserve(queue_room(kBatch));
  uint32_t* queue = scratch.queue.reserve(queue_room(kBatch));
  float* weights = kChannels > 0 ? nullptr : scratch.weights.reserve((kBatch + 1) * kLanes);
  const float* rows[kBatch + 1];
  for (uint32_t begin = tile.begin; begin < tile.end && open != 0; begin += kBatch) {
    const uint32_t end = tile.end - begin < kBatch ? tile.end : begin + kBatch;
    const int count = stage<kChannels == 0>(frame, tile, begin, end, open, staged, masks);
    for (uint32_t rest = open; rest != 0; rest &= rest - 1) {
      const int block = __builtin_ctz(rest);
      const int size = select_splats(masks, count, block, queue);
      if (size == 0) continue;
      const Float x = load(kGeometry.pixel_x + block * kLanes);
      const Float y = load(kGeometry.pixel_y + block * kLanes);
      Light light = {load(products + block * kLanes), load(transmittances + block * kLanes)};
      float* sums = accumulators + block * channels * kLanes;
      bool finished = false;
      if constexpr (kChannels > 0) {
        Float registers[kChannels];
        for (int c = 0; c < kChannels; ++c) registers[c] = load(sums + c * kLanes);
        for_each_alpha(staged, queue, size, x, y, limits, [&](uint32_t at, Float alpha) {
          const Blend step = blend(alpha, limits, light);
          const float* values = staged[at].footprint.values;
          for (int c = 0; c < kChannels; ++c) {
            registers[c] = multiply_add(step.weight, Float(values[c]), registers[c]);
          }
          finished = !any(step.open);
          return !finished;
        });
        for (int c = 0; c < kChannels; ++c) store(sums + c * kLanes, registers[c]);
      } else {
        int kept = 0;
        for_each_alpha(staged, queue, size, x, y, limits, [&](uint32_t at, Float alpha) {
          const Blend step = blend(alpha, limits, light);
          store(weights + kept * kLanes, step.weight);
          rows[kept] = frame.features + static_cast<int64_t>(staged[at].id) * channels;
          kept += any(Float(0.0f) < step.weight);
          finished = !any(step.open);
          return !finished;
        });
        accumulate_all(weights, rows, kept, channels, sums);
      }
      store(products + block * kLanes, light.product);
      store(transmittances + block * kLanes, light.left);
      if (finished) open &= ~(1u << block);
    }
  }
  write_tile(frame, tile, accumulators, transmittances, products);
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
