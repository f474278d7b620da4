// What the operator needs of ONNX Runtime's C API. Within the library errors are exceptions; they
// become OrtStatus where ONNX Runtime calls in.
#pragma once

#include <onnxruntime_c_api.h>

#include <cstdint>
#include <stdexcept>
#include <string>
#include <vector>

namespace talksplat::onnxruntime {

// The oldest version of the API with everything that is called here, so that every later ONNX
// Runtime will do, whatever headers this was compiled with.
inline constexpr uint32_t kApiVersion = 17;

inline constexpr const char* kDomain = "talksplat";
inline constexpr const char* kOperator = "GaussianRasterize";

class Error : public std::runtime_error {
 public:
  Error(OrtErrorCode code, const std::string& message) : std::runtime_error(message), code(code) {}
  OrtErrorCode code;
};

[[noreturn]] inline void refuse(const std::string& sentence) {
  throw Error(ORT_INVALID_ARGUMENT, sentence);
}

inline void check(const OrtApi& api, OrtStatus* status) {
  if (status == nullptr) return;
  const Error error(api.GetErrorCode(status), api.GetErrorMessage(status));
  api.ReleaseStatus(status);
  throw error;
}

// Runs `work`; what it throws becomes the status.
template <class Work>
OrtStatus* as_status(const OrtApi& api, const Work& work) noexcept {
  try {
    work();
    return nullptr;
  } catch (const Error& error) {
    return api.CreateStatus(error.code, error.what());
  } catch (const std::exception& error) {
    return api.CreateStatus(ORT_FAIL, error.what());
  }
}

using Shape = std::vector<int64_t>;

// "[2, 3]", for messages.
std::string describe(const Shape& shape);

// A tensor of a running kernel; `data` is where the execution provider keeps it.
template <class T>
struct Tensor {
  Shape shape;
  T* data = nullptr;
};

Tensor<const float> input(const OrtApi& api, const OrtKernelContext* context, size_t index);

template <class T>
T* output(const OrtApi& api, OrtKernelContext* context, size_t index, const Shape& shape) {
  OrtValue* value = nullptr;
  check(api, api.KernelContext_GetOutput(context, index, shape.data(), shape.size(), &value));
  void* data = nullptr;
  check(api, api.GetTensorMutableData(value, &data));
  return static_cast<T*>(data);
}

// The attributes of one node. An attribute that is not there has its default; one of another type
// is refused.
class Attributes {
 public:
  Attributes(const OrtApi& api, const OrtKernelInfo* info) : api_(api), info_(info) {}

  int64_t integer(const char* name, int64_t otherwise) const;
  float number(const char* name, float otherwise) const;
  std::string text(const char* name, const std::string& otherwise) const;

 private:
  bool read(const char* name, int64_t& value) const;
  bool read(const char* name, float& value) const;
  bool read(const char* name, std::string& value) const;
  void refuse_other_types(const char* name, const char* expected) const;

  const OrtApi& api_;
  const OrtKernelInfo* info_;
};

}  // namespace talksplat::onnxruntime
