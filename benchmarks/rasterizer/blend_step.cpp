// What one blending step costs at the least on this machine: one Gaussian into one register of
// pixels, everything in registers and the first-level cache, no lists, no tiles, no output.
//
// A pixel that has stopped is marked by the sign of its transmittance: the next step cannot then
// exceed the threshold, and no mask of living pixels has to be kept.
//
// A step is what every 3DGS rasterizer must do per Gaussian and block of pixels: the exponent, the
// test against 1/255, exp, the clamp, the transmittance with its exclusive stop, three channels.
// It is written once as well as we know how, for AVX-512 (16 pixels) and AVX2 (8 pixels); the
// benchmark multiplies the time it takes by the number of steps a scene needs.

#include <immintrin.h>

#include <chrono>
#include <cstdint>

namespace {

constexpr int kGaussians = 256;  // 9 KiB: stays in the first-level cache
constexpr float kLog2Of255 = 7.99435343686f;
constexpr float kAlphaMax = 0.99f;
constexpr float kTransmittanceMin = 1e-4f;

// exp2 on [-0.5, 0.5], a Taylor polynomial of degree 5: a relative error of 2.5e-6.
constexpr float kExp2[6] = {1.0f,           0.69314718056f, 0.24022650696f,
                            0.05550410866f, 0.00961812911f, 0.00133335581f};

// The exponent in base 2 is log2(opacity) - u0² - u1², where u = Lᵀ (pixel - mean) and L is a
// Cholesky factor of the inverse covariance; the mean's share of u is the Gaussian's `origin`.
struct Gaussian {
  float origin0, origin1, l0, l1, l2, log2_opacity, red, green, blue;
};

// Faint and wide, so that every step blends every pixel and none ever stops.
void fill(Gaussian* gaussians) {
  for (int i = 0; i < kGaussians; ++i) {
    const float f = static_cast<float>(i) / kGaussians;
    const float l0 = 0.10f + 0.02f * f, l1 = 0.01f, l2 = 0.12f - 0.02f * f;
    const float x = 8.0f * f, y = 8.0f * (1.0f - f);
    gaussians[i] = {-l0 * x - l1 * y, -l2 * y, l0, l1, l2, -5.5f + 0.5f * f, f, 1.0f - f, 0.5f};
  }
}

using Clock = std::chrono::steady_clock;

double nanoseconds_per_step(Clock::duration time, int64_t passes) {
  return std::chrono::duration<double, std::nano>(time).count() /
         static_cast<double>(passes * kGaussians);
}

}  // namespace

