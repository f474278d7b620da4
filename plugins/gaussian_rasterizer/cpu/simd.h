// A vector of floats as wide as one instruction of the target, and nothing more than the kernels
// need. Written with compiler vectors, so that any target works; the x86 branches name instructions
// where the compiler does not find them by itself.
//
// Each translation unit defines TALKSPLAT_ISA (a namespace) and is compiled for one instruction
// set.
#pragma once

#include <cstdint>
#include <cstring>

#if defined(__AVX2__)
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
// To memory that will not be read soon; `p` is aligned to the vector.
TALKSPLAT_HOST_DEVICE void stream(float* p, Float x) {
#if defined(__AVX512F__)
  _mm512_stream_ps(p, (__m512)x.v);
#elif defined(__AVX2__)
  _mm256_stream_ps(p, (__m256)x.v);
#else
  store(p, x);
#endif
}

#if defined(__AVX512F__)

struct Mask {
  __mmask16 v;
};

TALKSPLAT_HOST_DEVICE Float from_native(__m512 x) { return Float((NativeFloat)x); }
TALKSPLAT_HOST_DEVICE Mask operator<(Float a, Float b) {
  return {_mm512_cmp_ps_mask((__m512)a.v, (__m512)b.v, _CMP_LT_OQ)};
}
TALKSPLAT_HOST_DEVICE Mask operator<=(Float a, Float b) {
  return {_mm512_cmp_ps_mask((__m512)a.v, (__m512)b.v, _CMP_LE_OQ)};
}
TALKSPLAT_HOST_DEVICE Mask operator==(Float a, Float b) {
  return {_mm512_cmp_ps_mask((__m512)a.v, (__m512)b.v, _CMP_EQ_OQ)};
}
TALKSPLAT_HOST_DEVICE Mask operator&(Mask a, Mask b) { return {static_cast<__mmask16>(a.v & b.v)}; }
TALKSPLAT_HOST_DEVICE uint32_t bits(Mask m) { return m.v; }
TALKSPLAT_HOST_DEVICE bool any(Mask m) { return m.v != 0; }
TALKSPLAT_HOST_DEVICE Float select(Mask m, Float a, Float b) {
  return from_native(_mm512_mask_blend_ps(m.v, (__m512)b.v, (__m512)a.v));
}
TALKSPLAT_HOST_DEVICE Float zero_unless(Mask m, Float a) {
  return from_native(_mm512_maskz_mov_ps(m.v, (__m512)a.v));
}
TALKSPLAT_HOST_DEVICE Float minimum(Float a, Float b) {
  return from_native(_mm512_min_ps((__m512)a.v, (__m512)b.v));
}
TALKSPLAT_HOST_DEVICE Float maximum(Float a, Float b) {
  return from_native(_mm512_max_ps((__m512)a.v, (__m512)b.v));
}
TALKSPLAT_HOST_DEVICE Float square_root(Float a) {
  return from_native(_mm512_sqrt_ps((__m512)a.v));
}
TALKSPLAT_HOST_DEVICE Float floor(Float a) {
  return from_native(_mm512_roundscale_ps((__m512)a.v, _MM_FROUND_TO_NEG_INF | _MM_FROUND_NO_EXC));
}
TALKSPLAT_HOST_DEVICE Float ceil(Float a) {
  return from_native(_mm512_roundscale_ps((__m512)a.v, _MM_FROUND_TO_POS_INF | _MM_FROUND_NO_EXC));
}
TALKSPLAT_HOST_DEVICE Float multiply_add(Float a, Float b, Float c) {
  return from_native(_mm512_fmadd_ps((__m512)a.v, (__m512)b.v, (__m512)c.v));
}
TALKSPLAT_HOST_DEVICE Float negative_multiply_add(Float a, Float b, Float c) {
  return from_native(_mm512_fnmadd_ps((__m512)a.v, (__m512)b.v, (__m512)c.v));
}

#else

struct Mask {
  NativeInt v;
};

TALKSPLAT_HOST_DEVICE Mask operator<(Float a, Float b) { return {(NativeInt)(a.v < b.v)}; }
TALKSPLAT_HOST_DEVICE Mask operator<=(Float a, Float b) { return {(NativeInt)(a.v <= b.v)}; }
TALKSPLAT_HOST_DEVICE Mask operator==(Float a, Float b) { return {(NativeInt)(a.v == b.v)}; }
TALKSPLAT_HOST_DEVICE Mask operator&(Mask a, Mask b) { return {a.v & b.v}; }
TALKSPLAT_HOST_DEVICE Float zero_unless(Mask m, Float a) {
  return Float((NativeFloat)((NativeInt)a.v & m.v));
}

#if defined(__AVX2__)

