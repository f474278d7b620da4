// The size of what a kernel takes: what the driver reads from the compiled kernel.
#include <cstddef>
#include <cstring>

#include "../../../plugins/compositing/compositing.h"
#include "../../../plugins/gaussian_rasterizer/cuda/frame_arguments.h"

using namespace talksplat::compositing;

extern "C" __attribute__((visibility("default"))) size_t
talksplat_host_argument_bytes(const char* kernel) {
  if (std::strcmp(kernel, "unpack_picture") == 0) return sizeof(Unpacking);
  if (std::strcmp(kernel, "pack_picture") == 0) return sizeof(Packing);
  if (std::strncmp(kernel, "dilate_", 7) == 0) return sizeof(Dilation);
  if (std::strcmp(kernel, "lay_over") == 0) return sizeof(Layering);
  if (std::strcmp(kernel, "cover") == 0) return sizeof(Covering);
  return sizeof(talksplat::cuda::FrameArguments);
}
