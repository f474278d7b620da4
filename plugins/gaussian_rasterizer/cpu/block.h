// The block of pixels that one vector holds.
#pragma once

#include "kernels.h"
#include "simd.h"

namespace talksplat::TALKSPLAT_ISA {
namespace {

constexpr int kTilePixels = kTileSize * kTileSize;
// A block is what one vector holds: 4x4 pixels, or 4x2. Small compact blocks waste the fewest lanes
// on splats of a few pixels.
constexpr int kBlockWidth = 4;
constexpr int kBlockHeight = kLanes / kBlockWidth;
constexpr int kBlockColumns = kTileSize / kBlockWidth;
constexpr int kBlocks = kTilePixels / kLanes;

}  // namespace
}  // namespace talksplat::TALKSPLAT_ISA
