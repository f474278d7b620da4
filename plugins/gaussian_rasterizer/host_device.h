// One spelling for functions that the CPU kernels and the CUDA kernels share.
#pragma once

#if defined(__CUDACC_RTC__)
// NVRTC has the mathematical functions at hand and no standard headers.
using int32_t = int;
using uint16_t = unsigned short;
using uint32_t = unsigned int;
using int64_t = long long;
using uint64_t = unsigned long long;
#else
#include <cmath>
#include <cstdint>
#endif

#if defined(__CUDACC__)
#define TALKSPLAT_HOST_DEVICE __host__ __device__ __forceinline__
#else
// always_inline also keeps one translation unit's instruction set out of another's: no weak symbol
// compiled for AVX-512 can be picked by the linker for a machine that has none.
#define TALKSPLAT_HOST_DEVICE inline __attribute__((always_inline))
#endif
