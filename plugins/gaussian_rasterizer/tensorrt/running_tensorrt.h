// The TensorRT in this process, found without being linked to it.
#pragma once

#include <cstdint>
#include <string>

namespace talksplat::tensorrt {

// What getInferLibVersion() answers in the library that holds `caller`, or, if that is no TensorRT,
// in the TensorRT of this process; 0 if there is none, or it cannot be found. There may be several:
// a version-compatible engine brings the runtime of the TensorRT that built it.
int32_t running_version(const void* caller = nullptr) noexcept;

// A function that libnvinfer exports; nullptr if there is none.
void* find_in_tensorrt(const char* symbol) noexcept;

// "10.13.2"
std::string version_text(int32_t version);

}  // namespace talksplat::tensorrt
