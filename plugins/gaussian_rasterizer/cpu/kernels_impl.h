// The kernels, written once for every instruction set; included by kernels_<isa>.cpp only.
#pragma once

#include "blending_backward.h"
#include "blending_forward.h"
#include "projecting.h"

namespace talksplat::TALKSPLAT_ISA {
namespace {

using Byte16 = uint8_t __attribute__((vector_size(16)));

// Sixteen floats to bytes; what is not a number becomes 0.
TALKSPLAT_HOST_DEVICE Byte16 to_bytes(const float* p) {
  uint8_t bytes[16];
  for (int at = 0; at < 16; at += kLanes) {
    using Narrow = uint8_t __attribute__((vector_size(kLanes)));
    // The order of the arguments matters: of a NaN and a number, x86 takes the second.
    const Float clamped = minimum(maximum(load(p + at), Float(0.0f)), Float(1.0f));
    const Narrow narrow = __builtin_convertvector(to_int(clamped * Float(255.0f)), Narrow);
    std::memcpy(bytes + at, &narrow, sizeof(narrow));
  }
  Byte16 out;
  std::memcpy(&out, bytes, sizeof(out));
  return out;
}

void to_uint8(const float* image, ptrdiff_t column, ptrdiff_t channel, int width, uint8_t* out) {
  int x = 0;
  if (channel == 1 && column == 3) {
    for (; x + 16 <= width; x += 16) {
      for (int part = 0; part < 48; part += 16) {
        const Byte16 bytes = to_bytes(image + 3 * x + part);
        std::memcpy(out + 3 * x + part, &bytes, sizeof(bytes));
      }
    }
  } else if (column == 1) {
    for (; x + 16 <= width; x += 16) {
      const Byte16 r = to_bytes(image + x), g = to_bytes(image + channel + x);
      const Byte16 b = to_bytes(image + 2 * channel + x);
      // r and g first, then b (16...31) between them.
      const Byte16 rg0 =
          __builtin_shufflevector(r, g, 0, 16, 0, 1, 17, 0, 2, 18, 0, 3, 19, 0, 4, 20, 0, 5);
      const Byte16 rg1 =
          __builtin_shufflevector(r, g, 21, 0, 6, 22, 0, 7, 23, 0, 8, 24, 0, 9, 25, 0, 10, 26);
      const Byte16 rg2 =
          __builtin_shufflevector(r, g, 0, 11, 27, 0, 12, 28, 0, 13, 29, 0, 14, 30, 0, 15, 31, 0);
      const Byte16 parts[3] = {
          __builtin_shufflevector(rg0, b, 0, 1, 16, 3, 4, 17, 6, 7, 18, 9, 10, 19, 12, 13, 20, 15),
          __builtin_shufflevector(rg1, b, 0, 21, 2, 3, 22, 5, 6, 23, 8, 9, 24, 11, 12, 25, 14, 15),
          __builtin_shufflevector(rg2, b, 26, 1, 2, 27, 4, 5, 28, 7, 8, 29, 10, 11, 30, 13, 14,
                                  31)};
      std::memcpy(out + 3 * x, parts, sizeof(parts));
    }
  }
  for (; x < width; ++x) {
    for (int c = 0; c < 3; ++c) {
      const float value = image[x * column + c * channel];
      const float positive = value > 0.0f ? value : 0.0f;  // also of what is not a number
      out[3 * x + c] = static_cast<uint8_t>((positive < 1.0f ? positive : 1.0f) * 255.0f);
    }
  }
}

}  // namespace
}  // namespace talksplat::TALKSPLAT_ISA
