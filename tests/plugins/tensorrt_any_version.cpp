// In place of tensorrt/running_tensorrt.cpp: whoever asks is the TensorRT of the headers.
#include <NvInferRuntime.h>

#include "tensorrt/running_tensorrt.h"

namespace talksplat::tensorrt {

int32_t running_version(const void*) noexcept { return NV_TENSORRT_VERSION; }

void* find_in_tensorrt(const char*) noexcept { return nullptr; }

std::string version_text(int32_t version) { return std::to_string(version); }

}  // namespace talksplat::tensorrt
