// What one Gaussian does to one pixel: front-to-back alpha blending, Kerbl et al. 2023, eq. 2-3.
//
// The 2D Gaussian is held by the Cholesky factor of its inverse covariance, in powers of two:
// alpha = 2^(log2 opacity - u0^2 - u1^2) with u0 = l0 dx + l1 dy, u1 = l2 dy. The exponent then needs
// no sign test and no multiplication by the opacity, and the least alpha is tested before the power.
#pragma once

#include "host_device.h"
#include "projection.h"
#include "rules.h"

namespace talksplat {

template <class T>
struct Cholesky {
  T l0, l1, l2;
};

// From the 2D covariance [[xx, xy], [xy, yy]] and its determinant.
template <class T>
TALKSPLAT_HOST_DEVICE Cholesky<T> cholesky(const Projection<T>& p) {
  const T half_log2e = T(0.5f * kLog2E);
  const T l0 = square_root(half_log2e * p.yy / p.determinant);
  return {l0, T(0.0f) - l0 * p.xy / p.yy, square_root(half_log2e / p.yy)};
}

// log2 of alpha before the clamp.
template <class T>
TALKSPLAT_HOST_DEVICE T exponent(T dx, T dy, T l0, T l1, T l2, T log2_opacity) {
  const T u0 = multiply_add(l0, dx, l1 * dy);
  const T u1 = l2 * dy;
  return negative_multiply_add(u1, u1, negative_multiply_add(u0, u0, log2_opacity));
}

}  // namespace talksplat
