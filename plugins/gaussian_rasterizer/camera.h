// A pinhole camera, OpenCV axes (+x right, +y down, +z forward), pixel centres at +0.5.
#pragma once

#include "rules.h"

namespace talksplat {

struct Camera {
  float rotation[9];     // world -> camera, row-major
  float translation[3];  // world -> camera
  float position[3];     // of the camera, in the world
  float fx, fy, cx, cy;  // pixels
  int width, height;
  // x/z and y/z are clamped to these before they enter the Jacobian of the projection.
  float min_x, max_x, min_y, max_y;
};

// Of A, the upper left 3x3 of `viewmat` [4,4].
TALKSPLAT_HOST_DEVICE double cofactor(const float* viewmat, int row, int column) {
  const auto a = [viewmat](int i, int j) -> double { return viewmat[4 * (i % 3) + j % 3]; };
  // Row + 1 and row + 2 modulo 3 give a cofactor with its sign.
  return a(row + 1, column + 1) * a(row + 2, column + 2) -
         a(row + 1, column + 2) * a(row + 2, column + 1);
}

TALKSPLAT_HOST_DEVICE double determinant_of(const float* viewmat) {
  return viewmat[0] * cofactor(viewmat, 0, 0) + viewmat[1] * cofactor(viewmat, 0, 1) +
         viewmat[2] * cofactor(viewmat, 0, 2);
}

// Whether A is singular, or so nearly that its inverse says nothing: its determinant against that
// of orthogonal rows of the same lengths.
TALKSPLAT_HOST_DEVICE bool is_singular(const float* viewmat) {
  double lengths = 1.0;
  for (int row = 0; row < 3; ++row) {
    double square = 0.0;
    for (int column = 0; column < 3; ++column) {
      square += static_cast<double>(viewmat[4 * row + column]) * viewmat[4 * row + column];
    }
    lengths *= sqrt(square);
  }
  return !(fabs(determinant_of(viewmat)) > 1e-9 * lengths);
}

// Where `viewmat` [4,4] puts the camera in the world: -A^-1 t. A may carry a scale, so its
// transpose will not do. Not finite where A is singular.
TALKSPLAT_HOST_DEVICE void camera_position(const float* viewmat, float position[3]) {
  const double determinant = determinant_of(viewmat);
  for (int axis = 0; axis < 3; ++axis) {
    double sum = 0.0;
    for (int row = 0; row < 3; ++row) sum -= cofactor(viewmat, row, axis) * viewmat[4 * row + 3];
    position[axis] = static_cast<float>(sum / determinant);
  }
}

// `viewmat` [4,4] and `K` [3,3] are row-major. The position is wanted for spherical harmonics
// alone; it is 0 where it is not asked for.
TALKSPLAT_HOST_DEVICE Camera make_camera(const float* viewmat, const float* K, int width,
                                         int height, Dialect dialect, bool with_position = true) {
  Camera camera = {};
  for (int row = 0; row < 3; ++row) {
    for (int column = 0; column < 3; ++column) {
      camera.rotation[3 * row + column] = viewmat[4 * row + column];
    }
    camera.translation[row] = viewmat[4 * row + 3];
  }
  if (with_position) camera_position(viewmat, camera.position);
  camera.fx = K[0];
  camera.fy = K[4];
  camera.cx = K[2];
  camera.cy = K[5];
  camera.width = width;
  camera.height = height;
  const float tan_x = 0.5f * width / camera.fx;
  const float tan_y = 0.5f * height / camera.fy;
  if (dialect == Dialect::kInria) {
    camera.max_x = 1.3f * tan_x;
    camera.max_y = 1.3f * tan_y;
    camera.min_x = -camera.max_x;
    camera.min_y = -camera.max_y;
  } else {
    camera.max_x = (width - camera.cx) / camera.fx + 0.3f * tan_x;
    camera.min_x = -(camera.cx / camera.fx + 0.3f * tan_x);
    camera.max_y = (height - camera.cy) / camera.fy + 0.3f * tan_y;
    camera.min_y = -(camera.cy / camera.fy + 0.3f * tan_y);
  }
  return camera;
}

}  // namespace talksplat
