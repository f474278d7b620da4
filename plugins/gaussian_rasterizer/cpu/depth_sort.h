// Places of splats by depth, equal depths by place: a radix sort of (depth, place) keys in as many
// independent parts as there are threads.
#pragma once

#include <algorithm>
#include <array>
#include <cstdint>
#include <cstring>
#include <utility>
#include <vector>

#include "buffer.h"
#include "thread_pool.h"

namespace talksplat {

// Positive floats sort like their bits.
inline uint64_t depth_key(float depth, uint32_t place) {
  uint32_t bits;
  std::memcpy(&bits, &depth, sizeof(bits));
  return static_cast<uint64_t>(bits) << 32 | place;
}

// Stable, least significant digit first, over the bits in which the depths differ. `from` and `to`
// [count] are both overwritten; the places go to `order`.
inline void radix_sort(uint64_t* from, uint64_t* to, int64_t count, uint32_t* order) {
  constexpr int kBits = 11, kBuckets = 1 << kBits, kMaxPasses = 3;
  if (count == 0) return;
  uint32_t least = UINT32_MAX, most = 0;
  for (int64_t i = 0; i < count; ++i) {
    const uint32_t depth = static_cast<uint32_t>(from[i] >> 32);
    least = std::min(least, depth);
    most = std::max(most, depth);
  }
  int passes = 1;
  while (passes < kMaxPasses && (most - least) >> (passes * kBits) != 0) ++passes;
  std::array<std::array<uint32_t, kBuckets>, kMaxPasses> starts;
  for (int pass = 0; pass < passes; ++pass) starts[pass].fill(0);
  const auto digit = [least](uint64_t key, int pass) {
    return (static_cast<uint32_t>(key >> 32) - least) >> (pass * kBits) & (kBuckets - 1);
  };
  for (int64_t i = 0; i < count; ++i) {
    for (int pass = 0; pass < passes; ++pass) ++starts[pass][digit(from[i], pass)];
  }
  for (int pass = 0; pass < passes; ++pass) {
    uint32_t start = 0;
    for (uint32_t& bucket : starts[pass]) start += std::exchange(bucket, start);
  }
  for (int pass = 0; pass < passes - 1; ++pass) {
    for (int64_t i = 0; i < count; ++i) to[starts[pass][digit(from[i], pass)]++] = from[i];
    std::swap(from, to);
  }
  for (int64_t i = 0; i < count; ++i) {
    order[starts[passes - 1][digit(from[i], passes - 1)]++] = static_cast<uint32_t>(from[i]);
  }
}

// `keys` come in runs: `runs[r]` of them from r * run_length. Every thread takes a range of depths.
// `first` and `second` [total + threads] and `sample` are room to work in.
inline void sort_by_depth(const uint64_t* keys, const std::vector<int64_t>& runs,
                          int64_t run_length, int64_t total, int threads, uint64_t* first,
                          uint64_t* second, std::vector<uint64_t>& sample, uint32_t* order) {
  const auto for_each_key = [&](const auto& visit) {
    for (size_t run = 0; run < runs.size(); ++run) {
      const uint64_t* key = keys + static_cast<int64_t>(run) * run_length;
      for (const uint64_t* end = key + runs[run]; key != end; ++key) visit(*key);
    }
  };
  constexpr int64_t kWorthAThread = 8192;
  const int parts = static_cast<int>(std::clamp<int64_t>(total / kWorthAThread, 1, threads));
  // Quantiles of a sample divide the depths; how well they do changes the time, not the order.
  constexpr int kSamplesPerPart = 64;
  sample.clear();
  if (parts > 1) {
    const int64_t step = total / (static_cast<int64_t>(parts) * kSamplesPerPart);
    for (size_t run = 0; run < runs.size(); ++run) {
      for (int64_t i = 0; i < runs[run]; i += step) {
        sample.push_back(keys[static_cast<int64_t>(run) * run_length + i]);
      }
    }
    std::sort(sample.begin(), sample.end());
  }
  thread_pool().run(parts, [&](int part) {
    const auto bound = [&](int i) {
      return i == 0 ? 0 : i == parts ? UINT64_MAX : sample[sample.size() * i / parts];
    };
    const uint64_t low = bound(part), high = bound(part + 1);
    int64_t start = 0;
    for_each_key([&](uint64_t key) { start += key < low; });
    // Every key is written and only some are kept; the one too many stays clear of the next part.
    const int64_t own = start + part;
    uint64_t* out = first + own;
    for_each_key([&](uint64_t key) {
      *out = key;
      out += (key >= low) & (key < high);
    });
    radix_sort(first + own, second + own, out - (first + own), order + start);
  });
}

}  // namespace talksplat
