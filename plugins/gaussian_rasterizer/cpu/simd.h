// A vector of floats as wide as one instruction of the target, and nothing more than the kernels
// need. Written with compiler vectors, so that any target works; the x86 branches name instructions
// where the compiler does not find them by itself.
//
// Each translation unit defines TALKSPLAT_ISA (a namespace) and is compiled for one instruction set.
#pragma once

#include <cstdint>
#include <cstring>

#if defined(__AVX2__) || defined(__AVX512F__)
#include <immintrin.h>
#endif

#include "../host_device.h"

#ifndef TALKSPLAT_ISA
#error "define TALKSPLAT_ISA, the namespace of this instruction set"
#endif

namespace talksplat::TALKSPLAT_ISA {

#if defined(__AVX512F__)
inline constexpr int kLanes = 16;
#else
inline constexpr int kLanes = 8;
#endif

using NativeFloat = float __attribute__((vector_size(4 * kLanes)));
using NativeInt = int32_t __attribute__((vector_size(4 * kLanes)));

struct Float {
  NativeFloat v;
  TALKSPLAT_HOST_DEVICE Float() = default;
  TALKSPLAT_HOST_DEVICE Float(float x) : v(x - NativeFloat{}) {}
  TALKSPLAT_HOST_DEVICE Float(NativeFloat x) : v(x) {}
};

#if defined(__AVX512F__)
struct Mask {
  __mmask16 v;
};
#else
struct Mask {
  NativeInt v;
};
#endif

TALKSPLAT_HOST_DEVICE Float operator+(Float a, Float b) { return a.v + b.v; }
TALKSPLAT_HOST_DEVICE Float operator-(Float a, Float b) { return a.v - b.v; }
TALKSPLAT_HOST_DEVICE Float operator*(Float a, Float b) { return a.v * b.v; }
TALKSPLAT_HOST_DEVICE Float operator/(Float a, Float b) { return a.v / b.v; }

TALKSPLAT_HOST_DEVICE Float load(const float* p) {
  Float out;
  std::memcpy(&out.v, p, sizeof(out.v));
  return out;
}
TALKSPLAT_HOST_DEVICE void store(float* p, Float x) { std::memcpy(p, &x.v, sizeof(x.v)); }

#if defined(__AVX512F__)
TALKSPLAT_HOST_DEVICE Mask operator<(Float a, Float b) {
  return {_mm512_cmp_ps_mask((__m512)a.v, (__m512)b.v, _CMP_LT_OQ)};
}
TALKSPLAT_HOST_DEVICE Mask operator<=(Float a, Float b) {
  return {_mm512_cmp_ps_mask((__m512)a.v, (__m512)b.v, _CMP_LE_OQ)};
}
TALKSPLAT_HOST_DEVICE Mask operator==(Float a, Float b) {
  return {_mm512_cmp_ps_mask((__m512)a.v, (__m512)b.v, _CMP_EQ_OQ)};
}
TALKSPLAT_HOST_DEVICE Mask operator&(Mask a, Mask b) { return {_kand_mask16(a.v, b.v)}; }
TALKSPLAT_HOST_DEVICE Mask operator|(Mask a, Mask b) { return {_kor_mask16(a.v, b.v)}; }
TALKSPLAT_HOST_DEVICE Mask and_not(Mask a, Mask b) { return {_kandn_mask16(b.v, a.v)}; }
TALKSPLAT_HOST_DEVICE uint32_t bits(Mask m) { return m.v; }
TALKSPLAT_HOST_DEVICE Mask all_lanes() { return {0xffff}; }
TALKSPLAT_HOST_DEVICE Float select(Mask m, Float a, Float b) {
  return Float((NativeFloat)_mm512_mask_blend_ps(m.v, (__m512)b.v, (__m512)a.v));
}
TALKSPLAT_HOST_DEVICE Float minimum(Float a, Float b) {
  return Float((NativeFloat)_mm512_min_ps((__m512)a.v, (__m512)b.v));
}
TALKSPLAT_HOST_DEVICE Float maximum(Float a, Float b) {
  return Float((NativeFloat)_mm512_max_ps((__m512)a.v, (__m512)b.v));
}
TALKSPLAT_HOST_DEVICE Float square_root(Float a) {
  return Float((NativeFloat)_mm512_sqrt_ps((__m512)a.v));
}
TALKSPLAT_HOST_DEVICE Float multiply_add(Float a, Float b, Float c) {
  return Float((NativeFloat)_mm512_fmadd_ps((__m512)a.v, (__m512)b.v, (__m512)c.v));
}
TALKSPLAT_HOST_DEVICE Float negative_multiply_add(Float a, Float b, Float c) {
  return Float((NativeFloat)_mm512_fnmadd_ps((__m512)a.v, (__m512)b.v, (__m512)c.v));
}
#else
TALKSPLAT_HOST_DEVICE Mask operator<(Float a, Float b) { return {(NativeInt)(a.v < b.v)}; }
TALKSPLAT_HOST_DEVICE Mask operator<=(Float a, Float b) { return {(NativeInt)(a.v <= b.v)}; }
TALKSPLAT_HOST_DEVICE Mask operator==(Float a, Float b) { return {(NativeInt)(a.v == b.v)}; }
TALKSPLAT_HOST_DEVICE Mask operator&(Mask a, Mask b) { return {a.v & b.v}; }
TALKSPLAT_HOST_DEVICE Mask operator|(Mask a, Mask b) { return {a.v | b.v}; }
TALKSPLAT_HOST_DEVICE Mask and_not(Mask a, Mask b) { return {a.v & ~b.v}; }
TALKSPLAT_HOST_DEVICE Mask all_lanes() { return {NativeInt{} - 1}; }
TALKSPLAT_HOST_DEVICE Float select(Mask m, Float a, Float b) {
  return Float((NativeFloat)(((NativeInt)a.v & m.v) | ((NativeInt)b.v & ~m.v)));
}
#if defined(__AVX2__)
TALKSPLAT_HOST_DEVICE uint32_t bits(Mask m) { return _mm256_movemask_ps((__m256)m.v); }
TALKSPLAT_HOST_DEVICE Float minimum(Float a, Float b) {
  return Float((NativeFloat)_mm256_min_ps((__m256)a.v, (__m256)b.v));
}
TALKSPLAT_HOST_DEVICE Float maximum(Float a, Float b) {
  return Float((NativeFloat)_mm256_max_ps((__m256)a.v, (__m256)b.v));
}
TALKSPLAT_HOST_DEVICE Float square_root(Float a) {
  return Float((NativeFloat)_mm256_sqrt_ps((__m256)a.v));
}
TALKSPLAT_HOST_DEVICE Float multiply_add(Float a, Float b, Float c) {
  return Float((NativeFloat)_mm256_fmadd_ps((__m256)a.v, (__m256)b.v, (__m256)c.v));
}
TALKSPLAT_HOST_DEVICE Float negative_multiply_add(Float a, Float b, Float c) {
  return Float((NativeFloat)_mm256_fnmadd_ps((__m256)a.v, (__m256)b.v, (__m256)c.v));
}
#else
TALKSPLAT_HOST_DEVICE uint32_t bits(Mask m) {
  uint32_t out = 0;
  for (int lane = 0; lane < kLanes; ++lane) out |= (m.v[lane] & 1) << lane;
  return out;
}
TALKSPLAT_HOST_DEVICE Float minimum(Float a, Float b) { return select(a < b, a, b); }
TALKSPLAT_HOST_DEVICE Float maximum(Float a, Float b) { return select(b < a, a, b); }
TALKSPLAT_HOST_DEVICE Float square_root(Float a) {
  for (int lane = 0; lane < kLanes; ++lane) a.v[lane] = __builtin_sqrtf(a.v[lane]);
  return a;
}
TALKSPLAT_HOST_DEVICE Float multiply_add(Float a, Float b, Float c) { return a.v * b.v + c.v; }
TALKSPLAT_HOST_DEVICE Float negative_multiply_add(Float a, Float b, Float c) {
  return c.v - a.v * b.v;
}
#endif
#endif

TALKSPLAT_HOST_DEVICE bool any(Mask m) { return bits(m) != 0; }

TALKSPLAT_HOST_DEVICE float sum(Float a) {
#if defined(__AVX512F__)
  return _mm512_reduce_add_ps((__m512)a.v);
#else
  float out = 0.0f;
  for (int lane = 0; lane < kLanes; ++lane) out += a.v[lane];
  return out;
#endif
}

TALKSPLAT_HOST_DEVICE float largest(Float a) {
  float out = a.v[0];
  for (int lane = 1; lane < kLanes; ++lane) out = a.v[lane] > out ? a.v[lane] : out;
  return out;
}

// 2^x for -126 < x < 127; relative error below 2e-7.
TALKSPLAT_HOST_DEVICE Float exp2(Float x) {
  const NativeFloat magic = 12582912.0f - NativeFloat{};  // 1.5 * 2^23: adding it rounds to integer
  const NativeFloat shifted = x.v + magic;
  const Float f = x.v - (shifted - magic);
  Float p = multiply_add(f, Float(1.3276460813e-3f), Float(9.6755418926e-3f));
  p = multiply_add(p, f, Float(5.5507134646e-2f));
  p = multiply_add(p, f, Float(2.4022120237e-1f));
  p = multiply_add(p, f, Float(6.9314694405e-1f));
  p = multiply_add(p, f, Float(1.0000001192f));
  return Float((NativeFloat)((NativeInt)p.v + ((NativeInt)shifted << 23)));
}

// log2 of a positive normal number; absolute error below 1e-7 near 1.
TALKSPLAT_HOST_DEVICE Float log2(Float x) {
  const NativeInt raw = (NativeInt)x.v;
  const NativeInt power = (raw - 0x3f3504f3) >> 23;  // so that the mantissa lies in [sqrt(.5), sqrt(2))
  const Float mantissa = Float((NativeFloat)(raw - (power << 23)));
  const Float t = (mantissa - Float(1.0f)) / (mantissa + Float(1.0f));
  const Float tt = t * t;
  Float p = multiply_add(tt, Float(0.3205989f), Float(0.41219858f));
  p = multiply_add(p, tt, Float(0.57707802f));
  p = multiply_add(p, tt, Float(0.96179669f));
  p = multiply_add(p, tt, Float(2.8853901f));
  return multiply_add(p, t, Float(__builtin_convertvector(power, NativeFloat)));
}

}  // namespace talksplat::TALKSPLAT_ISA