TALKSPLAT_HOST_DEVICE Float from_native(__m256 x) { return Float((NativeFloat)x); }
TALKSPLAT_HOST_DEVICE uint32_t bits(Mask m) { return _mm256_movemask_ps((__m256)m.v); }
TALKSPLAT_HOST_DEVICE bool any(Mask m) { return bits(m) != 0; }
TALKSPLAT_HOST_DEVICE Float select(Mask m, Float a, Float b) {
  return from_native(_mm256_blendv_ps((__m256)b.v, (__m256)a.v, (__m256)m.v));
}
TALKSPLAT_HOST_DEVICE Float minimum(Float a, Float b) {
  return from_native(_mm256_min_ps((__m256)a.v, (__m256)b.v));
}
TALKSPLAT_HOST_DEVICE Float maximum(Float a, Float b) {
  return from_native(_mm256_max_ps((__m256)a.v, (__m256)b.v));
}
TALKSPLAT_HOST_DEVICE Float square_root(Float a) {
  return from_native(_mm256_sqrt_ps((__m256)a.v));
}
TALKSPLAT_HOST_DEVICE Float floor(Float a) { return from_native(_mm256_floor_ps((__m256)a.v)); }
TALKSPLAT_HOST_DEVICE Float ceil(Float a) { return from_native(_mm256_ceil_ps((__m256)a.v)); }
TALKSPLAT_HOST_DEVICE Float multiply_add(Float a, Float b, Float c) {
  return from_native(_mm256_fmadd_ps((__m256)a.v, (__m256)b.v, (__m256)c.v));
}
TALKSPLAT_HOST_DEVICE Float negative_multiply_add(Float a, Float b, Float c) {
  return from_native(_mm256_fnmadd_ps((__m256)a.v, (__m256)b.v, (__m256)c.v));
}

#else

TALKSPLAT_HOST_DEVICE bool any(Mask m) {
  uint64_t halves[kLanes / 2];
  std::memcpy(halves, &m.v, sizeof(halves));
  uint64_t out = 0;
  for (uint64_t half : halves) out |= half;
  return out != 0;
}
TALKSPLAT_HOST_DEVICE uint32_t bits(Mask m) {
  const NativeInt weights = {1, 2, 4, 8, 16, 32, 64, 128};
  const NativeInt weighted = m.v & weights;
  uint32_t out = 0;
  for (int lane = 0; lane < kLanes; ++lane) out |= weighted[lane];
  return out;
}
TALKSPLAT_HOST_DEVICE Float select(Mask m, Float a, Float b) {
  return Float((NativeFloat)(((NativeInt)a.v & m.v) | ((NativeInt)b.v & ~m.v)));
}
TALKSPLAT_HOST_DEVICE Float minimum(Float a, Float b) { return select(a < b, a, b); }
TALKSPLAT_HOST_DEVICE Float maximum(Float a, Float b) { return select(b < a, a, b); }
TALKSPLAT_HOST_DEVICE Float square_root(Float a) {
  for (int lane = 0; lane < kLanes; ++lane) a.v[lane] = __builtin_sqrtf(a.v[lane]);
  return a;
}
TALKSPLAT_HOST_DEVICE Float floor(Float a) {
  for (int lane = 0; lane < kLanes; ++lane) a.v[lane] = __builtin_floorf(a.v[lane]);
  return a;
}
TALKSPLAT_HOST_DEVICE Float ceil(Float a) {
  for (int lane = 0; lane < kLanes; ++lane) a.v[lane] = __builtin_ceilf(a.v[lane]);
  return a;
}
TALKSPLAT_HOST_DEVICE Float multiply_add(Float a, Float b, Float c) { return a.v * b.v + c.v; }
TALKSPLAT_HOST_DEVICE Float negative_multiply_add(Float a, Float b, Float c) {
  return c.v - a.v * b.v;
}

#endif
#endif

TALKSPLAT_HOST_DEVICE Float absolute(Float a) {
  return Float((NativeFloat)((NativeInt)a.v & 0x7fffffff));
}
TALKSPLAT_HOST_DEVICE NativeInt to_int(Float a) { return __builtin_convertvector(a.v, NativeInt); }

