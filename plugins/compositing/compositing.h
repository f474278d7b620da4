// What a frame program does to a pixel between graphs: the steps of talksplat.frame_program, bit
// for bit as NumPy does them. No product may be merged with a sum where this is compiled.
#pragma once

#include "../gaussian_rasterizer/host_device.h"

#if defined(__CUDACC_RTC__)
using uint8_t = unsigned char;
#endif

namespace talksplat::compositing {

inline constexpr int kMaxLayers = 4;

// The kernels' arguments; talksplat/cuda/compositing.py holds the same, member by member.

// Between a picture, uint8 [H,W,3], and an image, float [3,H,W].
struct Unpacking {
  const uint8_t* picture;
  float* image;
  int32_t pixels;
};
struct Packing {
  const float* image;
  uint8_t* picture;
  int32_t pixels;
};

// The largest of the 2 reach + 1 values around each; values beyond the image [H,W] count as 0.
struct Dilation {
  const float* source;
  float* target;
  int32_t width, height, reach;
};

// image, behind, result [D,H,W], alpha [H,W].
struct Layering {
  const float* image;
  const float* alpha;
  const float* behind;
  float* result;
  int32_t pixels, channels;
};

// Every alpha [H,W].
struct Covering {
  const float* alphas[kMaxLayers];
  float* coverage;
  int32_t pixels, layers;
};

TALKSPLAT_HOST_DEVICE float unpacked(uint8_t byte) { return static_cast<float>(byte) / 255.0f; }

// Truncated; what is not a number becomes 0.
TALKSPLAT_HOST_DEVICE uint8_t packed(float value) {
  const float positive = value > 0.0f ? value : 0.0f;
  return static_cast<uint8_t>((positive < 1.0f ? positive : 1.0f) * 255.0f);
}

TALKSPLAT_HOST_DEVICE float over(float image, float alpha, float behind) {
  return image + behind * (1.0f - alpha);
}

// As numpy.maximum: what is not a number stays so.
TALKSPLAT_HOST_DEVICE float larger(float a, float b) { return a >= b || a != a ? a : b; }

TALKSPLAT_HOST_DEVICE float coverage(const Covering& layers, int32_t pixel) {
  float seen_through = 1.0f;
  for (int32_t i = 0; i < layers.layers; ++i) seen_through *= 1.0f - layers.alphas[i][pixel];
  return 1.0f - seen_through;
}

}  // namespace talksplat::compositing
