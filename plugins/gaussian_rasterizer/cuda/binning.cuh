// From the number of entries of every tile to the lists of the tiles, in no order yet.
#pragma once

#include "device.cuh"
#include "tile_walk.cuh"

namespace talksplat::cuda {
namespace {

constexpr int kScanWarps = kScanThreads / static_cast<int>(kWarp);

// Sum of the values of the block's threads before this one; `total` is that of all. Every thread of
// the block must come here.
__device__ __forceinline__ uint64_t scan_block(uint64_t value, uint64_t& total) {
  __shared__ uint64_t sums[kScanWarps];
  const int lane = threadIdx.x % kWarp, warp = threadIdx.x / kWarp;
  const auto scan_warp = [lane](uint64_t x) {  // this lane's value included
    for (uint32_t step = 1; step < kWarp; step *= 2) {
      const uint64_t before = __shfl_up_sync(kWholeWarp, x, step);
      if (lane >= static_cast<int>(step)) x += before;
    }
    return x;
  };
  const uint64_t included = scan_warp(value);
  if (lane == static_cast<int>(kWarp) - 1) sums[warp] = included;
  __syncthreads();
  if (warp == 0) {
    const uint64_t sum = scan_warp(sums[lane]);
    sums[lane] = sum;
  }
  __syncthreads();
  const uint64_t before = warp == 0 ? 0 : sums[warp - 1];
  total = sums[kScanWarps - 1];
  __syncthreads();
  return before + included - value;
}

// One block per camera: where the list of every tile begins, and whether all of them find room.
__device__ __forceinline__ void scan_tiles(const FrameArguments& frame) {
  const int tiles = tiles_of(frame);
  uint32_t* cursors = frame.tile_cursors + static_cast<int64_t>(blockIdx.x) * tiles;
  uint32_t* starts = frame.tile_starts + static_cast<int64_t>(blockIdx.x) * (tiles + 1);
  // What finds no room begins at the end of it.
  const auto within = [&](uint64_t at) {
    return static_cast<uint32_t>(at < frame.room ? at : frame.room);
  };
  uint64_t sum = 0;
  for (int first = 0; first < tiles; first += kScanThreads) {
    const int tile = first + static_cast<int>(threadIdx.x);
    uint64_t total;
    const uint64_t before = scan_block(tile < tiles ? cursors[tile] : 0u, total);
    if (tile < tiles) cursors[tile] = starts[tile] = within(sum + before);
    sum += total;
  }
  if (threadIdx.x != 0) return;
  starts[tiles] = within(sum);
  constexpr uint64_t kMost = 0x7fffffff;
  atomicMax(&frame.status[kStatusNeeded], static_cast<int32_t>(sum < kMost ? sum : kMost));
}

// Gaussians to the lists of their tiles. Who comes first differs from run to run; the keys are
// sorted afterwards, and no two are alike.
__device__ __forceinline__ void scatter_gaussian(const FrameArguments& frame) {
  if (failed(frame)) return;
  const uint32_t id = blockIdx.x * blockDim.x + threadIdx.x;
  const uint32_t view = blockIdx.y;
  TileEntry entry = {};
  if (id < frame.gaussians) {
    const int64_t place = static_cast<int64_t>(view) * frame.gaussians + id;
    const TileRange range = frame.ranges[place];
    if (range.x0 < range.x1) entry = entry_of(frame.splats[place], range, id, frame.rules.dialect);
  }
  uint32_t* cursors = frame.tile_cursors + static_cast<int64_t>(view) * tiles_of(frame);
  uint64_t* pairs = frame.pairs + static_cast<int64_t>(view) * frame.room;
  for_each_tile(entry, frame.tiles_x, [&](const TileEntry& listed, int tile) {
    const uint32_t at = atomicAdd(&cursors[tile], 1u);
    if (at < frame.room) pairs[at] = static_cast<uint64_t>(listed.depth_bits) << 32 | listed.id;
  });
}

}  // namespace
}  // namespace talksplat::cuda
