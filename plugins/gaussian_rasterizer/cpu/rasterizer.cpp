#include "rasterizer.h"

#include <algorithm>
#include <atomic>
#include <cmath>
#include <cstdlib>
#include <cstring>

#include "thread_pool.h"

namespace talksplat {
namespace {

constexpr int64_t kProjectionChunk = 1024;

const Kernels* chosen = nullptr;

const Kernels& best_kernels() {
  if (const char* name = std::getenv("TALKSPLAT_INSTRUCTION_SET")) {
    if (const Kernels* named = find_kernels(name)) return *named;
  }
  for (const char* name : {"avx512", "avx2"}) {
    if (const Kernels* found = find_kernels(name)) return *found;
  }
  return portable_kernels();
}

// Calls visit(tile) for the tiles a splat is listed in, in rising order.
template <class Visit>
void for_each_tile(const Splat& splat, int tiles_x, const Visit& visit) {
  for (int y = splat.tile_y0; y < splat.tile_y1; ++y) {
    for (int x = splat.tile_x0; x < splat.tile_x1; ++x) {
      if (splat.narrow) {
        // gsplat 1.6 lists a tile when the ellipse of 3.33 deviations meets it; only for opacities
        // above 1 does that leave out pixels of alpha >= 1/255.
        const float left = x * kTileSize - splat.x, right = left + kTileSize;
        const float top = y * kTileSize - splat.y, bottom = top + kTileSize;
        const float edge_x = std::clamp(0.0f, left, right), edge_y = std::clamp(0.0f, top, bottom);
        const float along_y = std::clamp(splat.ridge_y * edge_x, top, bottom);
        const float along_x = std::clamp(splat.ridge_x * edge_y, left, right);
        const auto square = [&](float dx, float dy) {
          const float u0 = splat.l0 * dx + splat.l1 * dy, u1 = splat.l2 * dy;
          return u0 * u0 + u1 * u1;
        };
        constexpr float limit = 0.5f * kLog2E * 3.33f * 3.33f;
        if (std::min(square(edge_x, along_y), square(along_x, edge_y)) > limit) continue;
      }
      visit(y * tiles_x + x);
    }
  }
}

// Positive floats sort like their bits. The index in the low half settles equal depths.
void sort_by_depth(Buffer<uint64_t>& keys, Buffer<uint64_t>& other, int64_t count) {
  uint64_t* from = keys.data();
  uint64_t* to = other.reserve(static_cast<size_t>(count));
  constexpr int kDigits = 3, kBits = 11;
  uint32_t histogram[kDigits][1 << kBits] = {};
  for (int64_t i = 0; i < count; ++i) {
    const uint32_t key = static_cast<uint32_t>(from[i] >> 32);
    for (int digit = 0; digit < kDigits; ++digit) {
      ++histogram[digit][key >> (digit * kBits) & ((1 << kBits) - 1)];
    }
  }
  for (int digit = 0; digit < kDigits; ++digit) {
    uint32_t start = 0;
    for (uint32_t& bucket : histogram[digit]) start += std::exchange(bucket, start);
    for (int64_t i = 0; i < count; ++i) {
      const uint32_t key = static_cast<uint32_t>(from[i] >> 32);
      to[histogram[digit][key >> (digit * kBits) & ((1 << kBits) - 1)]++] = from[i];
    }
    std::swap(from, to);
  }
  // Three passes: the result lies in the other buffer.
  std::swap(keys, other);
}

struct Span {
  int64_t begin, end;
};

Span chunk_of(int64_t count, int chunks, int chunk) {
  return {count * chunk / chunks, count * (chunk + 1) / chunks};
}

}  // namespace

const Kernels* find_kernels(const char* name) {
  if (std::strcmp(name, "portable") == 0) return &portable_kernels();
#if defined(__x86_64__)
  const bool avx2 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
  if (std::strcmp(name, "avx2") == 0 && avx2) return &avx2_kernels();
  if (std::strcmp(name, "avx512") == 0 && avx2 && __builtin_cpu_supports("avx512f") &&
      __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512bw") &&
      __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vbmi2")) {
    return &avx512_kernels();
  }
#endif
  return nullptr;
}

const Kernels& kernels() {
  if (chosen == nullptr) chosen = &best_kernels();
  return *chosen;
}

void choose_kernels(const Kernels& kernels) { chosen = &kernels; }

uint32_t rasterize(const Kernels& kernels, const Request& request, const Gaussians& gaussians,
                   const Camera& camera, const ImageView& background, const ImageView& colors,
                   const ImageView& alphas, Workspace& workspace, size_t index) {
  const FlushDenormals flush;
  const int threads = request.threads;
  if (workspace.views.size() <= index) workspace.views.resize(index + 1);
  if (workspace.scratch.size() < static_cast<size_t>(threads)) workspace.scratch.resize(threads);
  View& view = workspace.views[index];
  Frame& frame = view.frame;
  const int64_t count = gaussians.count;
  frame.gaussians = &gaussians;
  frame.camera = camera;
  frame.rules = request.rules;
  frame.tiles_x = (request.width + kTileSize - 1) / kTileSize;
  frame.tiles_y = (request.height + kTileSize - 1) / kTileSize;
  frame.channels = request.channels;
  frame.with_depth = request.with_depth;
  frame.expected_depth = request.expected_depth;
  frame.keep_features = request.channels > 4 && request.with_depth;
  frame.projected_features =
      frame.keep_features ? view.features.reserve(static_cast<size_t>(count) * request.channels)
                          : nullptr;
  frame.features = frame.keep_features ? frame.projected_features : gaussians.colors;
  frame.colors = colors;
  frame.alphas = alphas;
  frame.background = background;
  const int tiles = frame.tiles_x * frame.tiles_y;
  ThreadPool& pool = thread_pool();

  // Project.
  Splat* projected = view.projected.reserve(static_cast<size_t>(count));
  const int64_t projection_chunks = (count + kProjectionChunk - 1) / kProjectionChunk;
  uint32_t* visible_counts = view.cursors.reserve(static_cast<size_t>(projection_chunks));
  std::atomic<int64_t> next_chunk{0};
  std::atomic<uint32_t> bad{0};
  pool.run(static_cast<int>(std::min<int64_t>(threads, std::max<int64_t>(projection_chunks, 1))),
           [&](int) {
             uint32_t found = 0;
             for (int64_t chunk; (chunk = next_chunk++) < projection_chunks;) {
               const int64_t begin = chunk * kProjectionChunk;
               const int64_t end = std::min(begin + kProjectionChunk, count);
               visible_counts[chunk] = static_cast<uint32_t>(
                   kernels.project(frame, begin, end, projected + begin, &found));
             }
             bad |= found;
           });
  if (bad != 0) return bad;

  // Sort by depth.
  uint64_t* keys = view.keys.reserve(static_cast<size_t>(count));
  int64_t visible = 0;
  for (int64_t chunk = 0; chunk < projection_chunks; ++chunk) {
    const int64_t begin = chunk * kProjectionChunk;
    for (int64_t at = begin; at < begin + visible_counts[chunk]; ++at) {
      uint32_t depth;
      std::memcpy(&depth, &projected[at].depth, sizeof(depth));
      keys[visible++] = static_cast<uint64_t>(depth) << 32 | static_cast<uint64_t>(at);
    }
  }
  view.visible = visible;
  sort_by_depth(view.keys, view.other_keys, visible);
  keys = view.keys.data();

  // Bin: count per chunk and tile, then every chunk writes to places of its own. The lists do not
  // depend on the number of chunks.
  Splat* splats = view.splats.reserve(static_cast<size_t>(visible));
  const int chunks = threads;
  view.chunks = chunks;
  uint32_t* cursors = view.cursors.reserve(static_cast<size_t>(chunks) * tiles);
  pool.run(chunks, [&](int chunk) {
    uint32_t* counts = cursors + static_cast<size_t>(chunk) * tiles;
    std::memset(counts, 0, sizeof(uint32_t) * tiles);
    const Span span = chunk_of(visible, chunks, chunk);
    for (int64_t rank = span.begin; rank < span.end; ++rank) {
      splats[rank] = projected[static_cast<uint32_t>(keys[rank])];
      for_each_tile(splats[rank], frame.tiles_x, [&](int tile) { ++counts[tile]; });
    }
  });
  uint32_t* starts = view.tile_starts.reserve(static_cast<size_t>(tiles) + 1);
  uint32_t total = 0;
  for (int tile = 0; tile < tiles; ++tile) {
    starts[tile] = total;
    for (int chunk = 0; chunk < chunks; ++chunk) {
      total += std::exchange(cursors[static_cast<size_t>(chunk) * tiles + tile], total);
    }
  }
  starts[tiles] = total;
  view.instance_count = total;
  uint32_t* instances = view.instances.reserve(total);
  pool.run(chunks, [&](int chunk) {
    uint32_t* cursor = cursors + static_cast<size_t>(chunk) * tiles;
    const Span span = chunk_of(visible, chunks, chunk);
    for (int64_t rank = span.begin; rank < span.end; ++rank) {
      for_each_tile(splats[rank], frame.tiles_x,
                    [&](int tile) { instances[cursor[tile]++] = static_cast<uint32_t>(rank); });
    }
  });

  // Blend.
  frame.splats = splats;
  frame.tile_starts = starts;
  frame.instances = instances;
  std::atomic<int> next_tile{0};
  pool.run(threads, [&](int worker) {
    for (int tile; (tile = next_tile++) < tiles;) {
      kernels.blend_tile(frame, tile, workspace.scratch[worker]);
    }
  });
  return 0;
}

void rasterize_backward(const Kernels& kernels, int threads, const Gaussians& gaussians,
                        const ImageView& background, const ImageView& grad_colors,
                        const ImageView& grad_alphas, const GaussianGradients& out,
                        Workspace& workspace, size_t index) {
  const FlushDenormals flush;
  View& view = workspace.views[index];
  Frame& frame = view.frame;
  frame.gaussians = &gaussians;
  frame.features = frame.keep_features ? frame.projected_features : gaussians.colors;
  frame.background = background;
  if (workspace.scratch.size() < static_cast<size_t>(threads)) workspace.scratch.resize(threads);
  const int tiles = frame.tiles_x * frame.tiles_y;
  FrameGradients gradients;
  gradients.colors = grad_colors;
  gradients.alphas = grad_alphas;
  const int size = record_size(frame.channels);
  gradients.records = workspace.instance_records.reserve(static_cast<size_t>(view.instance_count) * size);
  ThreadPool& pool = thread_pool();
  std::atomic<int> next_tile{0};
  pool.run(threads, [&](int worker) {
    for (int tile; (tile = next_tile++) < tiles;) {
      kernels.blend_tile_backward(frame, gradients, tile, workspace.scratch[worker]);
    }
  });

  // Walks the instances of every splat as the binning did, so that each sum has one fixed order.
  float* records = workspace.records.reserve(static_cast<size_t>(view.visible) * size);
  const int chunks = view.chunks;
  uint32_t* cursors = view.cursors.data();
  for (int tile = 0; tile < tiles; ++tile) {
    // After binning a chunk's cursor stands where the next chunk's began.
    uint32_t start = view.tile_starts.data()[tile];
    for (int chunk = 0; chunk < chunks; ++chunk) {
      std::swap(start, cursors[static_cast<size_t>(chunk) * tiles + tile]);
    }
  }
  std::atomic<int> next_chunk{0};
  pool.run(std::min(threads, chunks), [&](int) {
    for (int chunk; (chunk = next_chunk++) < chunks;) {
      uint32_t* cursor = cursors + static_cast<size_t>(chunk) * tiles;
      const Span span = chunk_of(view.visible, chunks, chunk);
      for (int64_t rank = span.begin; rank < span.end; ++rank) {
        const Splat& splat = frame.splats[rank];
        float* sum = records + rank * size;
        std::memset(sum, 0, sizeof(float) * size);
        for_each_tile(splat, frame.tiles_x, [&](int tile) {
          kernels.add_record(splat, tile % frame.tiles_x, tile / frame.tiles_x,
                             gradients.records + static_cast<size_t>(cursor[tile]++) * size, size,
                             sum);
        });
      }
      kernels.project_backward(frame, records, span.begin, span.end, out);
    }
  });
}

}  // namespace talksplat
