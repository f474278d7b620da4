// Splats to pixels. A block has a tile of 16x16 pixels, a warp 8x4 of them, a lane one.
//
// Splats are staged in shared memory a batch at a time. Whoever stages a splat also says which
// warps' pixels its ellipse may reach; a warp then visits only those, in order.
#pragma once

#include "../blending.h"
#include "device.cuh"

namespace talksplat::cuda {
namespace {

constexpr int kBlockWidth = 8, kBlockHeight = 4;  // pixels of a warp
constexpr int kBlockColumns = kTileSize / kBlockWidth;
constexpr int kWarps = kBlendThreads / static_cast<int>(kWarp);

// Values of a pixel from the tile's centre.
__device__ __forceinline__ float from_centre(int pixel) {
  return static_cast<float>(pixel) + 0.5f - 0.5f * kTileSize;
}

// What is staged of a splat besides what is blended: u0 = c0 + l0 x + l1 y, u1 = c1 + l2 y from the
// tile's centre.
struct alignas(16) Ellipse {
  float l0, l1, l2, log2_opacity;
};
struct alignas(8) Offset {
  float c0, c1;
};
struct alignas(16) Four {
  float x, y, z, w;
};

// Channels blended by one block, and how they are staged: in fours, kFours of them a splat.
template <int kChannels>
struct Batch {
  // What lies in splats is staged by whole blocks; long rows, by fewer for the sake of room.
  static constexpr bool kInSplats = kChannels <= 4;
  static constexpr int kSplats = kInSplats ? 256 : 128;
  static constexpr int kGroups = kSplats / static_cast<int>(kWarp);
  static constexpr int kFours = (kChannels + 3) / 4;
  // Blocks that share a multiprocessor and its 65,536 registers: what leaves none to be spilled.
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 1000
  static constexpr int kBlocksAtOnce = kChannels <= 16 ? 4 : 2;
#else
  static constexpr int kBlocksAtOnce = kChannels <= 16 ? 4 : 3;
#endif

