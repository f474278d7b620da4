// A z-buffer for triangle meshes already projected to the screen.
//
// Rules, the usual ones of graphics hardware, so that a result can be predicted by hand:
//   * pixel (i, j) is sampled at its centre (i + 0.5, j + 0.5); y points down;
//   * x and y are snapped to 1/256 of a pixel, then coverage is exact integer arithmetic;
//   * top-left rule: a pixel centre on an edge shared by two triangles belongs to exactly one;
//   * both windings are drawn, triangles without area are not;
//   * the smaller depth wins, at equal depths the smaller face index.
#pragma once

#include <cstdint>

namespace talksplat::mesh {

// Coordinates beyond this many pixels could overflow the edge functions; callers refuse them.
inline constexpr float kMaxCoordinate = 1 << 20;

struct Mesh {
  const float* positions;  // [vertex_count, components]: x, y in pixels, z depth, optionally w > 0
  int components;          // 3, or 4 for perspective-correct barycentrics
  const std::int32_t* faces;  // [face_count, 3], indices below vertex_count
  std::int64_t face_count;
};

// Writes face_ids [height, width] (-1 is empty), barycentrics [height, width, 3] (0 where empty)
// and depth [height, width] (infinity where empty).
void rasterize(const Mesh& mesh, int width, int height, std::int32_t* face_ids, float* barycentrics,
               float* depth);

// out [count, channels] = attributes [vertex_count, channels] at count places of the mesh, each a
// face and its barycentrics [count, 3].
void interpolate(const std::int32_t* faces, const std::int32_t* face_ids, const float* barycentrics,
                 std::int64_t count, const float* attributes, int channels, float* out);

// image [height, width, channels] holds the background on entry; pixels that the mesh covers are
// overwritten with attributes [vertex_count, channels] interpolated over the nearest triangle.
void render_attributes(const Mesh& mesh, const float* attributes, int channels, int width,
                       int height, float* image);

}  // namespace talksplat::mesh
