// What the operator needs of ONNX Runtime's C API. Within the library errors are exceptions; they
// become OrtStatus where ONNX Runtime calls in.
#pragma once

#include <onnxruntime_c_api.h>

#include <array>
#include <new>
#include <stdexcept>
#include <string>

#include "../operator.h"

namespace talksplat::onnxruntime {

// The oldest version of the API with everything that is called here, so that every later ONNX
// Runtime will do, whatever headers this was compiled with.
inline constexpr uint32_t kApiVersion = 17;

// An error of ONNX Runtime's own.
class RuntimeError : public std::runtime_error {
 public:
  RuntimeError(OrtErrorCode code, const std::string& message)
      : std::runtime_error(message), code(code) {}
  OrtErrorCode code;
};

inline void check(const OrtApi& api, OrtStatus* status) {
  if (status == nullptr) return;
  const RuntimeError error(api.GetErrorCode(status), api.GetErrorMessage(status));
  api.ReleaseStatus(status);
  throw error;
}

// Runs `work`; what it throws becomes the status.
template <class Work>
OrtStatus* as_status(const OrtApi& api, const Work& work) noexcept {
  try {
    work();
    return nullptr;
  } catch (const RuntimeError& error) {
    return api.CreateStatus(error.code, error.what());
  } catch (const std::invalid_argument& error) {
    return api.CreateStatus(ORT_INVALID_ARGUMENT, error.what());
  } catch (const std::bad_alloc&) {
    return api.CreateStatus(ORT_FAIL, "GaussianRasterize ran out of memory.");
  } catch (const std::exception& error) {
    return api.CreateStatus(ORT_FAIL, error.what());
  }
}

// The attributes of a node. What is not there has its default; throws std::invalid_argument if one
// has another type.
op::Attributes attributes_of(const OrtApi& api, const OrtKernelInfo* info);

// The inputs of a running kernel, all float32, where the execution provider keeps them.
struct Inputs {
  std::array<op::Shape, op::kInputs> shapes;
  std::array<const float*, op::kInputs> data;
};

Inputs inputs_of(const OrtApi& api, const OrtKernelContext* context);

// Its outputs, made for these sizes.
struct Outputs {
  float* colors;
  float* alphas;
  int32_t* status;
};

Outputs outputs_of(const OrtApi& api, OrtKernelContext* context, const op::Settings& settings,
                   const op::Sizes& sizes);

}  // namespace talksplat::onnxruntime