// 2^x for -126 < x < 127, relative error below 1e-6; anything without trapping for other x.
TALKSPLAT_HOST_DEVICE Float exp2(Float x) {
#if defined(__AVX512F__)
  // x = i/16 + f: a table of 2^(i/16) in one register, and two terms in f. The table holds the bits
  // of 2^(k/16) less k << 19, which adding i << 19 to the exponent would bring in.
  const NativeFloat magic = 786432.0f - NativeFloat{};  // 1.5 * 2^23 / 16
  alignas(64) static constexpr int32_t kTable[16] = {
      1065353216, 1065200323, 1065063874, 1064944595, 1064843248, 1064760626,
      1064697559, 1064654911, 1064633587, 1064634532, 1064658730, 1064707212,
      1064781053, 1064881375, 1065009351, 1065166205};
  const NativeFloat shifted = x.v + magic;
  const Float f = x.v - (shifted - magic);
  const __m512i index = (__m512i)shifted;
  const __m512i power = _mm512_add_epi32(_mm512_permutexvar_epi32(index, _mm512_load_si512(kTable)),
                                         _mm512_slli_epi32(index, 19));
  const Float whole = from_native(_mm512_castsi512_ps(power));
  const Float slope = multiply_add(f, Float(0.24022822f), Float(0.69318778f));
  return multiply_add(whole * f, slope, whole);
#else
  const NativeFloat magic = 12582912.0f - NativeFloat{};  // 1.5 * 2^23: adding it rounds to integer
  const NativeFloat shifted = x.v + magic;
  const Float f = x.v - (shifted - magic);
  Float p = multiply_add(f, Float(1.3276460813e-3f), Float(9.6755418926e-3f));
  p = multiply_add(p, f, Float(5.5507134646e-2f));
  p = multiply_add(p, f, Float(2.4022120237e-1f));
  p = multiply_add(p, f, Float(6.9314694405e-1f));
  p = multiply_add(p, f, Float(1.0000001192f));
  return Float((NativeFloat)((NativeInt)p.v + ((NativeInt)shifted << 23)));
#endif
}

// log2 of a positive normal number; absolute error below 1e-7 near 1.
TALKSPLAT_HOST_DEVICE Float log2(Float x) {
  const NativeInt raw = (NativeInt)x.v;
  const NativeInt power =
      (raw - 0x3f3504f3) >> 23;  // the mantissa then lies in [sqrt(.5), sqrt(2))
  const Float mantissa = Float((NativeFloat)(raw - (power << 23)));
  const Float t = (mantissa - Float(1.0f)) / (mantissa + Float(1.0f));
  const Float tt = t * t;
  Float p = multiply_add(tt, Float(0.3205989f), Float(0.41219858f));
  p = multiply_add(p, tt, Float(0.57707802f));
  p = multiply_add(p, tt, Float(0.96179669f));
  p = multiply_add(p, tt, Float(2.8853901f));
  return multiply_add(p, t, Float(__builtin_convertvector(power, NativeFloat)));
}

// rows[i][j] <-> rows[j][i]. Interleaving the halves log2(kLanes) times is a transposition.
TALKSPLAT_HOST_DEVICE void transpose(Float* rows) {
  Float from[kLanes];
  for (int stage = 1; stage < kLanes; stage *= 2) {
    for (int i = 0; i < kLanes; ++i) from[i] = rows[i];
    for (int i = 0; i < kLanes / 2; ++i) {
      const NativeFloat a = from[i].v, b = from[i + kLanes / 2].v;
#if defined(__AVX512F__)
      rows[2 * i].v =
          __builtin_shufflevector(a, b, 0, 16, 1, 17, 2, 18, 3, 19, 4, 20, 5, 21, 6, 22, 7, 23);
      rows[2 * i + 1].v = __builtin_shufflevector(a, b, 8, 24, 9, 25, 10, 26, 11, 27, 12, 28, 13,
                                                  29, 14, 30, 15, 31);
#else
      rows[2 * i].v = __builtin_shufflevector(a, b, 0, 8, 1, 9, 2, 10, 3, 11);
      rows[2 * i + 1].v = __builtin_shufflevector(a, b, 4, 12, 5, 13, 6, 14, 7, 15);
#endif
    }
  }
}

// out[i][lane] = p[lane * kStride + i]: arrays of short rows, one register per column.
template <int kStride>
TALKSPLAT_HOST_DEVICE void load_columns(const float* p, Float* out) {
#if defined(__AVX512F__)
  // Which of kStride registers, and where in it, element lane * kStride + i lies.
  __m512 parts[kStride];
  for (int i = 0; i < kStride; ++i) parts[i] = _mm512_loadu_ps(p + 16 * i);
  const __m512i lanes =
      _mm512_mullo_epi32(_mm512_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15),
                         _mm512_set1_epi32(kStride));
  for (int i = 0; i < kStride; ++i) {
    const __m512i at = _mm512_add_epi32(lanes, _mm512_set1_epi32(i));
    __m512 column = _mm512_permutex2var_ps(parts[0], at, parts[kStride > 1 ? 1 : 0]);
    if constexpr (kStride > 2) {
      const __m512 upper = _mm512_permutex2var_ps(parts[2], at, parts[kStride > 3 ? 3 : 2]);
      column =
          _mm512_mask_mov_ps(column, _mm512_cmpge_epi32_mask(at, _mm512_set1_epi32(32)), upper);
    }
    out[i] = from_native(column);
  }
#else
  for (int i = 0; i < kStride; ++i) {
    for (int lane = 0; lane < kLanes; ++lane) out[i].v[lane] = p[lane * kStride + i];
  }
#endif
}

}  // namespace talksplat::TALKSPLAT_ISA
