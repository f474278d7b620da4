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

// `viewmat` [4,4] and `K` [3,3] are row-major.
inline Camera make_camera(const float* viewmat, const float* K, int width, int height,
                          Dialect dialect) {
  Camera camera;
  for (int row = 0; row < 3; ++row) {
    for (int column = 0; column < 3; ++column) {
      camera.rotation[3 * row + column] = viewmat[4 * row + column];
    }
    camera.translation[row] = viewmat[4 * row + 3];
  }
  for (int axis = 0; axis < 3; ++axis) {
    double sum = 0.0;  // -R^T t: the rotation part is orthonormal
    for (int row = 0; row < 3; ++row) {
      sum -= static_cast<double>(camera.rotation[3 * row + axis]) * camera.translation[row];
    }
    camera.position[axis] = static_cast<float>(sum);
  }
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
