// A tile of 16x16 pixels: its blocks, the splats that reach them, and one blending step.
#pragma once

#include "../blending.h"
#include "block.h"
#include "kernels.h"
#include "simd.h"

namespace talksplat::TALKSPLAT_ISA {
namespace {

struct Tile {
  int x, y;             // first pixel
  int width, height;    // within the image
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

constexpr int block_x(int block) { return block % kBlockColumns * kBlockWidth; }
constexpr int block_y(int block) { return block / kBlockColumns * kBlockHeight; }

// Positions inside a tile, from its centre: of the pixels of every block, and of the middles of the
// blocks themselves.
struct Geometry {
  alignas(64) float pixel_x[kTilePixels], pixel_y[kTilePixels];
  alignas(64) float middle_x[kBlocks], middle_y[kBlocks];
};

constexpr Geometry make_geometry() {
  Geometry out = {};
  for (int block = 0; block < kBlocks; ++block) {
    for (int lane = 0; lane < kLanes; ++lane) {
      const int pixel = block * kLanes + lane;
      out.pixel_x[pixel] = block_x(block) + lane % kBlockWidth + 0.5f - 0.5f * kTileSize;
      out.pixel_y[pixel] = block_y(block) + lane / kBlockWidth + 0.5f - 0.5f * kTileSize;
    }
    out.middle_x[block] = block_x(block) + 0.5f * kBlockWidth - 0.5f * kTileSize;
    out.middle_y[block] = block_y(block) + 0.5f * kBlockHeight - 0.5f * kTileSize;
  }
  return out;
}

constexpr Geometry kGeometry = make_geometry();

// A splat in a tile: u0 = c0 + l0 x + l1 y and u1 = c1 + l2 y from the tile's centre.
struct Staged {
  Footprint footprint;
  float c0, c1;
  uint32_t instance;  // from the tile's first
  uint32_t id;
};
constexpr int kStagedFloats = sizeof(Staged) / sizeof(float);

// Blocks with a pixel inside the image.
inline uint32_t blocks_inside(const Tile& tile) {
  uint32_t out = 0;
  for (int block = 0; block < kBlocks; ++block) {
    const bool inside = block_x(block) < tile.width && block_y(block) < tile.height;
    out |= static_cast<uint32_t>(inside) << block;
  }
  return out;
}

// Stages the instances [begin, end) that reach a block of `wanted`, in order; masks say which
// blocks. A block is reached unless one of three pairs of parallel tangents of the ellipse alpha =
// 1/255 lies between: along x, along y, and along the ellipse. The exact test follows for each
// pixel.
inline int stage(const Frame& frame, const Tile& tile, uint32_t begin, uint32_t end,
                 uint32_t wanted, Staged* staged, uint32_t* masks) {
  const float centre_x = tile.x + 0.5f * kTileSize, centre_y = tile.y + 0.5f * kTileSize;
  const Splat* splats = frame.splats;
  const uint32_t* instances = frame.instances;
  int count = 0;
  for (uint32_t at = begin; at < end; ++at) {
    // Lists walk the splats in no order the processor could guess.
    __builtin_prefetch(&splats[instances[at + kInstancesAhead]]);
    const Splat& splat = splats[instances[at]];
    const Footprint footprint = splat.footprint;
    const float x = splat.x - centre_x, y = splat.y - centre_y;
    const float c0 = -(splat.footprint.l0 * x + splat.footprint.l1 * y);
    const float c1 = -(splat.footprint.l2 * y);
    uint32_t mask = 0;
    for (int part = 0; part < kBlocks; part += kLanes) {
      const Float middle_x = load(kGeometry.middle_x + part);
      const Float middle_y = load(kGeometry.middle_y + part);
      const Float u0 = multiply_add(Float(splat.footprint.l0), middle_x,
                                    multiply_add(Float(splat.footprint.l1), middle_y, Float(c0)));
      const Mask reached = (absolute(u0) <= Float(splat.reach_u)) &
                           (absolute(middle_x - Float(x)) <= Float(splat.reach_x)) &
                           (absolute(middle_y - Float(y)) <= Float(splat.reach_y));
      mask |= bits(reached) << part;
    }
    mask &= wanted;
    Staged& out = staged[count];
    out.footprint = footprint;
    out.c0 = c0;
    out.c1 = c1;
    out.instance = at - tile.begin;
    out.id = splat.id;
    masks[count] = mask;
    count += mask != 0;
  }
  return count;
}

// For every block, which staged splats reach it, in order.
class Queues {
 public:
  // Keeps pointers: `masks` [count], `room` [room_for(count)].
  static size_t room_for(size_t count) {
#if defined(__AVX512F__)
    return count + kLanes;
#else
    return (count + 1) * kBlocks;
#endif
  }

#if defined(__AVX512F__)
  Queues(const uint32_t* masks, int count, uint32_t* room)
      : masks_(masks), count_(count), room_(room) {}

