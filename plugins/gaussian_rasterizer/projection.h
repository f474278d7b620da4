// From a 3D Gaussian to its footprint on the image: "EWA Splatting" (Zwicker et al. 2002, eq.
// 24-31) as used by "3D Gaussian Splatting" (Kerbl et al. 2023, section 4), and its derivative.
//
// Everything is written for a number type T: float on the GPU and in scalar code, a vector of
// Gaussians in the CPU kernels. T needs + - * /, comparisons, and the
// functions that are given for float below.
#pragma once

#include "camera.h"
#include "host_device.h"
#include "rules.h"

namespace talksplat {

TALKSPLAT_HOST_DEVICE float square_root(float x) { return sqrtf(x); }
TALKSPLAT_HOST_DEVICE float minimum(float a, float b) { return a < b ? a : b; }
TALKSPLAT_HOST_DEVICE float maximum(float a, float b) { return a > b ? a : b; }
TALKSPLAT_HOST_DEVICE float absolute(float x) { return fabsf(x); }
TALKSPLAT_HOST_DEVICE float floor(float x) { return floorf(x); }
TALKSPLAT_HOST_DEVICE float ceil(float x) { return ceilf(x); }
TALKSPLAT_HOST_DEVICE float select(bool mask, float a, float b) { return mask ? a : b; }
TALKSPLAT_HOST_DEVICE float zero_unless(bool mask, float a) { return mask ? a : 0.0f; }
TALKSPLAT_HOST_DEVICE float multiply_add(float a, float b, float c) { return fmaf(a, b, c); }
TALKSPLAT_HOST_DEVICE float negative_multiply_add(float a, float b, float c) {
  return fmaf(-a, b, c);
}

// A Gaussian in camera space, with the 2x3 matrix A = J W R S whose A A^T is the 2D covariance.
// Working with A keeps determinants free of cancellation: det(A A^T) = |row0 x row1|^2.
template <class T>
struct Projection {
  T x, y;                 // mean on the image, pixels
  T depth;                // camera-space z
  T xx, xy, yy;           // 2D covariance, low pass included
  T determinant;          // of that
  T compensation_square;  // det without / det with the low pass
};

// What the derivative needs again and the forward pass has at hand.
template <class T>
struct ProjectionTape {
  T rotation[9];     // of the normalised (or given) quaternion, row-major
  T inverse_norm;    // 1/|quat|, 1 where the dialect does not normalise
  T camera_mean[3];  // x, y, z in camera space
  T clamped_x, clamped_y;
  T jacobian_world[6];  // J W, 2x3
  T rows[6];            // A = J W R S, 2x3
};

template <class T>
TALKSPLAT_HOST_DEVICE void quat_to_rotation(T w, T x, T y, T z, T* rotation) {
  rotation[0] = T(1.0f) - T(2.0f) * (y * y + z * z);
  rotation[1] = T(2.0f) * (x * y - w * z);
  rotation[2] = T(2.0f) * (x * z + w * y);
  rotation[3] = T(2.0f) * (x * y + w * z);
  rotation[4] = T(1.0f) - T(2.0f) * (x * x + z * z);
  rotation[5] = T(2.0f) * (y * z - w * x);
  rotation[6] = T(2.0f) * (x * z - w * y);
  rotation[7] = T(2.0f) * (y * z + w * x);
  rotation[8] = T(1.0f) - T(2.0f) * (x * x + y * y);
}

template <class T>
TALKSPLAT_HOST_DEVICE Projection<T> project(const T mean[3], const T quat[4], const T scale[3],
                                            const Camera& camera, const Rules& rules,
                                            ProjectionTape<T>& tape) {
  const float* W = camera.rotation;
  for (int row = 0; row < 3; ++row) {
    tape.camera_mean[row] = T(W[3 * row]) * mean[0] + T(W[3 * row + 1]) * mean[1] +
                            T(W[3 * row + 2]) * mean[2] + T(camera.translation[row]);
  }
  const T z = tape.camera_mean[2];
  const T inverse_z = T(1.0f) / z;
  const T slope_x = tape.camera_mean[0] * inverse_z;
  const T slope_y = tape.camera_mean[1] * inverse_z;
  tape.clamped_x = minimum(maximum(slope_x, T(camera.min_x)), T(camera.max_x));
  tape.clamped_y = minimum(maximum(slope_y, T(camera.min_y)), T(camera.max_y));

  tape.inverse_norm = T(1.0f);
  T w = quat[0], i = quat[1], j = quat[2], k = quat[3];
  if (rules.normalizes_quats()) {
    tape.inverse_norm = T(1.0f) / square_root(w * w + i * i + j * j + k * k);
    w = w * tape.inverse_norm;
    i = i * tape.inverse_norm;
    j = j * tape.inverse_norm;
    k = k * tape.inverse_norm;
  }
  quat_to_rotation(w, i, j, k, tape.rotation);

  const T focal_x = T(camera.fx) * inverse_z;
  const T focal_y = T(camera.fy) * inverse_z;
  for (int column = 0; column < 3; ++column) {
    tape.jacobian_world[column] = focal_x * (T(W[column]) - tape.clamped_x * T(W[6 + column]));
    tape.jacobian_world[3 + column] =
        focal_y * (T(W[3 + column]) - tape.clamped_y * T(W[6 + column]));
  }
  for (int row = 0; row < 2; ++row) {
    const T* jacobian = tape.jacobian_world + 3 * row;
    for (int column = 0; column < 3; ++column) {
      tape.rows[3 * row + column] =
          (jacobian[0] * tape.rotation[column] + jacobian[1] * tape.rotation[3 + column] +
           jacobian[2] * tape.rotation[6 + column]) *
          scale[column];
    }
  }
  const T* a = tape.rows;
  const T* b = tape.rows + 3;
  const T aa = a[0] * a[0] + a[1] * a[1] + a[2] * a[2];
  const T bb = b[0] * b[0] + b[1] * b[1] + b[2] * b[2];
  const T ab = a[0] * b[0] + a[1] * b[1] + a[2] * b[2];
  const T cross_x = a[1] * b[2] - a[2] * b[1];
  const T cross_y = a[2] * b[0] - a[0] * b[2];
  const T cross_z = a[0] * b[1] - a[1] * b[0];
  const T sharp = cross_x * cross_x + cross_y * cross_y + cross_z * cross_z;
  const T low_pass = T(rules.low_pass);

  Projection<T> out;
  out.x = T(camera.fx) * slope_x + T(camera.cx);
  out.y = T(camera.fy) * slope_y + T(camera.cy);
  out.depth = z;
  out.xx = aa + low_pass;
  out.xy = ab;
  out.yy = bb + low_pass;
  out.determinant = sharp + low_pass * (aa + bb) + low_pass * low_pass;
  out.compensation_square = sharp / out.determinant;
  return out;
}

// Gradients of a loss with respect to what `project` returned; those of the covariance stand for it
// as gradients of `rows`, whose A A^T it is (see cholesky_backward in blending.h).
template <class T>
struct ProjectionGradient {
  T x, y, depth;
  T rows[6];
  T compensation_square;
};

// Writes the gradients of mean, quat and scale of one camera.
template <class T>
TALKSPLAT_HOST_DEVICE void project_backward(const Projection<T>& projected,
                                            const ProjectionTape<T>& tape, const T quat[4],
                                            const T scale[3], const Camera& camera,
                                            const Rules& rules, const ProjectionGradient<T>& grad,
                                            T grad_mean[3], T grad_quat[4], T grad_scale[3]) {
  const float* W = camera.rotation;
  const T* a = tape.rows;
  const T* b = tape.rows + 3;

  T grad_rows[6];
  for (int i = 0; i < 6; ++i) grad_rows[i] = grad.rows[i];
  if (rules.antialiased) {
    // ratio = sharp / det, det = sharp + low_pass (aa + bb) + low_pass^2, sharp = aa bb - ab^2
    const T inverse_determinant = T(1.0f) / projected.determinant;
    const T ratio = projected.compensation_square;
    const T grad_sharp = grad.compensation_square * inverse_determinant * (T(1.0f) - ratio);
    const T grad_trace =
        T(0.0f) - grad.compensation_square * inverse_determinant * ratio * T(rules.low_pass);
    const T aa = projected.xx - T(rules.low_pass);
    const T bb = projected.yy - T(rules.low_pass);
    for (int column = 0; column < 3; ++column) {
      const T across_a = bb * a[column] - projected.xy * b[column];
      const T across_b = aa * b[column] - projected.xy * a[column];
      grad_rows[column] =
          grad_rows[column] + T(2.0f) * (grad_trace * a[column] + grad_sharp * across_a);
      grad_rows[3 + column] =
          grad_rows[3 + column] + T(2.0f) * (grad_trace * b[column] + grad_sharp * across_b);
    }
  }

  // rows = (J W) R S
  T grad_rotation[9];
  T grad_jacobian[6] = {T(0.0f), T(0.0f), T(0.0f), T(0.0f), T(0.0f), T(0.0f)};
  for (int column = 0; column < 3; ++column) {
    T unscaled[2] = {T(0.0f), T(0.0f)};
    for (int row = 0; row < 3; ++row) {
      unscaled[0] = unscaled[0] + tape.jacobian_world[row] * tape.rotation[3 * row + column];
      unscaled[1] = unscaled[1] + tape.jacobian_world[3 + row] * tape.rotation[3 * row + column];
    }
    grad_scale[column] = unscaled[0] * grad_rows[column] + unscaled[1] * grad_rows[3 + column];
    const T g0 = grad_rows[column] * scale[column];
    const T g1 = grad_rows[3 + column] * scale[column];
    for (int row = 0; row < 3; ++row) {
      grad_rotation[3 * row + column] =
          tape.jacobian_world[row] * g0 + tape.jacobian_world[3 + row] * g1;
      grad_jacobian[row] = grad_jacobian[row] + g0 * tape.rotation[3 * row + column];
      grad_jacobian[3 + row] = grad_jacobian[3 + row] + g1 * tape.rotation[3 * row + column];
    }
  }

  // The quaternion, as given.
  const T n = tape.inverse_norm;
  const T w = quat[0] * n, i = quat[1] * n, j = quat[2] * n, k = quat[3] * n;
  const T* R = grad_rotation;
  const T two = T(2.0f);
  T q0 = two * (i * (R[7] - R[5]) + j * (R[2] - R[6]) + k * (R[3] - R[1]));
  T q1 =
      two * (j * (R[1] + R[3]) + k * (R[2] + R[6]) + w * (R[7] - R[5]) - two * i * (R[4] + R[8]));
  T q2 =
      two * (i * (R[1] + R[3]) + k * (R[5] + R[7]) + w * (R[2] - R[6]) - two * j * (R[0] + R[8]));
  T q3 =
      two * (i * (R[2] + R[6]) + j * (R[5] + R[7]) + w * (R[3] - R[1]) - two * k * (R[0] + R[4]));
  if (rules.normalizes_quats()) {
    const T along = q0 * w + q1 * i + q2 * j + q3 * k;
    q0 = (q0 - along * w) * n;
    q1 = (q1 - along * i) * n;
    q2 = (q2 - along * j) * n;
    q3 = (q3 - along * k) * n;
  }
  grad_quat[0] = q0;
  grad_quat[1] = q1;
  grad_quat[2] = q2;
  grad_quat[3] = q3;

  // J W: row 0 = fx/z (W0 - cx W2), cx = clamp(x/z), and likewise row 1.
  const T z = tape.camera_mean[2];
  const T inverse_z = T(1.0f) / z;
  const T slope_x = tape.camera_mean[0] * inverse_z;
  const T slope_y = tape.camera_mean[1] * inverse_z;
  T through_z = T(0.0f), grad_clamped_x = T(0.0f), grad_clamped_y = T(0.0f);
  for (int column = 0; column < 3; ++column) {
    through_z = through_z + grad_jacobian[column] * tape.jacobian_world[column] +
                grad_jacobian[3 + column] * tape.jacobian_world[3 + column];
    grad_clamped_x = grad_clamped_x - grad_jacobian[column] * T(W[6 + column]);
    grad_clamped_y = grad_clamped_y - grad_jacobian[3 + column] * T(W[6 + column]);
  }
  const T zero = T(0.0f);
  const T free_x = select(tape.clamped_x == slope_x, grad_clamped_x, zero);
  const T free_y = select(tape.clamped_y == slope_y, grad_clamped_y, zero);
  const T grad_slope_x = (grad.x + free_x * inverse_z) * T(camera.fx);
  const T grad_slope_y = (grad.y + free_y * inverse_z) * T(camera.fy);
  const T grad_camera[3] = {
      grad_slope_x * inverse_z, grad_slope_y * inverse_z,
      grad.depth - (through_z + grad_slope_x * slope_x + grad_slope_y * slope_y) * inverse_z};
  for (int axis = 0; axis < 3; ++axis) {
    grad_mean[axis] = T(W[axis]) * grad_camera[0] + T(W[3 + axis]) * grad_camera[1] +
                      T(W[6 + axis]) * grad_camera[2];
  }
}

}  // namespace talksplat
