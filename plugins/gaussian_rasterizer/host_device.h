// One spelling for functions that the CPU kernels and the CUDA kernels share.
#pragma once

#if defined(__CUDACC__)
#define TALKSPLAT_HOST_DEVICE __host__ __device__ __forceinline__
#else
// always_inline also keeps one translation unit's instruction set out of another's: no weak symbol
// compiled for AVX-512 can be picked by the linker for a machine that has none.
#define TALKSPLAT_HOST_DEVICE inline __attribute__((always_inline))
#endif
