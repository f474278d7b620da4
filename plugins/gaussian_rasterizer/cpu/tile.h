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

// Stages the instances [begin, end) that reach a block of `wanted`, in order; `masks`, with kLanes
// zeros after the last, say which
// blocks. A block is reached unless one of three pairs of parallel tangents of the ellipse alpha =
// 1/255 lies between: along x, along y, and along the ellipse. The exact test follows for each
// pixel.
template <bool kWithFeatures>
int stage(const Frame& frame, const Tile& tile, uint32_t begin, uint32_t end, uint32_t wanted,
          Staged* staged, uint32_t* masks) {
  const float centre_x = tile.x + 0.5f * kTileSize, centre_y = tile.y + 0.5f * kTileSize;
  const Splat* splats = frame.splats;
  const uint32_t* instances = frame.instances;
  int count = 0;
  for (uint32_t at = begin; at < end; ++at) {
    // Lists walk the splats, and the features, in no order the processor could guess.
    __builtin_prefetch(&splats[instances[at + kInstancesAhead]]);
    if constexpr (kWithFeatures) {
      const int64_t id = splats[instances[at + kInstancesAhead / 3]].id;
      const float* row = frame.features + id * frame.channels;
      for (int c = 0; c < frame.channels; c += 16) __builtin_prefetch(row + c, 0, 2);
    }
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
  for (int i = 0; i < kLanes; ++i) masks[count + i] = 0;
  return count;
}

// Places that may be read after the last of a queue.
constexpr int kQueuePadding = 2;

constexpr size_t queue_room(size_t count) { return count + 2 * kLanes; }

#if defined(__AVX2__) && !defined(__AVX512F__)
// Byte i of entry m is the place of the i-th set bit of m.
struct SetBits {
  uint64_t places[256];
};

constexpr SetBits make_set_bits() {
  SetBits out = {};
  for (int m = 0; m < 256; ++m) {
    int count = 0;
    for (int bit = 0; bit < 8; ++bit) {
      if (m >> bit & 1) out.places[m] |= static_cast<uint64_t>(bit) << (8 * count++);
    }
  }
  return out;
}

constexpr SetBits kSetBits = make_set_bits();
#endif

// Which of `count` staged splats reach a block, in order; returns how many. `masks` and `queue`
// have queue_room(count), and kQueuePadding places after the last are valid.
inline int select_splats(const uint32_t* masks, int count, int block, uint32_t* queue) {
  int out = 0;
#if defined(__AVX512F__)
  const __m512i bit = _mm512_set1_epi32(1 << block);
  __m512i places = _mm512_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15);
  for (int at = 0; at < count; at += 16) {
    const __mmask16 reached = _mm512_test_epi32_mask(_mm512_loadu_si512(masks + at), bit);
    _mm512_storeu_si512(queue + out, _mm512_maskz_compress_epi32(reached, places));
    out += __builtin_popcount(reached);
    places = _mm512_add_epi32(places, _mm512_set1_epi32(16));
  }
#elif defined(__AVX2__)
  const __m128i to_sign = _mm_cvtsi32_si128(31 - block);
  for (int at = 0; at < count; at += 8) {
    const __m256i eight = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(masks + at));
    const int reached = _mm256_movemask_ps(_mm256_castsi256_ps(_mm256_sll_epi32(eight, to_sign)));
    const __m256i places = _mm256_cvtepu8_epi32(
        _mm_loadl_epi64(reinterpret_cast<const __m128i*>(kSetBits.places + reached)));
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(queue + out),
                        _mm256_add_epi32(places, _mm256_set1_epi32(at)));
    out += __builtin_popcount(reached);
  }
#else
  for (int at = 0; at < count; ++at) {
    queue[out] = static_cast<uint32_t>(at);
    out += masks[at] >> block & 1;
  }
#endif
  for (int i = 0; i < kQueuePadding; ++i) queue[out + i] = 0;
  return out;
}

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

// The light of a block's pixels. `product` goes on falling after a pixel is finished, which is how
// the next step knows; `left` is the transmittance after the last Gaussian that counted. The
// product waits for one multiplication a step, and for no comparison.
struct Light {
  Float product, left;
};

// log2 of alpha, before the clamp, on the pixels (x, y).
TALKSPLAT_HOST_DEVICE Float power_of(const Staged& splat, Float x, Float y) {
  const Footprint& footprint = splat.footprint;
  return exponent(x, y, Float(splat.c0), Float(splat.c1), Float(footprint.l0), Float(footprint.l1),
                  Float(footprint.l2), Float(footprint.log2_opacity));
}

// 0 where it is below 1/255.
TALKSPLAT_HOST_DEVICE Float alpha_of(Float power, const Limits& limits) {
  return zero_unless(Float(kLog2MinAlpha) <= power, minimum(exp2(power), limits.max_alpha));
}

struct Blend {
  Float weight;  // alpha * transmittance before it, 0 where the pixel is finished
  Mask open;     // the pixel takes more light
};

TALKSPLAT_HOST_DEVICE Blend blend(Float alpha, const Limits& limits, Light& light) {
  const Float weight = alpha * light.product;
  light.product = negative_multiply_add(alpha, light.product, light.product);
  const Mask open = limits.last_transmittance < light.product;
  light.left = select(open, light.product, light.left);
  return {zero_unless(open, weight), open};
}

// Calls visit(place in `staged`, alpha) for a queue, until it returns false. A step is a long chain
// of dependent instructions: three splats are under way at once, each in another part of it, so
// that what is issued next is always about ready.
template <class Visit>
TALKSPLAT_HOST_DEVICE void for_each_alpha(const Staged* staged, const uint32_t* queue, int size,
                                          Float x, Float y, const Limits& limits,
                                          const Visit& visit) {
  static_assert(kQueuePadding >= 2);
  Float alpha = alpha_of(power_of(staged[queue[0]], x, y), limits);
  Float power = power_of(staged[queue[1]], x, y);
  for (int at = 0; at < size; ++at) {
    const Float next_power = power_of(staged[queue[at + 2]], x, y);
    const Float next_alpha = alpha_of(power, limits);
    if (!visit(queue[at], alpha)) return;
    alpha = next_alpha;
    power = next_power;
  }
}

}  // namespace
}  // namespace talksplat::TALKSPLAT_ISA
