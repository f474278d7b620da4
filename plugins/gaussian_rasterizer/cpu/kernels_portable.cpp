#define TALKSPLAT_ISA portable
#include "kernels_impl.h"

namespace talksplat {

const Kernels& portable_kernels() {
  using namespace portable;
  static constexpr Kernels kernels = {
      "portable", project_range,          blend_tile, blend_tile_backward,
      add_record, project_backward_range, to_uint8};
  return kernels;
}

}  // namespace talksplat
