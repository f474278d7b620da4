// What one Gaussian does to one pixel: front-to-back alpha blending, Kerbl et al. 2023, eq. 2-3.
//
// The 2D Gaussian is held by the Cholesky factor of its inverse covariance, in powers of two:
// alpha = 2^(log2 opacity - u0^2 - u1^2) with u0 = l0 dx + l1 dy, u1 = l2 dy. The exponent then
// needs no sign test and no multiplication by the opacity, and the least alpha is tested before the
// power.
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

// log2 of alpha before the clamp, where u0 = c0 + l0 x + l1 y and u1 = c1 + l2 y.
template <class T>
TALKSPLAT_HOST_DEVICE T exponent(T x, T y, T c0, T c1, T l0, T l1, T l2, T log2_opacity) {
  const T u0 = multiply_add(l0, x, multiply_add(l1, y, c0));
  const T u1 = multiply_add(l2, y, c1);
  return negative_multiply_add(u1, u1, negative_multiply_add(u0, u0, log2_opacity));
}

// Sums over pixels of g, g u0, g u1, g u0^2, g u0 u1, g u1^2 where g = dL/d ln(alpha).
template <class T>
struct Moments {
  T one, u0, u1, u00, u01, u11;
};

inline constexpr float kLn2 = 0.693147181f;

// Gradients of the mean on the image and of the rows of A, whose A A^T + low pass the factor
// belongs to. With u = L d and cov^-1 = 2 ln2 L^T L: dL/dcov = 2 ln2^2 L^T (sum g u u^T) L. It is
// multiplied with A from the right, L A first, because both are large along a thin splat and L A is
// not.
template <class T>
TALKSPLAT_HOST_DEVICE void cholesky_backward(const Cholesky<T>& factor, const Moments<T>& moments,
                                             const T rows[6], ProjectionGradient<T>& grad) {
  const T twice = T(2.0f * kLn2), square = T(4.0f * kLn2 * kLn2);
  grad.x = twice * factor.l0 * moments.u0;
  grad.y = twice * (factor.l1 * moments.u0 + factor.l2 * moments.u1);
  for (int column = 0; column < 3; ++column) {
    const T p = factor.l0 * rows[column] + factor.l1 * rows[3 + column];
    const T q = factor.l2 * rows[3 + column];
    const T s = square * (moments.u00 * p + moments.u01 * q);
    const T t = square * (moments.u01 * p + moments.u11 * q);
    grad.rows[column] = factor.l0 * s;
    grad.rows[3 + column] = factor.l1 * s + factor.l2 * t;
  }
}

}  // namespace talksplat
