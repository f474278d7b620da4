#include "api.h"

namespace talksplat::onnxruntime {
namespace {

bool succeeded(const OrtApi& api, OrtStatus* status) {
  if (status == nullptr) return true;
  api.ReleaseStatus(status);
  return false;
}

}  // namespace

std::string describe(const Shape& shape) {
  std::string text = "[";
  for (size_t axis = 0; axis < shape.size(); ++axis) {
    text += (axis == 0 ? "" : ", ") + std::to_string(shape[axis]);
  }
  return text + "]";
}

Tensor<const float> input(const OrtApi& api, const OrtKernelContext* context, size_t index) {
  const OrtValue* value = nullptr;
  check(api, api.KernelContext_GetInput(context, index, &value));
  OrtTensorTypeAndShapeInfo* info = nullptr;
  check(api, api.GetTensorTypeAndShape(value, &info));
  size_t axes = 0;
  OrtStatus* status = api.GetDimensionsCount(info, &axes);
  Tensor<const float> tensor;
  tensor.shape.resize(axes);
  if (status == nullptr) status = api.GetDimensions(info, tensor.shape.data(), axes);
  api.ReleaseTensorTypeAndShapeInfo(info);
  check(api, status);
  // The API has no accessor of its own for reading.
  void* data = nullptr;
  check(api, api.GetTensorMutableData(const_cast<OrtValue*>(value), &data));
  tensor.data = static_cast<const float*>(data);
  return tensor;
}

int64_t Attributes::integer(const char* name, int64_t otherwise) const {
  if (int64_t value; read(name, value)) return value;
  refuse_other_types(name, "an integer");
  return otherwise;
}

float Attributes::number(const char* name, float otherwise) const {
  if (float value; read(name, value)) return value;
  refuse_other_types(name, "a float");
  return otherwise;
}

std::string Attributes::text(const char* name, const std::string& otherwise) const {
  if (std::string value; read(name, value)) return value;
  refuse_other_types(name, "a string");
  return otherwise;
}

bool Attributes::read(const char* name, int64_t& value) const {
  return succeeded(api_, api_.KernelInfoGetAttribute_int64(info_, name, &value));
}

bool Attributes::read(const char* name, float& value) const {
  return succeeded(api_, api_.KernelInfoGetAttribute_float(info_, name, &value));
}

bool Attributes::read(const char* name, std::string& value) const {
  size_t size = 0;  // with the zero at the end
  if (!succeeded(api_, api_.KernelInfoGetAttribute_string(info_, name, nullptr, &size))) {
    return false;
  }
  value.resize(size);
  check(api_, api_.KernelInfoGetAttribute_string(info_, name, value.data(), &size));
  value.resize(size - 1);
  return true;
}

void Attributes::refuse_other_types(const char* name, const char* expected) const {
  // The API does not say whether an attribute is missing or of another type.
  int64_t integer;
  float number;
  std::string text;
  const char* found = read(name, integer)  ? "an integer"
                      : read(name, number) ? "a float"
                      : read(name, text)   ? "a string"
                                           : nullptr;
  if (found == nullptr) return;
  refuse(std::string("GaussianRasterize: the attribute ") + name + " expects " + expected +
         ", found " + found + ".");
}

}  // namespace talksplat::onnxruntime
