// Kernels that do on purpose what the host must notice, or that put one part of the rasterizer to
// work alone.
#include "gaussian_rasterizer/cuda/sorting.cuh"

struct Numbers {
  unsigned* out;
  unsigned long long count;
  unsigned long long unused;
};

// out[i] = the neighbour's number, with no barrier between writing and reading.
extern "C" __global__ void probe_race(const Numbers numbers) {
  __shared__ unsigned ranks[128];
  ranks[threadIdx.x] = threadIdx.x;
  numbers.out[threadIdx.x] = ranks[(threadIdx.x + 1) % 128];
}

// The same, right.
extern "C" __global__ void probe_barrier(const Numbers numbers) {
  __shared__ unsigned ranks[128];
  ranks[threadIdx.x] = threadIdx.x;
  __syncthreads();
  numbers.out[threadIdx.x] = ranks[(threadIdx.x + 1) % 128];
}

// Warps trust each other's lanes without a word, too: what a lane wrote is read by the next one.
extern "C" __global__ void probe_warp_race(const Numbers numbers) {
  __shared__ unsigned ranks[32];
  ranks[threadIdx.x] = threadIdx.x;
  numbers.out[threadIdx.x] = ranks[(threadIdx.x + 1) % 32];
}

// One half waits for the block, the other for its warp.
extern "C" __global__ void probe_deadlock(const Numbers numbers) {
  if (threadIdx.x % 2 == 0) {
    __syncthreads();
  } else {
    __syncwarp();
  }
  numbers.out[threadIdx.x] = 1;
}

// A lane that has ended is asked for its vote.
extern "C" __global__ void probe_absent_lane(const Numbers numbers) {
  if (threadIdx.x == 5) return;
  numbers.out[threadIdx.x] = __any_sync(0xffffffffu, 1);
}

// What nobody wrote to shared memory.
extern "C" __global__ void probe_rubbish(const Numbers numbers) {
  __shared__ unsigned words[32];
  numbers.out[threadIdx.x] = words[threadIdx.x];
}

// Everything that passes between lanes.
extern "C" __global__ void probe_lanes(const Numbers numbers) {
  const unsigned lane = threadIdx.x % 32;
  unsigned* out = numbers.out + 8 * threadIdx.x;
  out[0] = __ballot_sync(0xffffffffu, lane % 3 == 0);
  out[1] = __shfl_sync(0xffffffffu, 100 + threadIdx.x, 7);
  out[2] = __shfl_up_sync(0xffffffffu, threadIdx.x, 2);
  out[3] = __any_sync(0xffffffffu, threadIdx.x == 40);
  out[4] = __syncthreads_or(threadIdx.x == 63);
  out[5] = atomicAdd(numbers.out + 8 * 64, 1u) < 64;
  out[6] = blockIdx.x + gridDim.x * blockDim.x;
  out[7] = __ffs(8) + __popc(255);
}

struct Keys {
  unsigned long long* keys;
  unsigned long long count;
  unsigned long long unused;
};

extern "C" __global__ void __launch_bounds__(256) probe_sort(const Keys keys) {
  talksplat::cuda::sort_list(reinterpret_cast<uint64_t*>(keys.keys),
                             static_cast<uint32_t>(keys.count));
}
