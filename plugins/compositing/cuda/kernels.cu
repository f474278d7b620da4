// A thread per pixel; everything a thread reads and writes is next to what its neighbours do.
#include "../compositing.h"

using namespace talksplat::compositing;

namespace {

__device__ __forceinline__ int32_t pixel_of_thread() {
  return static_cast<int32_t>(blockIdx.x * blockDim.x + threadIdx.x);
}

}  // namespace

extern "C" __global__ void unpack_picture(Unpacking frame) {
  const int32_t pixel = pixel_of_thread();
  if (pixel >= frame.pixels) return;
  for (int32_t c = 0; c < 3; ++c) {
    frame.image[c * frame.pixels + pixel] = unpacked(frame.picture[3 * pixel + c]);
  }
}

extern "C" __global__ void pack_picture(Packing frame) {
  const int32_t pixel = pixel_of_thread();
  if (pixel >= frame.pixels) return;
  for (int32_t c = 0; c < 3; ++c) {
    frame.picture[3 * pixel + c] = packed(frame.image[c * frame.pixels + pixel]);
  }
}

extern "C" __global__ void dilate_rows(Dilation frame) {
  const int32_t pixel = pixel_of_thread();
  if (pixel >= frame.width * frame.height) return;
  const int32_t column = pixel % frame.width, row = pixel - column;
  float largest = frame.source[pixel];
  for (int32_t x = column - frame.reach; x <= column + frame.reach; ++x) {
    const bool inside = x >= 0 && x < frame.width;
    largest = larger(largest, inside ? frame.source[row + x] : 0.0f);
  }
  frame.target[pixel] = largest;
}

extern "C" __global__ void dilate_columns(Dilation frame) {
  const int32_t pixel = pixel_of_thread();
  if (pixel >= frame.width * frame.height) return;
  const int32_t row = pixel / frame.width, column = pixel % frame.width;
  float largest = frame.source[pixel];
  for (int32_t y = row - frame.reach; y <= row + frame.reach; ++y) {
    const bool inside = y >= 0 && y < frame.height;
    largest = larger(largest, inside ? frame.source[y * frame.width + column] : 0.0f);
  }
  frame.target[pixel] = largest;
}

extern "C" __global__ void lay_over(Layering frame) {
  const int32_t pixel = pixel_of_thread();
  if (pixel >= frame.pixels) return;
  const float alpha = frame.alpha[pixel];
  for (int32_t c = 0; c < frame.channels; ++c) {
    const int32_t at = c * frame.pixels + pixel;
    frame.result[at] = over(frame.image[at], alpha, frame.behind[at]);
  }
}

extern "C" __global__ void cover(Covering frame) {
  const int32_t pixel = pixel_of_thread();
  if (pixel < frame.pixels) frame.coverage[pixel] = coverage(frame, pixel);
}
