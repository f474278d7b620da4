// Real spherical harmonics up to degree 3, with the signs that 3D Gaussian splatting uses.
#pragma once

#include "host_device.h"

namespace talksplat {

inline constexpr int kMaxShBases = 16;

// `basis` [(degree+1)^2] at the unit direction (x, y, z).
template <class T>
TALKSPLAT_HOST_DEVICE void sh_basis(int degree, T x, T y, T z, T* basis) {
  basis[0] = T(0.28209479177387814f);
  if (degree < 1) return;
  basis[1] = T(-0.4886025119029199f) * y;
  basis[2] = T(0.4886025119029199f) * z;
  basis[3] = T(-0.4886025119029199f) * x;
  if (degree < 2) return;
  const T xx = x * x, yy = y * y, zz = z * z;
  basis[4] = T(1.0925484305920792f) * x * y;
  basis[5] = T(-1.0925484305920792f) * y * z;
  basis[6] = T(0.31539156525252005f) * (T(2.0f) * zz - xx - yy);
  basis[7] = T(-1.0925484305920792f) * x * z;
  basis[8] = T(0.5462742152960396f) * (xx - yy);
  if (degree < 3) return;
  basis[9] = T(-0.5900435899266435f) * y * (T(3.0f) * xx - yy);
  basis[10] = T(2.890611442640554f) * x * y * z;
  basis[11] = T(-0.4570457994644658f) * y * (T(4.0f) * zz - xx - yy);
  basis[12] = T(0.3731763325901154f) * z * (T(2.0f) * zz - T(3.0f) * xx - T(3.0f) * yy);
  basis[13] = T(-0.4570457994644658f) * x * (T(4.0f) * zz - xx - yy);
  basis[14] = T(1.445305721320277f) * z * (xx - yy);
  basis[15] = T(-0.5900435899266435f) * x * (xx - T(3.0f) * yy);
}

// Gradient of sum_k weights[k] * basis[k] with respect to (x, y, z), taken as independent.
template <class T>
TALKSPLAT_HOST_DEVICE void sh_basis_backward(int degree, T x, T y, T z, const T* weights,
                                             T grad[3]) {
  grad[0] = grad[1] = grad[2] = T(0.0f);
  if (degree < 1) return;
  const T c1 = T(0.4886025119029199f);
  grad[0] = T(0.0f) - c1 * weights[3];
  grad[1] = T(0.0f) - c1 * weights[1];
  grad[2] = c1 * weights[2];
  if (degree < 2) return;
  const T c2 = T(1.0925484305920792f), c20 = T(0.31539156525252005f), c22 = T(0.5462742152960396f);
  const T two = T(2.0f);
  grad[0] = grad[0] + c2 * (y * weights[4] - z * weights[7]) +
            two * x * (c22 * weights[8] - c20 * weights[6]);
  grad[1] = grad[1] + c2 * (x * weights[4] - z * weights[5]) -
            two * y * (c22 * weights[8] + c20 * weights[6]);
  grad[2] = grad[2] + T(4.0f) * c20 * z * weights[6] - c2 * (y * weights[5] + x * weights[7]);
  if (degree < 3) return;
  const T xx = x * x, yy = y * y, zz = z * z;
  const T c30 = T(0.3731763325901154f), c31 = T(0.4570457994644658f);
  const T c32 = T(1.445305721320277f), c3b = T(2.890611442640554f), c33 = T(0.5900435899266435f);
  const T six = T(6.0f), three = T(3.0f), four = T(4.0f), eight = T(8.0f);
  grad[0] = grad[0] - c33 * six * x * y * weights[9] + c3b * y * z * weights[10] +
            c31 * two * x * y * weights[11] - c30 * six * x * z * weights[12] -
            c31 * (four * zz - three * xx - yy) * weights[13] + c32 * two * x * z * weights[14] -
            c33 * three * (xx - yy) * weights[15];
  grad[1] = grad[1] - c33 * three * (xx - yy) * weights[9] + c3b * x * z * weights[10] -
            c31 * (four * zz - xx - three * yy) * weights[11] - c30 * six * y * z * weights[12] +
            c31 * two * x * y * weights[13] - c32 * two * y * z * weights[14] +
            c33 * six * x * y * weights[15];
  grad[2] = grad[2] + c3b * x * y * weights[10] - c31 * eight * y * z * weights[11] +
            c30 * (six * zz - three * xx - three * yy) * weights[12] -
            c31 * eight * x * z * weights[13] + c32 * (xx - yy) * weights[14];
}

}  // namespace talksplat
