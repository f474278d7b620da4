#include "mesh_rasterizer.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <memory>
#include <utility>

namespace talksplat::mesh {
namespace {

constexpr int kSubpixelBits = 8;
constexpr std::int64_t kSubpixels = 1 << kSubpixelBits;
constexpr std::int64_t kHalf = kSubpixels / 2;

struct Point {
  std::int64_t x, y;
};

Point snap(const float* position) {
  return {std::llrint(static_cast<double>(position[0]) * kSubpixels),
          std::llrint(static_cast<double>(position[1]) * kSubpixels)};
}

// First and last pixel whose centre lies in [low, high], both in subpixels.
std::int64_t first_pixel(std::int64_t low) {
  return (low - kHalf + kSubpixels - 1) >> kSubpixelBits;
}
std::int64_t last_pixel(std::int64_t high) { return (high - kHalf) >> kSubpixelBits; }

// E(p) = (b - a) × (p - a): positive to the inner side of the edge a → b, stepped pixel by pixel.
struct Edge {
  std::int64_t row, step_x, step_y, bias;

  Edge(Point a, Point b, Point start) {
    const std::int64_t dx = b.x - a.x, dy = b.y - a.y;
    row = dx * (start.y - a.y) - dy * (start.x - a.x);
    step_x = -dy * kSubpixels;
    step_y = dx * kSubpixels;
    const bool top_left = dy < 0 || (dy == 0 && dx > 0);
    bias = top_left ? 0 : -1;
  }
};

// Calls visit(pixel index, face, weights of the three corners) for every pixel centre inside every
// triangle, faces in order. Weights are affine in the screen and sum to one.
template <typename Visit>
void for_each_fragment(const Mesh& mesh, int width, int height, Visit&& visit) {
  for (std::int64_t face = 0; face < mesh.face_count; ++face) {
    const std::int32_t* corners = mesh.faces + 3 * face;
    Point p0 = snap(mesh.positions + static_cast<std::int64_t>(corners[0]) * mesh.components);
    Point p1 = snap(mesh.positions + static_cast<std::int64_t>(corners[1]) * mesh.components);
    Point p2 = snap(mesh.positions + static_cast<std::int64_t>(corners[2]) * mesh.components);

    const std::int64_t left = std::max<std::int64_t>(0, first_pixel(std::min({p0.x, p1.x, p2.x})));
    const std::int64_t right =
        std::min<std::int64_t>(width - 1, last_pixel(std::max({p0.x, p1.x, p2.x})));
    if (left > right) continue;
    const std::int64_t top = std::max<std::int64_t>(0, first_pixel(std::min({p0.y, p1.y, p2.y})));
    const std::int64_t bottom =
        std::min<std::int64_t>(height - 1, last_pixel(std::max({p0.y, p1.y, p2.y})));
    if (top > bottom) continue;

    std::int64_t area = (p1.x - p0.x) * (p2.y - p0.y) - (p1.y - p0.y) * (p2.x - p0.x);
    if (area == 0) continue;
    const bool flipped = area < 0;
    if (flipped) {
      std::swap(p1, p2);
      area = -area;
    }
    const double inverse_area = 1.0 / static_cast<double>(area);

    const Point start{left * kSubpixels + kHalf, top * kSubpixels + kHalf};
    Edge edge0(p1, p2, start), edge1(p2, p0, start), edge2(p0, p1, start);
    for (std::int64_t y = top; y <= bottom; ++y) {
      std::int64_t e0 = edge0.row, e1 = edge1.row, e2 = edge2.row;
      for (std::int64_t x = left; x <= right; ++x) {
        if (((e0 + edge0.bias) | (e1 + edge1.bias) | (e2 + edge2.bias)) >= 0) {
          const double b0 = static_cast<double>(e0) * inverse_area;
          const double b1 = static_cast<double>(e1) * inverse_area;
          const double b2 = static_cast<double>(e2) * inverse_area;
          const double weights[3] = {b0, flipped ? b2 : b1, flipped ? b1 : b2};
          visit(y * width + x, face, weights);
        }
        e0 += edge0.step_x;
        e1 += edge1.step_x;
        e2 += edge2.step_x;
      }
      edge0.row += edge0.step_y;
      edge1.row += edge1.step_y;
      edge2.row += edge2.step_y;
    }
  }
}

}  // namespace

void rasterize(const Mesh& mesh, int width, int height, std::int32_t* face_ids, float* barycentrics,
               float* depth) {
  const std::int64_t pixels = static_cast<std::int64_t>(width) * height;
  std::fill_n(face_ids, pixels, -1);
  std::fill_n(barycentrics, 3 * pixels, 0.0f);
  std::fill_n(depth, pixels, std::numeric_limits<float>::infinity());

  for_each_fragment(
      mesh, width, height, [&](std::int64_t pixel, std::int64_t face, const double* affine) {
        const float* corners[3];
        for (int k = 0; k < 3; ++k) {
          const std::int64_t vertex = mesh.faces[3 * face + k];
          corners[k] = mesh.positions + vertex * mesh.components;
        }
        double weights[3] = {affine[0], affine[1], affine[2]};
        if (mesh.components == 4) {
          for (int k = 0; k < 3; ++k) weights[k] /= corners[k][3];
          const double inverse = 1.0 / (weights[0] + weights[1] + weights[2]);
          for (double& weight : weights) weight *= inverse;
        }
        const float z = static_cast<float>(weights[0] * corners[0][2] + weights[1] * corners[1][2] +
                                           weights[2] * corners[2][2]);
        if (!(z < depth[pixel])) return;
        depth[pixel] = z;
        face_ids[pixel] = static_cast<std::int32_t>(face);
        for (int k = 0; k < 3; ++k) {
          barycentrics[3 * pixel + k] = static_cast<float>(weights[k]);
        }
      });
}

void interpolate(const std::int32_t* faces, const std::int32_t* face_ids, const float* barycentrics,
                 std::int64_t count, const float* attributes, int channels, float* out) {
  for (std::int64_t i = 0; i < count; ++i, out += channels, barycentrics += 3) {
    const std::int32_t* corners = faces + 3 * static_cast<std::int64_t>(face_ids[i]);
    const float* a = attributes + static_cast<std::int64_t>(corners[0]) * channels;
    const float* b = attributes + static_cast<std::int64_t>(corners[1]) * channels;
    const float* c = attributes + static_cast<std::int64_t>(corners[2]) * channels;
    for (int k = 0; k < channels; ++k) {
      out[k] = barycentrics[0] * a[k] + barycentrics[1] * b[k] + barycentrics[2] * c[k];
    }
  }
}

void render_attributes(const Mesh& mesh, const float* attributes, int channels, int width,
                       int height, float* image) {
  const std::size_t pixels = static_cast<std::size_t>(width) * static_cast<std::size_t>(height);
  const auto face_ids = std::make_unique_for_overwrite<std::int32_t[]>(pixels);
  const auto barycentrics = std::make_unique_for_overwrite<float[]>(3 * pixels);
  const auto depth = std::make_unique_for_overwrite<float[]>(pixels);
  rasterize(mesh, width, height, face_ids.get(), barycentrics.get(), depth.get());

  for (std::size_t pixel = 0; pixel < pixels; ++pixel) {
    if (face_ids[pixel] < 0) continue;
    interpolate(mesh.faces, &face_ids[pixel], &barycentrics[3 * pixel], 1, attributes, channels,
                image + pixel * static_cast<std::size_t>(channels));
  }
}

}  // namespace talksplat::mesh
