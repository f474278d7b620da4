#define TALKSPLAT_ISA avx2
#include "kernels_impl.h"

namespace talksplat {

const Kernels& avx2_kernels() {
  using namespace avx2;
  static constexpr Kernels kernels = {
      "avx2",     project_range,          blend_tile, blend_tile_backward,
      add_record, project_backward_range, to_uint8};
  return kernels;
}

}  // namespace talksplat