  Ellipse ellipses[kSplats];
  Offset offsets[kSplats];
  Four values[kSplats * kFours];
  uint32_t ids[kInSplats ? 1 : kSplats];
  float depths[kInSplats ? 1 : kSplats];
  uint32_t reached[kGroups][kWarps];  // of 32 splats, which may reach a warp's pixels
};

// Four channels of a row from `channel` on, zero beyond the last; depth is the channel after the
// colours.
__device__ __forceinline__ Four load_four(const FrameArguments& frame, uint32_t id, float depth,
                                          int channel) {
  const int colors = frame.color_channels;
  const int64_t at = static_cast<int64_t>(id) * colors + channel;
  if (frame.wide_rows && channel + 4 <= colors) {
    if (!frame.half_colors)
      return *reinterpret_cast<const Four*>(static_cast<const float*>(frame.colors) + at);
    const uint64_t bits =
        *reinterpret_cast<const uint64_t*>(static_cast<const uint16_t*>(frame.colors) + at);
    return {half_to_float(static_cast<uint16_t>(bits)),
            half_to_float(static_cast<uint16_t>(bits >> 16)),
            half_to_float(static_cast<uint16_t>(bits >> 32)),
            half_to_float(static_cast<uint16_t>(bits >> 48))};
  }
  const auto value = [&](int i) {
    if (channel + i < colors) return color_at(frame, at + i);
    return channel + i == colors && has_depth(frame.render_mode) ? depth : 0.0f;
  };
  return {value(0), value(1), value(2), value(3)};
}

// Stages `count` splats of the list; all threads of the block come here.
template <int kChannels>
__device__ __forceinline__ void stage(const FrameArguments& frame, const Splat* splats,
                                      const uint64_t* pairs, int count, float centre_x,
                                      float centre_y, int first_channel, Batch<kChannels>& batch) {
  using Sizes = Batch<kChannels>;
  const int at = threadIdx.x, lane = at % static_cast<int>(kWarp);
  if (at < Sizes::kSplats) {
    uint32_t reached = 0;
    if (at < count) {
      // An entry that names no Gaussian reaches nothing: lists hold none unless they were counted
      // and written differently.
      const uint32_t listed = static_cast<uint32_t>(pairs[at]);
      const uint32_t id = listed < frame.gaussians ? listed : 0;
      const Splat& splat = splats[id];
      const float x = splat.x - centre_x, y = splat.y - centre_y;
      const float l0 = splat.l0, l1 = splat.l1;
      const float c0 = -(l0 * x + l1 * y);
      batch.ellipses[at] = {l0, l1, splat.l2, splat.log2_opacity};
      batch.offsets[at] = {c0, -(splat.l2 * y)};
      if constexpr (Sizes::kInSplats) {
        batch.values[at] = {splat.values[0], splat.values[1], splat.values[2], splat.values[3]};
      } else {
        batch.ids[at] = id;
        batch.depths[at] = splat.depth;
      }
      // A block is reached unless one of three pairs of parallel tangents of the ellipse alpha =
      // 1/255 lies between: along x, along y, and along the ellipse.
#pragma unroll
      for (int warp = 0; warp < kWarps; ++warp) {
        const float middle_x = (warp % kBlockColumns + 0.5f) * kBlockWidth - 0.5f * kTileSize;
        const float middle_y = (warp / kBlockColumns + 0.5f) * kBlockHeight - 0.5f * kTileSize;
        const float u0 = multiply_add(l0, middle_x, multiply_add(l1, middle_y, c0));
        // Without a branch.
        const bool meets = (absolute(u0) <= splat.reach_u) &
                           (absolute(middle_x - x) <= splat.reach_x) &
                           (absolute(middle_y - y) <= splat.reach_y);
        reached |= static_cast<uint32_t>(meets) << warp;
      }
      if (listed != id) reached = 0;
    }
#pragma unroll
    for (int warp = 0; warp < kWarps; ++warp) {
      const uint32_t of_group = __ballot_sync(kWholeWarp, reached >> warp & 1);
      if (lane == warp) batch.reached[at / kWarp][warp] = of_group;
    }
  }
  if constexpr (!Sizes::kInSplats) {
    __syncthreads();
    for (int i = threadIdx.x; i < count * Sizes::kFours; i += kBlendThreads) {
      const int place = i / Sizes::kFours, four = i % Sizes::kFours;
      batch.values[i] =
          load_four(frame, batch.ids[place], batch.depths[place], first_channel + 4 * four);
    }
  }
}

// Of the splat at `place` of the batch on the pixel (x, y) from the tile's centre; 0 below 1/255.
// Written without a branch.
template <int kChannels>
__device__ __forceinline__ float alpha_at(const FrameArguments& frame,
                                          const Batch<kChannels>& batch, int place, float x,
                                          float y) {
  const Ellipse ellipse = batch.ellipses[place];
  const Offset offset = batch.offsets[place];
  const float power = exponent(x, y, offset.c0, offset.c1, ellipse.l0, ellipse.l1, ellipse.l2,
                               ellipse.log2_opacity);
  const float alpha = fminf(power_of_two(power), frame.max_alpha);
  return kLog2MinAlpha <= power ? alpha : 0.0f;
}

// One pixel on its way from front to back. `product` goes on falling after the pixel is finished,
// which is how the next step knows; `left` is the transmittance after the last Gaussian that
// counted.
template <int kChannels>
struct Pixel {
  float product, left;
  float sums[kChannels];

  __device__ __forceinline__ bool open(const FrameArguments& frame) const {
    return frame.last_transmittance < product;
  }

  // With the splat at `place` of the batch. All lanes of the warp come here.
  __device__ __forceinline__ void blend(const FrameArguments& frame, const Batch<kChannels>& batch,
                                        int place, float alpha) {
    const float full_weight = alpha * product;
    product = negative_multiply_add(alpha, product, product);
    const bool counts = open(frame);
    left = counts ? product : left;
    const float weight = counts ? full_weight : 0.0f;
    if constexpr (!Batch<kChannels>::kInSplats) {
      if (!__any_sync(kWholeWarp, weight > 0.0f)) return;
    }
    constexpr int kFours = Batch<kChannels>::kFours;
#pragma unroll
    for (int i = 0; i < kFours; ++i) {
      const Four four = batch.values[place * kFours + i];
      const float values[4] = {four.x, four.y, four.z, four.w};
#pragma unroll
      for (int c = 4 * i; c < 4 * i + 4 && c < kChannels; ++c) {
        sums[c] = multiply_add(weight, values[c - 4 * i], sums[c]);
      }
    }
  }

