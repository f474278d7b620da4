// What a device reaches at best, each measured by a kernel that does nothing else. Every kernel
// takes one structure by value.

struct MultiplyAdds {
  float* values;  // [3]: factor, term, and where a sum goes that never comes about
  long long passes;
};

struct Copy {
  const float4* source;
  float4* target;
  long long count;
};

struct Nothing {
  long long unused;
};

constexpr int kChains = 8;   // independent, so that one need not wait for another
constexpr int kUnroll = 64;  // multiply-adds of a chain in one pass

// kChains * kUnroll * passes multiply-adds per thread.
extern "C" __global__ void multiply_adds(MultiplyAdds work) {
  float sums[kChains];
#pragma unroll
  for (int chain = 0; chain < kChains; ++chain) {
    sums[chain] = static_cast<float>(threadIdx.x + chain);
  }
  // Read from memory, so that no result is known beforehand.
  const float factor = work.values[0], term = work.values[1];
  for (long long pass = 0; pass < work.passes; ++pass) {
#pragma unroll
    for (int step = 0; step < kUnroll; ++step) {
#pragma unroll
      for (int chain = 0; chain < kChains; ++chain) {
        sums[chain] = fmaf(sums[chain], factor, term);
      }
    }
  }
  float total = 0.0f;
#pragma unroll
  for (int chain = 0; chain < kChains; ++chain) {
    total += sums[chain];
  }
  if (total == -1.0f) {
    work.values[2] = total;
  }
}

// Sixteen bytes a thread, neighbours side by side.
extern "C" __global__ void copy(Copy work) {
  const long long stride = static_cast<long long>(gridDim.x) * blockDim.x;
  long long index = static_cast<long long>(blockIdx.x) * blockDim.x + threadIdx.x;
  for (; index < work.count; index += stride) {
    work.target[index] = work.source[index];
  }
}

// The least that a launch costs.
extern "C" __global__ void nothing(Nothing) {}