  // Valid until the next call.
  uint32_t* of(int block, int* size) {
    const __m512i bit = _mm512_set1_epi32(1 << block), step = _mm512_set1_epi32(16);
    __m512i index = _mm512_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15);
    int out = 0;
    for (int at = 0; at < count_; at += 16) {
      const __mmask16 inside =
          count_ - at < 16 ? static_cast<__mmask16>((1u << (count_ - at)) - 1u) : 0xffff;
      const __m512i masks = _mm512_maskz_loadu_epi32(inside, masks_ + at);
      const __mmask16 reached = _mm512_test_epi32_mask(masks, bit);
      _mm512_storeu_si512(room_ + out, _mm512_maskz_compress_epi32(reached, index));
      out += __builtin_popcount(reached);
      index = _mm512_add_epi32(index, step);
    }
    *size = out;
    return room_;
  }

 private:
  const uint32_t* masks_;
  int count_;
  uint32_t* room_;
#else
  Queues(const uint32_t* masks, int count, uint32_t* room) : count_(count), room_(room) {
    for (int at = 0; at < count; ++at) {
      for (uint32_t rest = masks[at]; rest != 0; rest &= rest - 1) {
        const int block = __builtin_ctz(rest);
        room_[static_cast<size_t>(block) * (count_ + 1) + sizes_[block]++] =
            static_cast<uint32_t>(at);
      }
    }
  }

  uint32_t* of(int block, int* size) {
    *size = sizes_[block];
    return room_ + static_cast<size_t>(block) * (count_ + 1);
  }

 private:
  int count_;
  uint32_t* room_;
  int sizes_[kBlocks] = {};
#endif
};

struct Limits {
  Float max_alpha, last_transmittance;
};

TALKSPLAT_HOST_DEVICE Limits limits_of(const Rules& rules) {
  Limits out;
  out.max_alpha = Float(rules.max_alpha());
  // Stopping below 1e-4 is stopping at or below the number before it.
  out.last_transmittance = Float(rules.stop_at_equality() ? kMinTransmittance : 9.9999990e-5f);
  return out;
}

struct Blend {
  Float alpha;   // 0 where it is below 1/255
  Float weight;  // alpha * transmittance before it, 0 where the pixel is finished
  Mask hit;      // alpha is at least 1/255
  Mask open;     // the pixel takes more light
};

// One Gaussian onto one block. A finished pixel is marked by the sign of its transmittance: no
// further transmittance is then above the last, and no mask has to be kept.
TALKSPLAT_HOST_DEVICE Blend blend(const Staged& splat, Float x, Float y, const Limits& limits,
                                  Float& transmittance) {
  const Float power = exponent(x, y, Float(splat.c0), Float(splat.c1), Float(splat.footprint.l0),
                               Float(splat.footprint.l1), Float(splat.footprint.l2),
                               Float(splat.footprint.log2_opacity));
  Blend out;
  out.hit = Float(kLog2MinAlpha) <= power;
  out.alpha = zero_unless(out.hit, minimum(exp2(power), limits.max_alpha));
  const Float next = negative_multiply_add(out.alpha, transmittance, transmittance);
  out.open = limits.last_transmittance < next;
  out.weight = zero_unless(out.open, out.alpha * transmittance);
  transmittance = select(out.open, next, with_sign(transmittance));
  return out;
}

}  // namespace
}  // namespace talksplat::TALKSPLAT_ISA
