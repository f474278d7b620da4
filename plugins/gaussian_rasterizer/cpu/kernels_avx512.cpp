#define TALKSPLAT_ISA avx512
#include "kernels_impl.h"

namespace talksplat {

const Kernels& avx512_kernels() {
  using namespace avx512;
  static constexpr Kernels kernels = {
      "avx512",   project_range,          blend_tile, blend_tile_backward,
      add_record, project_backward_range, to_uint8};
  return kernels;
}

}  // namespace talksplat
