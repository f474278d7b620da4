// Lets a C++ compiler take CUDA kernels as they are and run them on the host: included before the
// first line of a .cu file (g++ -x c++ -include cuda_on_host.h).
//
// A thread is a fiber. Blocks run one after the other in an order drawn from a seed; warps of a
// block overtake each other as far as barriers let them, and lanes of a warp come in any order
// between two meetings. What lacks a barrier comes out differently under another seed. Shared
// memory is filled with rubbish before every block, except where it is declared in a template,
// which g++ keeps out of the section. Not a model of time or memory order, only of what the
// programming model promises.
#pragma once

#include <cmath>
#include <cstdint>
#include <cstring>

namespace cuda_on_host {

struct Index {
  unsigned x, y, z;
};

struct Thread {
  Index thread, block;
  unsigned rank;  // in the block
};

struct Launch {
  Index grid, block;
};

extern Thread* current;
extern Launch launch;

// Where all threads of a block, or the lanes of a warp that `mask` names, meet. Everyone then reads
// what each of them brought: [rank] of the block, or [lane] of the warp.
uint64_t* meet_block(uint64_t brought);
uint64_t* meet_warp(unsigned mask, uint64_t brought);

template <class T>
uint64_t bits_of(T value) {
  static_assert(sizeof(T) <= sizeof(uint64_t));
  uint64_t out = 0;
  std::memcpy(&out, &value, sizeof(T));
  return out;
}
template <class T>
T value_of(uint64_t bits) {
  T out;
  std::memcpy(&out, &bits, sizeof(T));
  return out;
}

inline unsigned lane() { return current->rank % 32; }

template <class T>
T from_lane(unsigned mask, T value, int source) {
  const uint64_t* brought = meet_warp(mask, bits_of(value));
  const T out = value_of<T>(source >= 0 && source < 32 ? brought[source] : bits_of(value));
  return out;
}

}  // namespace cuda_on_host

#define __global__ __attribute__((visibility("default")))
#define __device__
#define __host__
#define __constant__ static
#if defined(__SANITIZE_ADDRESS__)
#define __shared__ static  // with a guarded zone around each variable, and no rubbish
#else
#define __shared__ static __attribute__((section("cuda_shared")))
#endif
#define __launch_bounds__(...)
#define __forceinline__ inline

#define threadIdx (cuda_on_host::current->thread)
#define blockIdx (cuda_on_host::current->block)
#define blockDim (cuda_on_host::launch.block)
#define gridDim (cuda_on_host::launch.grid)
inline constexpr int warpSize = 32;

inline void __syncthreads() { cuda_on_host::meet_block(0); }
inline int __syncthreads_or(int predicate) {
  const uint64_t* brought = cuda_on_host::meet_block(predicate != 0);
  const unsigned count =
      cuda_on_host::launch.block.x * cuda_on_host::launch.block.y * cuda_on_host::launch.block.z;
  uint64_t out = 0;
  for (unsigned rank = 0; rank < count; ++rank) out |= brought[rank];
  return out != 0;
}
inline int __syncthreads_count(int predicate) {
  const uint64_t* brought = cuda_on_host::meet_block(predicate != 0);
  const unsigned count =
      cuda_on_host::launch.block.x * cuda_on_host::launch.block.y * cuda_on_host::launch.block.z;
  uint64_t out = 0;
  for (unsigned rank = 0; rank < count; ++rank) out += brought[rank];
  return static_cast<int>(out);
}
inline int __syncthreads_and(int predicate) { return !__syncthreads_or(predicate == 0); }
inline void __syncwarp(unsigned mask = 0xffffffffu) { cuda_on_host::meet_warp(mask, 0); }
inline unsigned __ballot_sync(unsigned mask, int predicate) {
  const uint64_t* brought = cuda_on_host::meet_warp(mask, predicate != 0);
  unsigned out = 0;
  for (unsigned lane = 0; lane < 32; ++lane) {
    if (mask >> lane & 1 && brought[lane] != 0) out |= 1u << lane;
  }
  return out;
}
inline int __any_sync(unsigned mask, int predicate) { return __ballot_sync(mask, predicate) != 0; }
inline int __all_sync(unsigned mask, int predicate) {
  return __ballot_sync(mask, predicate) == mask;
}
template <class T>
T __shfl_sync(unsigned mask, T value, int source, int = 32) {
  return cuda_on_host::from_lane(mask, value, source % 32);
}
template <class T>
T __shfl_up_sync(unsigned mask, T value, unsigned delta, int = 32) {
  return cuda_on_host::from_lane(mask, value, static_cast<int>(cuda_on_host::lane() - delta));
}
template <class T>
T __shfl_down_sync(unsigned mask, T value, unsigned delta, int = 32) {
  return cuda_on_host::from_lane(mask, value, static_cast<int>(cuda_on_host::lane() + delta));
}
template <class T>
T __shfl_xor_sync(unsigned mask, T value, int flip, int = 32) {
  return cuda_on_host::from_lane(mask, value, static_cast<int>(cuda_on_host::lane()) ^ flip);
}

template <class T>
T atomicAdd(T* at, T value) {
  const T old = *at;
  *at = old + value;
  return old;
}
template <class T>
T atomicMax(T* at, T value) {
  const T old = *at;
  if (old < value) *at = value;
  return old;
}
template <class T>
T atomicMin(T* at, T value) {
  const T old = *at;
  if (value < old) *at = value;
  return old;
}
template <class T>
T atomicOr(T* at, T value) {
  const T old = *at;
  *at = old | value;
  return old;
}
template <class T>
T atomicExch(T* at, T value) {
  const T old = *at;
  *at = value;
  return old;
}
template <class T>
T atomicCAS(T* at, T expected, T value) {
  const T old = *at;
  if (old == expected) *at = value;
  return old;
}
inline void __threadfence() {}
inline void __threadfence_block() {}

inline int __popc(unsigned x) { return __builtin_popcount(x); }
inline int __ffs(int x) { return __builtin_ffs(x); }
inline int __clz(int x) { return x == 0 ? 32 : __builtin_clz(static_cast<unsigned>(x)); }
inline unsigned __float_as_uint(float x) {
  return cuda_on_host::value_of<unsigned>(cuda_on_host::bits_of(x));
}
inline float __uint_as_float(unsigned x) {
  return cuda_on_host::value_of<float>(cuda_on_host::bits_of(x));
}
inline int __float_as_int(float x) { return static_cast<int>(__float_as_uint(x)); }
inline float __int_as_float(int x) { return __uint_as_float(static_cast<unsigned>(x)); }
template <class T>
T __ldg(const T* at) {
  return *at;
}