extern "C" {

__attribute__((target("avx512f,avx512vl,avx512bw,avx512dq"))) double blend_step_avx512(
    int64_t passes, float* sink) {
  alignas(64) Gaussian gaussians[kGaussians];
  fill(gaussians);
  _mm_setcsr(_mm_getcsr() | 0x8040);  // denormals are zeros
  alignas(64) float columns[16], rows[16];
  for (int i = 0; i < 16; ++i) {
    columns[i] = static_cast<float>(i % 4) + 0.5f;
    rows[i] = static_cast<float>(i / 4) + 0.5f;
  }
  const __m512 px = _mm512_load_ps(columns), py = _mm512_load_ps(rows);
  const __m512 stopped = _mm512_set1_ps(-0.0f);
  __m512 total = _mm512_setzero_ps();
  const auto start = Clock::now();
  for (int64_t pass = 0; pass < passes; ++pass) {
    __m512 transmittance = _mm512_set1_ps(1.0f);
    __m512 red = _mm512_setzero_ps(), green = red, blue = red;
    for (const Gaussian& g : gaussians) {
      const __m512 u0 =
          _mm512_fmadd_ps(_mm512_set1_ps(g.l0), px,
                          _mm512_fmadd_ps(_mm512_set1_ps(g.l1), py, _mm512_set1_ps(g.origin0)));
      const __m512 u1 = _mm512_fmadd_ps(_mm512_set1_ps(g.l2), py, _mm512_set1_ps(g.origin1));
      __m512 s = _mm512_fnmadd_ps(u0, u0, _mm512_set1_ps(g.log2_opacity));
      s = _mm512_fnmadd_ps(u1, u1, s);
      const __mmask16 seen = _mm512_cmp_ps_mask(s, _mm512_set1_ps(-kLog2Of255), _CMP_GE_OQ);
      const __m512 whole = _mm512_roundscale_ps(s, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
      const __m512 rest = _mm512_sub_ps(s, whole);
      __m512 power = _mm512_set1_ps(kExp2[5]);
      for (int i = 4; i >= 0; --i) power = _mm512_fmadd_ps(power, rest, _mm512_set1_ps(kExp2[i]));
      power = _mm512_scalef_ps(power, whole);
      const __m512 alpha = _mm512_min_ps(power, _mm512_set1_ps(kAlphaMax));
      const __m512 weight = _mm512_mul_ps(alpha, transmittance);
      const __m512 next = _mm512_fnmadd_ps(alpha, transmittance, transmittance);
      const __mmask16 drawn =
          _mm512_mask_cmp_ps_mask(seen, next, _mm512_set1_ps(kTransmittanceMin), _CMP_GT_OQ);
      red = _mm512_mask3_fmadd_ps(weight, _mm512_set1_ps(g.red), red, drawn);
      green = _mm512_mask3_fmadd_ps(weight, _mm512_set1_ps(g.green), green, drawn);
      blue = _mm512_mask3_fmadd_ps(weight, _mm512_set1_ps(g.blue), blue, drawn);
      transmittance = _mm512_mask_or_ps(transmittance, seen, transmittance, stopped);
      transmittance = _mm512_mask_mov_ps(transmittance, drawn, next);
    }
    total = _mm512_add_ps(total, _mm512_add_ps(red, _mm512_add_ps(green, blue)));
  }
  const auto time = Clock::now() - start;
  *sink += _mm512_reduce_add_ps(total);
  return nanoseconds_per_step(time, passes);
}

__attribute__((target("avx2,fma"))) double blend_step_avx2(int64_t passes, float* sink) {
  alignas(64) Gaussian gaussians[kGaussians];
  fill(gaussians);
  _mm_setcsr(_mm_getcsr() | 0x8040);
  alignas(32) float columns[8], rows[8];
  for (int i = 0; i < 8; ++i) {
    columns[i] = static_cast<float>(i % 4) + 0.5f;
    rows[i] = static_cast<float>(i / 4) + 0.5f;
  }
  const __m256 px = _mm256_load_ps(columns), py = _mm256_load_ps(rows);
  const __m256 stopped = _mm256_set1_ps(-0.0f);
  __m256 total = _mm256_setzero_ps();
  const auto start = Clock::now();
  for (int64_t pass = 0; pass < passes; ++pass) {
    __m256 transmittance = _mm256_set1_ps(1.0f);
    __m256 red = _mm256_setzero_ps(), green = red, blue = red;
    for (const Gaussian& g : gaussians) {
      const __m256 u0 =
          _mm256_fmadd_ps(_mm256_set1_ps(g.l0), px,
                          _mm256_fmadd_ps(_mm256_set1_ps(g.l1), py, _mm256_set1_ps(g.origin0)));
      const __m256 u1 = _mm256_fmadd_ps(_mm256_set1_ps(g.l2), py, _mm256_set1_ps(g.origin1));
      __m256 s = _mm256_fnmadd_ps(u0, u0, _mm256_set1_ps(g.log2_opacity));
      s = _mm256_fnmadd_ps(u1, u1, s);
      const __m256 seen = _mm256_cmp_ps(s, _mm256_set1_ps(-kLog2Of255), _CMP_GE_OQ);
      const __m256 whole = _mm256_round_ps(s, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
      const __m256 rest = _mm256_sub_ps(s, whole);
      __m256 power = _mm256_set1_ps(kExp2[5]);
      for (int i = 4; i >= 0; --i) power = _mm256_fmadd_ps(power, rest, _mm256_set1_ps(kExp2[i]));
      const __m256i exponent = _mm256_slli_epi32(_mm256_cvtps_epi32(whole), 23);
      power = _mm256_castsi256_ps(_mm256_add_epi32(_mm256_castps_si256(power), exponent));
      const __m256 alpha = _mm256_min_ps(power, _mm256_set1_ps(kAlphaMax));
      const __m256 weight = _mm256_mul_ps(alpha, transmittance);
      const __m256 next = _mm256_fnmadd_ps(alpha, transmittance, transmittance);
      const __m256 drawn =
          _mm256_and_ps(seen, _mm256_cmp_ps(next, _mm256_set1_ps(kTransmittanceMin), _CMP_GT_OQ));
      const __m256 kept = _mm256_and_ps(weight, drawn);
      red = _mm256_fmadd_ps(kept, _mm256_set1_ps(g.red), red);
      green = _mm256_fmadd_ps(kept, _mm256_set1_ps(g.green), green);
      blue = _mm256_fmadd_ps(kept, _mm256_set1_ps(g.blue), blue);
      transmittance = _mm256_or_ps(transmittance, _mm256_and_ps(seen, stopped));
      transmittance = _mm256_blendv_ps(transmittance, next, drawn);
    }
    total = _mm256_add_ps(total, _mm256_add_ps(red, _mm256_add_ps(green, blue)));
  }
  const auto time = Clock::now() - start;
  alignas(32) float lanes[8];
  _mm256_store_ps(lanes, total);
  for (const float lane : lanes) *sink += lane;
  return nanoseconds_per_step(time, passes);
}

// Multiply-adds per nanosecond of one core, of 8 lanes: twelve chains hide their latency.
__attribute__((target("avx2,fma"))) double multiply_adds_per_nanosecond(int64_t passes,
                                                                        float* sink) {
  constexpr int kChains = 12;
  __m256 sums[kChains];
  for (int i = 0; i < kChains; ++i) sums[i] = _mm256_set1_ps(static_cast<float>(i));
  const __m256 factor = _mm256_set1_ps(0.999f), term = _mm256_set1_ps(0.001f);
  const auto start = Clock::now();
  for (int64_t pass = 0; pass < passes; ++pass) {
    for (__m256& sum : sums) sum = _mm256_fmadd_ps(sum, factor, term);
  }
  const auto time = Clock::now() - start;
  alignas(32) float lanes[8];
  for (const __m256& sum : sums) {
    _mm256_store_ps(lanes, sum);
    for (const float lane : lanes) *sink += lane;
  }
  return static_cast<double>(passes * kChains * 8) /
         std::chrono::duration<double, std::nano>(time).count();
}

}  // extern "C"
