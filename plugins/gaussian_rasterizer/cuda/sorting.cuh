// The list of a tile by (depth, Gaussian): a bitonic network whose comparators all point the same
// way (Batcher 1968, in the form that begins every merge by comparing mirrored places), so that a
// list of any length is sorted as if endless keys followed it.
#pragma once

#include "device.cuh"

namespace talksplat::cuda {
namespace {

constexpr uint32_t kSortRoom = 2048;  // keys in shared memory; longer lists are merged in global

// Which two places a comparator looks at: it is one of `half` in a block of 2 * half places, half a
// power of two.
struct Mirrored {
  __device__ static __forceinline__ uint32_t second(uint32_t begin, uint32_t offset,
                                                    uint32_t half) {
    return begin + 2 * half - 1 - offset;
  }
};
struct Shifted {
  __device__ static __forceinline__ uint32_t second(uint32_t begin, uint32_t offset,
                                                    uint32_t half) {
    return begin + half + offset;
  }
};

// One step of the network over keys [count].
template <class Second>
__device__ __forceinline__ void compare(uint64_t* keys, uint32_t count, uint32_t half) {
#pragma unroll 1
  for (uint32_t i = threadIdx.x;; i += kSortThreads) {
    const uint32_t offset = i & (half - 1), begin = 2 * (i - offset);
    if (begin >= count) return;
    const uint32_t a = begin + offset, b = Second::second(begin, offset, half);
    if (b >= count) continue;
    const uint64_t first = keys[a], second = keys[b];
    if (second < first) {
      keys[a] = second;
      keys[b] = first;
    }
  }
}

// Between two steps of which the wider has this `half`: up to 32, a warp keeps to 64 places of its
// own.
__device__ __forceinline__ void settle(uint32_t half) {
  if (half <= kWarp) {
    __syncwarp();
  } else {
    __syncthreads();
  }
}

// The steps from `half` down to 1; then one of `next` follows.
__device__ __forceinline__ void merge_down(uint64_t* keys, uint32_t count, uint32_t half,
                                           uint32_t next) {
#pragma unroll 1
  for (; half > 0; half /= 2) {
    compare<Shifted>(keys, count, half);
    settle(half > 1 ? half : next);
  }
}

__device__ __forceinline__ void sort_keys(uint64_t* keys, uint32_t count) {
#pragma unroll 1
  for (uint32_t half = 1; half < count; half *= 2) {
    compare<Mirrored>(keys, count, half);
    settle(half > 1 ? half : 2);
    merge_down(keys, count, half / 2, 2 * half);
  }
}

__device__ __forceinline__ void copy_keys(const uint64_t* from, uint64_t* to, uint32_t count) {
  for (uint32_t i = threadIdx.x; i < count; i += kSortThreads) to[i] = from[i];
  __syncthreads();
}

// Brings every kSortRoom keys to shared memory, calls change(keys, count) there, and back.
template <class Change>
__device__ __forceinline__ void for_each_part(uint64_t* keys, uint32_t count, uint64_t* room,
                                              const Change& change) {
  for (uint32_t begin = 0; begin < count; begin += kSortRoom) {
    const uint32_t size = count - begin < kSortRoom ? count - begin : kSortRoom;
    copy_keys(keys + begin, room, size);
    change(room, size);
    __syncthreads();
    copy_keys(room, keys + begin, size);
  }
}

// All threads of a block of kSortThreads come here.
__device__ __forceinline__ void sort_list(uint64_t* keys, uint32_t count) {
  __shared__ uint64_t room[kSortRoom];
  if (count < 2) return;
  for_each_part(keys, count, room, [](uint64_t* part, uint32_t size) { sort_keys(part, size); });
  for (uint32_t half = kSortRoom; half < count; half *= 2) {
    compare<Mirrored>(keys, count, half);
    __syncthreads();
    for (uint32_t step = half / 2; step >= kSortRoom; step /= 2) {
      compare<Shifted>(keys, count, step);
      __syncthreads();
    }
    for_each_part(keys, count, room,
                  [](uint64_t* part, uint32_t size) { merge_down(part, size, kSortRoom / 2, 1); });
  }
}

__device__ __forceinline__ void sort_tile(const FrameArguments& frame) {
  const TileList list = list_of_tile(frame, blockIdx.y, blockIdx.x);
  sort_list(frame.pairs + static_cast<int64_t>(blockIdx.y) * frame.room + list.begin,
            list.end - list.begin);
}

}  // namespace
}  // namespace talksplat::cuda
