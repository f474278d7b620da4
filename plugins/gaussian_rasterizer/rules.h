// The rules in which the published rasterizers differ, as numbers.
//
// gsplat 1.5.3 and 1.6: github.com/nerfstudio-project/gsplat; inria: diff-gaussian-rasterization of
// "3D Gaussian Splatting for Real-Time Radiance Field Rendering" (Kerbl et al. 2023).
#pragma once

#include "host_device.h"

namespace talksplat {

enum class Dialect { kGsplat, kGsplat15, kInria };

// What is blended: colours, the camera-space z after them, which E divides by alpha in the end.
enum class RenderMode { kRGB, kD, kED, kRGBD, kRGBED };

TALKSPLAT_HOST_DEVICE constexpr bool has_colors(RenderMode mode) {
  return mode != RenderMode::kD && mode != RenderMode::kED;
}
TALKSPLAT_HOST_DEVICE constexpr bool has_depth(RenderMode mode) { return mode != RenderMode::kRGB; }
TALKSPLAT_HOST_DEVICE constexpr bool has_expected_depth(RenderMode mode) {
  return mode == RenderMode::kED || mode == RenderMode::kRGBED;
}

// `colors` and the depth after them, as far as they are blended.
TALKSPLAT_HOST_DEVICE constexpr int blended_channels(RenderMode mode, int colors) {
  return (has_colors(mode) ? colors : 0) + (has_depth(mode) ? 1 : 0);
}

// Bits of the inputs that held a NaN or an infinity.
enum BadInput : uint32_t {
  kBadMeans = 1,
  kBadQuats = 2,
  kBadScales = 4,
  kBadOpacities = 8,
  kBadColors = 16,
  kBadViewmats = 32,  // or singular, where spherical harmonics ask where the camera is
  kBadKs = 64         // or without positive focal lengths
};

inline constexpr int kTileSize = 16;
inline constexpr float kMinAlpha = 1.0f / 255.0f;
inline constexpr float kLog2MinAlpha = -7.99435344f;  // log2(1/255)
inline constexpr float kMinTransmittance = 1e-4f;
inline constexpr float kLog2E = 1.44269504f;

struct Rules {
  Dialect dialect = Dialect::kGsplat;
  bool antialiased = false;
  float near_plane = 0.01f;
  float far_plane = 1e10f;
  float radius_clip = 0.0f;
  float low_pass = 0.3f;  // eps2d: added to both diagonal entries of the 2D covariance

  // Opacity is clamped here before blending: 0.999 up to gsplat 1.5.3, 0.99 elsewhere.
  TALKSPLAT_HOST_DEVICE constexpr float max_alpha() const {
    return dialect == Dialect::kGsplat15 ? 0.999f : 0.99f;
  }
  // A pixel is finished by the Gaussian that would take its transmittance to 1e-4: gsplat counts
  // equality as finished, inria does not.
  TALKSPLAT_HOST_DEVICE constexpr bool stop_at_equality() const {
    return dialect != Dialect::kInria;
  }
  // Least det(cov) / det(cov + low pass) of the antialiased mode.
  TALKSPLAT_HOST_DEVICE constexpr float compensation_floor() const {
    return dialect == Dialect::kGsplat15 ? 0.0f : 0.000025f;
  }
  TALKSPLAT_HOST_DEVICE constexpr bool normalizes_quats() const {
    return dialect != Dialect::kInria;
  }
  // inria drops everything at or before 0.2 whatever the caller asks for.
  TALKSPLAT_HOST_DEVICE constexpr bool drops_at_near_plane() const {
    return dialect == Dialect::kInria;
  }
  TALKSPLAT_HOST_DEVICE constexpr float nearest() const {
    return dialect == Dialect::kInria && near_plane < 0.2f ? 0.2f : near_plane;
  }
};

}  // namespace talksplat
