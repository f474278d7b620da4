// What every kernel uses of the device.
#pragma once

#include "frame_arguments.h"

namespace talksplat::cuda {

constexpr uint32_t kWarp = 32;
constexpr uint32_t kWholeWarp = 0xffffffffu;

__device__ __forceinline__ int tiles_of(const FrameArguments& frame) {
  return frame.tiles_x * frame.tiles_y;
}

// Whether the inputs were not finite or the pairs found no room; known once all are counted.
__device__ __forceinline__ bool failed(const FrameArguments& frame) {
  return frame.status[kStatusBad] != 0 || frame.status[kStatusNeeded] > frame.status[kStatusRoom];
}

// The pairs [begin, end) of a tile, from its camera's first; none if the frame has failed.
struct TileList {
  uint32_t begin, end;
};

__device__ __forceinline__ TileList list_of_tile(const FrameArguments& frame, int view, int tile) {
  const uint32_t* starts =
      frame.tile_starts + static_cast<int64_t>(view) * (tiles_of(frame) + 1) + tile;
  // Both are read at once, not one after what the other decides.
  const uint32_t begin = starts[0], end = starts[1];
  return {begin, failed(frame) ? begin : end};
}

__device__ __forceinline__ float half_to_float(uint16_t bits) {
#if defined(__CUDA_ARCH__)
  float out;
  asm("cvt.f32.f16 %0, %1;" : "=f"(out) : "h"(bits));
  return out;
#else
  const uint32_t sign = static_cast<uint32_t>(bits & 0x8000) << 16;
  const uint32_t exponent = bits >> 10 & 0x1f, mantissa = bits & 0x3ff;
  if (exponent == 0) {  // zero and subnormal numbers: mantissa * 2^-24
    return __uint_as_float(sign | __float_as_uint(static_cast<float>(mantissa) * 0x1p-24f));
  }
  const uint32_t biased = exponent == 0x1f ? 0xff : exponent + (127 - 15);
  return __uint_as_float(sign | biased << 23 | mantissa << 13);
#endif
}

// 2^x to about two units in the last place: what the device has one instruction for.
__device__ __forceinline__ float power_of_two(float x) {
#if defined(__CUDA_ARCH__)
  float out;
  asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(out) : "f"(x));
  return out;
#else
  return exp2f(x);
#endif
}

__device__ __forceinline__ float color_at(const FrameArguments& frame, int64_t index) {
  return frame.half_colors ? half_to_float(static_cast<const uint16_t*>(frame.colors)[index])
                           : static_cast<const float*>(frame.colors)[index];
}

}  // namespace talksplat::cuda
