#include "rasterizer.h"

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstring>
#include <string>

#include "../tiles.h"
#include "depth_sort.h"
#include "thread_pool.h"

namespace talksplat {
namespace {

constexpr int64_t kProjectionChunk = 1024;
constexpr uint32_t kNoSlot = UINT32_MAX;

std::atomic<const Kernels*> chosen{nullptr};

const Kernels& best_kernels() {
  for (const char* name : {"avx512", "avx2"}) {
    if (const Kernels* found = find_kernels(name)) return *found;
  }
  return portable_kernels();
}

// Adds the time since it was last asked.
class StopWatch {
 public:
  void add_to(double& milliseconds) {
    const auto now = std::chrono::steady_clock::now();
    milliseconds += std::chrono::duration<double, std::milli>(now - last_).count();
    last_ = now;
  }

 private:
  std::chrono::steady_clock::time_point last_ = std::chrono::steady_clock::now();
};

bool meets_tile(const Splat& splat, int tile_x, int tile_y) {
  const Footprint& footprint = splat.footprint;
  return ellipse_meets_tile(splat.x, splat.y, footprint.l0, footprint.l1, footprint.l2, tile_x,
                            tile_y);
}

// How many instances each tile will have. A range of tiles is four changes of a grid that is summed
// along both axes in the end: no loop over tiles, whose length would be guessed wrong every time.
class TileCounts {
 public:
  // `grid` [tiles_x + 1, tiles_y + 1].
  TileCounts(const Frame& frame, int32_t* grid)
      : frame_(frame), row_(frame.tiles_x + 1), grid_(grid) {
    std::memset(grid, 0, sizeof(int32_t) * size(frame));
  }
  static size_t size(const Frame& frame) {
    return static_cast<size_t>(frame.tiles_x + 1) * (frame.tiles_y + 1);
  }

  void add(uint32_t place) {
    const TileRange range = frame_.ranges[place];
    if (!range.narrow) return add(range.x0, range.y0, range.x1, range.y1);
    for (int y = range.y0; y < range.y1; ++y) {
      for (int x = range.x0; x < range.x1; ++x) {
        if (meets_tile(frame_.splats[place], x, y)) add(x, y, x + 1, y + 1);
      }
    }
  }

 private:
  void add(int x0, int y0, int x1, int y1) {
    ++grid_[y0 * row_ + x0];
    --grid_[y0 * row_ + x1];
    --grid_[y1 * row_ + x0];
    ++grid_[y1 * row_ + x1];
  }

  const Frame& frame_;
  int row_;
  int32_t* grid_;
};

// starts [tiles + 1] from the grids of all workers. Returns the number of instances; starts hold it
// modulo 2^32.
uint64_t sum_tile_counts(const Frame& frame, int32_t* grids, int workers, uint32_t* starts) {
  const size_t size = TileCounts::size(frame);
  const int row = frame.tiles_x + 1;
  for (int worker = 1; worker < workers; ++worker) {
    for (size_t i = 0; i < size; ++i) grids[i] += grids[worker * size + i];
  }
  uint64_t total = 0;
  for (int y = 0; y < frame.tiles_y; ++y) {
    int32_t count = 0;
    for (int x = 0; x < frame.tiles_x; ++x) {
      int32_t& change = grids[y * row + x];
      if (y > 0) change += grids[(y - 1) * row + x];  // by now the sum of all changes above
      count += change;
      starts[y * frame.tiles_x + x] = static_cast<uint32_t>(total);
      total += static_cast<uint64_t>(count);
    }
  }
  starts[frame.tiles_x * frame.tiles_y] = static_cast<uint32_t>(total);
  return total;
}

// Within the limit entries can be counted in 32 bits, too: each takes at least four bytes.
void check_list_size(uint64_t entries, size_t bytes_each) {
  if (entries <= kMaxListBytes / bytes_each) return;
  throw TooManyTileEntries("need " + std::to_string(entries) + " entries of " +
                           std::to_string(bytes_each) + " bytes; at most " +
                           std::to_string(kMaxListBytes / bytes_each) + " (" +
                           std::to_string(kMaxListBytes >> 30) + " GiB) are allowed");
}

// The instances of splats, to be written at the cursors of their tiles: from the front of the lists
// on or, with splats in reverse, from their ends back, so that two workers can share a tile. They
// are listed first, four at a time whether a splat has one or four, so that few branches are
// guessed wrong.
template <bool kWithSlots, bool kReverse>
class InstanceLists {
 public:
  InstanceLists(const Frame& frame, int first_row, int last_row, const uint32_t* slot_starts,
                uint32_t* slots, uint32_t* cursors, uint32_t* instances)
      : frame_(frame),
        first_row_(first_row),
        last_row_(last_row),
        slot_starts_(slot_starts),
        slots_(slots),
        cursors_(cursors),
        instances_(instances) {
    for (int width = 1; width <= kEasy; ++width) {
      for (int k = 0; k < kEasy; ++k) offsets_[width][k] = k / width * frame.tiles_x + k % width;
    }
  }

