// The TensorRT in this process, found without being linked to it.
#pragma once

#include <cstdint>
#include <string>

namespace talksplat::tensorrt {

// What getInferLibVersion() answers; 0 if no libnvinfer is loaded, or it cannot be found.
int32_t running_version() noexcept;

// A function that libnvinfer exports; nullptr if there is none.
void* find_in_tensorrt(const char* symbol) noexcept;

// "10.13.2"
std::string version_text(int32_t version);

}  // namespace talksplat::tensorrt
