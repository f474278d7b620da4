// The tiles of a Gaussian, one after the other.
#pragma once

#include "../tiles.h"
#include "device.cuh"

namespace talksplat::cuda {
namespace {

// What it takes to say which tiles list a Gaussian, and what the lists hold of it.
struct TileEntry {
  TileRange range;
  float x, y, l0, l1, l2, reach;
  uint32_t narrow;  // see narrows_lists
  uint32_t depth_bits, id;

  __device__ __forceinline__ int columns() const { return range.x1 - range.x0; }
  __device__ __forceinline__ int count() const { return columns() * (range.y1 - range.y0); }
  __device__ __forceinline__ bool meets(int tile_x, int tile_y) const {
    return pixels_may_be_reached(x, y, l0, l1, l2, reach, tile_x, tile_y) &&
           (narrow == 0 || ellipse_meets_tile(x, y, l0, l1, l2, tile_x, tile_y));
  }
};

__device__ __forceinline__ TileEntry entry_of(const Splat& splat, TileRange range, uint32_t id,
                                              Dialect dialect) {
  return {range,
          splat.x,
          splat.y,
          splat.l0,
          splat.l1,
          splat.l2,
          splat.reach,
          narrows_lists(dialect, splat.log2_opacity),
          __float_as_uint(splat.depth),
          id};
}

// The entry of another lane.
__device__ __forceinline__ TileEntry entry_of_lane(const TileEntry& entry, int lane) {
  const auto from_lane = [lane](auto value) { return __shfl_sync(kWholeWarp, value, lane); };
  const uint32_t low = from_lane(entry.range.x0 | static_cast<uint32_t>(entry.range.y0) << 16);
  const uint32_t high = from_lane(entry.range.x1 | static_cast<uint32_t>(entry.range.y1) << 16);
  TileEntry out;
  out.range = {static_cast<uint16_t>(low), static_cast<uint16_t>(low >> 16),
               static_cast<uint16_t>(high), static_cast<uint16_t>(high >> 16)};
  out.x = from_lane(entry.x);
  out.y = from_lane(entry.y);
  out.l0 = from_lane(entry.l0);
  out.l1 = from_lane(entry.l1);
  out.l2 = from_lane(entry.l2);
  out.reach = from_lane(entry.reach);
  out.narrow = from_lane(entry.narrow);
  out.depth_bits = from_lane(entry.depth_bits);
  out.id = from_lane(entry.id);
  return out;
}

// Calls visit(entry, tile) for every tile that lists one of the warp's Gaussians, on some lane. All
// lanes of the warp must come here. A lane walks the few tiles of its own Gaussian; those of a
// large one are divided among the warp.
template <class Visit>
__device__ __forceinline__ void for_each_tile(const TileEntry& own, int tiles_x,
                                              const Visit& visit) {
  constexpr int kOwnTiles = 16;
  const auto visit_if_met = [tiles_x, &visit](const TileEntry& entry, int tile_x, int tile_y) {
    if (entry.meets(tile_x, tile_y)) visit(entry, tile_y * tiles_x + tile_x);
  };
  const int count = own.count();
  if (count <= kOwnTiles) {
    for (int tile_y = own.range.y0; tile_y < own.range.y1; ++tile_y) {
      for (int tile_x = own.range.x0; tile_x < own.range.x1; ++tile_x) {
        visit_if_met(own, tile_x, tile_y);
      }
    }
  }
  uint32_t large = __ballot_sync(kWholeWarp, count > kOwnTiles);
  for (; large != 0; large &= large - 1) {
    const TileEntry entry = entry_of_lane(own, __ffs(large) - 1);
    const int columns = entry.columns();
    for (int place = threadIdx.x % kWarp; place < entry.count(); place += kWarp) {
      visit_if_met(entry, entry.range.x0 + place % columns, entry.range.y0 + place / columns);
    }
  }
}

}  // namespace
}  // namespace talksplat::cuda