  void write(const uint32_t* order, int64_t count) {
    constexpr int64_t kAhead = 32;
    const auto rank_of = [count](int64_t i) { return kReverse ? count - 1 - i : i; };
    for (int64_t i = 0; i < count; ++i) {
      const int64_t ahead = rank_of(std::min(i + kAhead, count - 1));
      __builtin_prefetch(&frame_.ranges[order[ahead]]);
      list(order[rank_of(i)]);
      if (size_ > kRoom - kEasy) flush();
    }
    flush();
  }

 private:
  static constexpr int kEasy = 4, kRoom = 512;

  void list(uint32_t place) {
    const TileRange range = frame_.ranges[place];
    const int y0 = std::max<int>(range.y0, first_row_), y1 = std::min<int>(range.y1, last_row_);
    const int width = range.x1 - range.x0, height = std::max(y1 - y0, 0);
    const int count = width * height, first = y0 * frame_.tiles_x + range.x0;
    const uint32_t slot =
        kWithSlots ? slot_starts_[place] + static_cast<uint32_t>((y0 - range.y0) * width) : 0;
    if (count <= kEasy && !range.narrow) {
      const uint32_t* offsets = offsets_[std::min(width, kEasy)];
      for (int k = 0; k < kEasy; ++k) {
        tiles_[size_ + k] = static_cast<uint32_t>(first) + offsets[k];
        places_[size_ + k] = place;
        if (kWithSlots) of_slots_[size_ + k] = slot + k;
      }
      size_ += count;
      return;
    }
    uint32_t k = 0;
    for (int y = y0; y < y1; ++y) {
      for (int x = range.x0; x < range.x1; ++x, ++k) {
        if (range.narrow && !meets_tile(frame_.splats[place], x, y)) {
          if (kWithSlots) slots_[slot + k] = kNoSlot;
          continue;
        }
        tiles_[size_] = static_cast<uint32_t>(y * frame_.tiles_x + x);
        places_[size_] = place;
        if (kWithSlots) of_slots_[size_] = slot + k;
        if (++size_ > kRoom - kEasy) flush();
      }
    }
  }

  void flush() {
    for (int i = 0; i < size_; ++i) {
      uint32_t& cursor = cursors_[tiles_[i]];
      const uint32_t at = kReverse ? --cursor : cursor++;
      instances_[at] = places_[i];
      if (kWithSlots) slots_[of_slots_[i]] = at;
    }
    size_ = 0;
  }