  // With the splats of a group of 32 that are `reached`.
  __device__ __forceinline__ void blend_group(const FrameArguments& frame,
                                              const Batch<kChannels>& batch, int first,
                                              uint32_t reached, float x, float y) {
    while (reached != 0) {
      const int place = first + __ffs(reached) - 1;
      reached &= reached - 1;
      const float alpha = alpha_at(frame, batch, place, x, y);
      if constexpr (!Batch<kChannels>::kInSplats) {
        blend(frame, batch, place, alpha);
      } else {
        // Two at a time: from shared memory to alpha is a long chain of dependent instructions, and
        // two of them fill each other's gaps. Many channels fill them by themselves. Where there is
        // no second one, the first is blended once more, with an alpha of 0.
        const bool has_next = reached != 0;
        const int next = has_next ? first + __ffs(reached) - 1 : place;
        reached &= reached - 1;
        const float next_alpha = alpha_at(frame, batch, next, x, y);
        blend(frame, batch, place, alpha);
        blend(frame, batch, next, has_next ? next_alpha : 0.0f);
      }
    }
  }
};

// Channels [first_channel, first_channel + kChannels) of a tile, as far as there are that many;
// `batch` is the block's shared memory.
template <int kChannels>
__device__ __forceinline__ void blend_tile(const FrameArguments& frame, Batch<kChannels>& batch) {
  using Sizes = Batch<kChannels>;
  const int tile = blockIdx.x, view = blockIdx.y, first_channel = blockIdx.z * kChannelsAPass;
  const int lane = threadIdx.x % kWarp, warp = threadIdx.x / kWarp;
  const int tile_x = tile % frame.tiles_x * kTileSize, tile_y = tile / frame.tiles_x * kTileSize;
  const int column = warp % kBlockColumns * kBlockWidth + lane % kBlockWidth;
  const int row = warp / kBlockColumns * kBlockHeight + lane / kBlockWidth;
  const bool inside = tile_x + column < frame.width && tile_y + row < frame.height;
  const bool with_picture = !failed(frame);
  const TileList list = list_of_tile(frame, view, tile);

  Pixel<kChannels> pixel;
  pixel.product = inside ? 1.0f : 0.0f;  // none is left outside the image
  pixel.left = 1.0f;
#pragma unroll
  for (int c = 0; c < kChannels; ++c) pixel.sums[c] = 0.0f;
  const float x = from_centre(column), y = from_centre(row);
  const float centre_x = tile_x + 0.5f * kTileSize, centre_y = tile_y + 0.5f * kTileSize;
  const uint64_t* pairs = frame.pairs + static_cast<int64_t>(view) * frame.room;
  const Splat* splats = frame.splats + static_cast<int64_t>(view) * frame.gaussians;
  for (uint32_t begin = list.begin; begin < list.end; begin += Sizes::kSplats) {
    // Also waits until all warps are done with the batch before.
    if (!__syncthreads_or(pixel.open(frame))) break;
    const uint32_t rest = list.end - begin;
    const int count = rest < Sizes::kSplats ? static_cast<int>(rest) : Sizes::kSplats;
    stage(frame, splats, pairs + begin, count, centre_x, centre_y, first_channel, batch);
    __syncthreads();
#pragma unroll 1
    for (int group = 0; group < Sizes::kGroups; ++group) {
      if (!__any_sync(kWholeWarp, pixel.open(frame))) break;
      pixel.blend_group(frame, batch, group * static_cast<int>(kWarp), batch.reached[group][warp],
                        x, y);
    }
  }

  if (!inside) return;

  const float nothing = __uint_as_float(0x7fc00000);  // NaN: never a wrong picture
  const float transmittance = pixel.left, alpha = 1.0f - transmittance;
  const int64_t pixels = static_cast<int64_t>(frame.width) * frame.height;
  const int64_t at = static_cast<int64_t>(tile_y + row) * frame.width + tile_x + column;
  if (first_channel == 0) {
    frame.out_alphas[view * pixels + at] = with_picture ? alpha : nothing;
  }
  const int64_t plane = static_cast<int64_t>(view) * frame.channels + first_channel;
  float* out = frame.out_colors + plane * pixels + at;
  const int64_t step = frame.one_background ? 1 : pixels;
  int64_t behind = (static_cast<int64_t>(view) * frame.color_channels + first_channel) * step +
                   (frame.one_background ? 0 : at);
  float depth = 0.0f;
#pragma unroll
  for (int c = 0; c < kChannels; ++c) {
    if (first_channel + c == frame.color_channels) depth = pixel.sums[c];
  }
  if (has_expected_depth(frame.render_mode)) depth /= maximum(alpha, 1e-10f);
#pragma unroll
  for (int c = 0; c < kChannels; ++c) {
    const int channel = first_channel + c;
    if (channel >= frame.channels) break;
    float value = pixel.sums[c];
    if (channel == frame.color_channels) {
      value = depth;
    } else if (frame.backgrounds != nullptr) {
      value = multiply_add(transmittance, frame.backgrounds[behind], value);
    }
    *out = with_picture ? value : nothing;
    out += pixels;
    behind += step;
  }
}

}  // namespace
}  // namespace talksplat::cuda
