// The kernels, written once for every instruction set; included by kernels_<isa>.cpp only.
#pragma once

#include "blending_backward.h"
#include "blending_forward.h"
#include "projecting.h"

namespace talksplat::TALKSPLAT_ISA {
namespace {

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