  const Frame& frame_;
  const int first_row_, last_row_;
  const uint32_t* slot_starts_;
  uint32_t* slots_;
  uint32_t* cursors_;
  uint32_t* instances_;
  uint32_t offsets_[kEasy + 1][kEasy] = {};
  uint32_t tiles_[kRoom], places_[kRoom], of_slots_[kRoom];
  int size_ = 0;
};

uint32_t tiles_of(const TileRange& range) {
  return static_cast<uint32_t>(range.x1 - range.x0) * (range.y1 - range.y0);
}

// Rows of tiles for `parts` workers, of about equally many instances each.
void divide_rows(const Frame& frame, int parts, std::vector<int>& bounds) {
  bounds.assign(1, 0);
  const uint64_t total = frame.tile_starts[frame.tiles_x * frame.tiles_y];
  for (int row = 1; row < frame.tiles_y && static_cast<int>(bounds.size()) < parts; ++row) {
    if (frame.tile_starts[row * frame.tiles_x] >= total * bounds.size() / parts) {
      bounds.push_back(row);
    }
  }
  bounds.push_back(frame.tiles_y);
}

}  // namespace

const Kernels* find_kernels(const char* name) {
  if (std::strcmp(name, "portable") == 0) return &portable_kernels();
#if defined(__x86_64__)
  const bool avx2 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") &&
                    __builtin_cpu_supports("bmi") && __builtin_cpu_supports("bmi2");
  if (std::strcmp(name, "avx2") == 0 && avx2) return &avx2_kernels();
  if (std::strcmp(name, "avx512") == 0 && avx2 && __builtin_cpu_supports("avx512f") &&
      __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512bw") &&
      __builtin_cpu_supports("avx512dq")) {
    return &avx512_kernels();
  }
#endif
  return nullptr;
}

const Kernels& kernels() {
  const Kernels* found = chosen.load(std::memory_order_relaxed);
  if (found == nullptr) {
    found = &best_kernels();
    // Unless somebody has just chosen others.
    const Kernels* none = nullptr;
    if (!chosen.compare_exchange_strong(none, found)) found = none;
  }
  return *found;
}

void choose_kernels(const Kernels& kernels) { chosen = &kernels; }

uint32_t rasterize(const Kernels& kernels, const Request& request, const Gaussians& gaussians,
                   const Camera& camera, const ImageView& background, const ImageView& colors,
                   const ImageView& alphas, Workspace& workspace, size_t index) {
  const FlushDenormals flush;
  StopWatch watch;
  const int threads = request.threads;
  if (workspace.views.size() <= index) workspace.views.resize(index + 1);
  if (workspace.scratch.size() < static_cast<size_t>(threads)) workspace.scratch.resize(threads);
  View& view = workspace.views[index];
  Frame& frame = view.frame;
  const int64_t count = gaussians.count;
  const size_t room = static_cast<size_t>(count);
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
      frame.keep_features ? view.features.reserve(room * request.channels) : nullptr;
  frame.features = frame.keep_features ? frame.projected_features : gaussians.colors;
  frame.colors = colors;
  frame.alphas = alphas;
  frame.background = background;
  frame.splats = view.splats.reserve(room);
  frame.ranges = view.ranges.reserve(room);
  const int tiles = frame.tiles_x * frame.tiles_y;
  ThreadPool& pool = thread_pool();

  // Project, and count the instances of every tile.
  const int64_t chunks = (count + kProjectionChunk - 1) / kProjectionChunk;
  view.chunk_counts.resize(static_cast<size_t>(chunks));
  uint64_t* keys = workspace.keys.reserve(room);
  const size_t grid_size = TileCounts::size(frame);
  int32_t* grids = workspace.tile_grids.reserve(threads * grid_size);
  std::atomic<int64_t> next_chunk{0};
  std::atomic<uint32_t> bad{0};
  pool.run(threads, [&](int worker) {
    TileCounts counts(frame, grids + worker * grid_size);
    uint32_t found = 0;
    for (int64_t chunk; (chunk = next_chunk++) < chunks;) {
      const int64_t begin = chunk * kProjectionChunk;
      const int64_t end = std::min(begin + kProjectionChunk, count);
      const int64_t seen = kernels.project(frame, begin, end, &found);
      view.chunk_counts[chunk] = seen;
      for (int64_t at = begin; at < begin + seen; ++at) {
        const uint32_t place = static_cast<uint32_t>(at);
        keys[at] = depth_key(frame.splats[at].depth, place);
        counts.add(place);
      }
    }
    bad |= found;
  });
  if (bad != 0) return bad;
  watch.add_to(workspace.times.project);

  int64_t seen = 0;
  for (int64_t chunk_count : view.chunk_counts) seen += chunk_count;
  uint32_t* order = view.order.reserve(static_cast<size_t>(seen));
  sort_by_depth(keys, view.chunk_counts, kProjectionChunk, seen, threads,
                workspace.sorting[0].reserve(room + threads),
                workspace.sorting[1].reserve(room + threads), workspace.depth_sample, order);
  watch.add_to(workspace.times.sort);

  // Bin: every worker walks all splats by depth and writes the lists of its own rows of tiles.
  uint32_t* starts = view.tile_starts.reserve(static_cast<size_t>(tiles) + 1);
  const size_t entry_bytes =
      request.keep_for_backward
          ? 2 * sizeof(uint32_t) + sizeof(float) * record_size(request.channels)
          : sizeof(uint32_t);
  const uint64_t total = sum_tile_counts(frame, grids, threads, starts);
  check_list_size(total, entry_bytes);
  uint32_t* cursors = workspace.tile_cursors.reserve(2 * static_cast<size_t>(tiles));
  uint32_t* end_cursors = cursors + tiles;
  std::memcpy(cursors, starts, sizeof(uint32_t) * tiles);
  std::memcpy(end_cursors, starts + 1, sizeof(uint32_t) * tiles);
  frame.tile_starts = starts;
  uint32_t* instances = view.instances.reserve(total + kInstancesAhead);
  std::memset(instances + total, 0, sizeof(uint32_t) * kInstancesAhead);
  frame.instances = instances;
  uint32_t* slot_starts = nullptr;
  uint32_t* slots = nullptr;
  if (request.keep_for_backward) {
    slot_starts = view.slot_starts.reserve(room);
    uint64_t slot_count = 0;
    for (int64_t chunk = 0; chunk < chunks; ++chunk) {
      const int64_t begin = chunk * kProjectionChunk;
      for (int64_t at = begin; at < begin + view.chunk_counts[chunk]; ++at) {
        slot_starts[at] = static_cast<uint32_t>(slot_count);
        slot_count += tiles_of(frame.ranges[at]);
      }
    }
    check_list_size(slot_count, entry_bytes);
    slots = view.slots.reserve(slot_count);
  }
  // Rows of tiles are divided among pairs of workers; of a pair one takes the nearer half of the
  // splats and the other the farther half, from the ends of the lists.
  const std::vector<int>& rows = workspace.rows;
  divide_rows(frame, (threads + 1) / 2, workspace.rows);
  const int groups = static_cast<int>(rows.size()) - 1;
  const int64_t nearer = threads == 1 ? seen : seen / 2;
  const auto write_lists = [&]<bool kWithSlots>(int part) {
    const int group = part % groups, first = rows[group], last = rows[group + 1];
    if (part < groups) {
      InstanceLists<kWithSlots, false>(frame, first, last, slot_starts, slots, cursors, instances)
          .write(order, nearer);
    } else {
      InstanceLists<kWithSlots, true>(frame, first, last, slot_starts, slots, end_cursors,
                                      instances)
          .write(order + nearer, seen - nearer);
    }
  };
  pool.run(threads == 1 ? 1 : 2 * groups, [&](int part) {
    if (request.keep_for_backward) {
      write_lists.template operator()<true>(part);
    } else {
      write_lists.template operator()<false>(part);
    }
  });
  watch.add_to(workspace.times.bin);

  std::atomic<int> next_tile{0};
  pool.run(threads, [&](int worker) {
    for (int tile; (tile = next_tile++) < tiles;) {
      kernels.blend_tile(frame, tile, workspace.scratch[worker]);
    }
  });
  watch.add_to(workspace.times.blend);
  return 0;
}

void rasterize_backward(const Kernels& kernels, int threads, const Gaussians& gaussians,
                        const ImageView& background, const ImageView& grad_colors,
                        const ImageView& grad_alphas, const GaussianGradients& out,
                        Workspace& workspace, size_t index) {
  const FlushDenormals flush;
  StopWatch watch;
  View& view = workspace.views[index];
  Frame& frame = view.frame;
  frame.gaussians = &gaussians;
  frame.features = frame.keep_features ? frame.projected_features : gaussians.colors;
  frame.background = background;
  if (workspace.scratch.size() < static_cast<size_t>(threads)) workspace.scratch.resize(threads);
  const int tiles = frame.tiles_x * frame.tiles_y;
  const size_t size = record_size(frame.channels);
  FrameGradients gradients;
  gradients.colors = grad_colors;
  gradients.alphas = grad_alphas;
  gradients.records = workspace.instance_records.reserve(frame.tile_starts[tiles] * size);
  ThreadPool& pool = thread_pool();
  std::atomic<int> next_tile{0};
  pool.run(threads, [&](int worker) {
    for (int tile; (tile = next_tile++) < tiles;) {
      kernels.blend_tile_backward(frame, gradients, tile, workspace.scratch[worker]);
    }
  });
  watch.add_to(workspace.times.blend_backward);

  // Every splat sums its instances in one fixed order, so that threads change nothing.
  std::atomic<size_t> next_chunk{0};
  const uint32_t* slot_starts = view.slot_starts.data();
  const uint32_t* slots = view.slots.data();
  pool.run(threads, [&](int worker) {
    float* sums = workspace.scratch[worker].weights.reserve(kProjectionChunk * size);
    for (size_t chunk; (chunk = next_chunk++) < view.chunk_counts.size();) {
      const int64_t begin = static_cast<int64_t>(chunk) * kProjectionChunk;
      const int64_t count = view.chunk_counts[chunk];
      std::memset(sums, 0, sizeof(float) * count * size);
      for (int64_t at = 0; at < count; ++at) {
        const Splat& splat = frame.splats[begin + at];
        const TileRange range = frame.ranges[begin + at];
        const uint32_t* slot = slots + slot_starts[begin + at];
        for (int y = range.y0; y < range.y1; ++y) {
          for (int x = range.x0; x < range.x1; ++x, ++slot) {
            if (*slot == kNoSlot) continue;
            kernels.add_record(splat, x, y, gradients.records + *slot * size,
                               static_cast<int>(size), sums + at * size);
          }
        }
      }
      kernels.project_backward(frame, sums, begin, count, out);
    }
  });
  watch.add_to(workspace.times.project_backward);
}

}  // namespace talksplat
