// What tiles.h says of splats and tiles, for a test that compiles it in several ways.
#include "tiles.h"

// `splats` [count, 6]: x, y, l0, l1, l2, reach. For each of `tiles` x `tiles` tiles of each splat:
// whether the ellipse of alpha = 1/255 may meet it, and that of 3.33 deviations; and the least
// square over the tile from its first pixel's centre.
extern "C" void tile_lists(const float* splats, int count, int tiles, unsigned char* reached,
                           unsigned char* met, float* squares) {
  using namespace talksplat;
  for (int i = 0; i < count; ++i, splats += 6) {
    const float x = splats[0], y = splats[1], l0 = splats[2], l1 = splats[3], l2 = splats[4];
    for (int tile_y = 0; tile_y < tiles; ++tile_y) {
      for (int tile_x = 0; tile_x < tiles; ++tile_x) {
        *reached++ = pixels_may_be_reached(x, y, l0, l1, l2, splats[5], tile_x, tile_y);
        *met++ = ellipse_meets_tile(x, y, l0, l1, l2, tile_x, tile_y);
        const float left = static_cast<float>(tile_x * kTileSize) + 0.5f - x;
        const float top = static_cast<float>(tile_y * kTileSize) + 0.5f - y;
        *squares++ = least_square(l0, l1, l2, left, left + 15.0f, top, top + 15.0f);
      }
    }
  }
}
