// The handshake of TensorRT's plugin library without the plugin: what is asked of it before any
// TensorRT has to be there. Compiled with -DMAJOR=11 it is for TensorRT 11.
#include "../../../plugins/gaussian_rasterizer/tensorrt/talksplat_tensorrt_plugin.h"

#define EXPORT extern "C" __attribute__((visibility("default")))

EXPORT int32_t talksplat_tensorrt_plugin_info(talksplat_tensorrt_plugin_facts* facts, size_t size) {
  if (size != sizeof(*facts)) return TALKSPLAT_TENSORRT_PLUGIN_OTHER_ABI;
  *facts = {TALKSPLAT_TENSORRT_PLUGIN_ABI, MAJOR * 10000 + 400, 13000, "0.1.0", "89-real"};
  return TALKSPLAT_TENSORRT_PLUGIN_OK;
}

EXPORT int32_t talksplat_tensorrt_plugin_check(int32_t version) {
  return version / 10000 == MAJOR ? TALKSPLAT_TENSORRT_PLUGIN_OK
                                  : TALKSPLAT_TENSORRT_PLUGIN_OTHER_MAJOR;
}

EXPORT const char* talksplat_tensorrt_plugin_last_error(void) {
  return "this plugin is for another major version of TensorRT";
}
