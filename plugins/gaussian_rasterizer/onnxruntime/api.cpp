#include "api.h"

#include <limits>

namespace talksplat::onnxruntime {
namespace {

class NodeAttributes {
 public:
  NodeAttributes(const OrtApi& api, const OrtKernelInfo* info) : api_(api), info_(info) {}

  // Leaves `value` as it is if there is no such attribute.
  template <class T>
  void take(const char* name, T& value) const {
    if (read(name, value)) return;
    if (is_missing(name)) return;
    int32_t integer;
    float number;
    std::string text;
    const char* found = read(name, integer)  ? "an integer"
                        : read(name, number) ? "a float"
                        : read(name, text)   ? "a string"
                                             : "a list, a tensor or a graph";
    throw std::invalid_argument(std::string(name) + ": expected " + type_name(value) + ", found " +
                                found);
  }

 private:
  static const char* type_name(int32_t) { return "an integer"; }
  static const char* type_name(float) { return "a float"; }
  static const char* type_name(const std::string&) { return "a string"; }

  bool read(const char* name, int32_t& value) const {
    int64_t whole = 0;
    if (!succeeded(api_.KernelInfoGetAttribute_int64(info_, name, &whole))) return false;
    using Limits = std::numeric_limits<int32_t>;
    if (whole < Limits::min() || whole > Limits::max()) {
      throw std::invalid_argument(std::string(name) + ": expected 32 bits, found " +
                                  std::to_string(whole));
    }
    value = static_cast<int32_t>(whole);
    return true;
  }

  bool read(const char* name, float& value) const {
    return succeeded(api_.KernelInfoGetAttribute_float(info_, name, &value));
  }

  bool read(const char* name, std::string& value) const {
    size_t size = 0;  // with the zero at the end
    if (!succeeded(api_.KernelInfoGetAttribute_string(info_, name, nullptr, &size))) return false;
    std::string text(size, '\0');
    check(api_, api_.KernelInfoGetAttribute_string(info_, name, text.data(), &size));
    value = text.substr(0, size - 1);
    return true;
  }

  // The API only says that there is no such attribute of the type that was asked for, in words:
  // they are those for an attribute that no node has, but for the name.
  bool is_missing(const std::string& name) const {
    const std::string nowhere = "an attribute of no node";
    std::string words = refusal(nowhere);
    for (size_t at = 0; (at = words.find(nowhere, at)) != std::string::npos; at += name.size()) {
      words.replace(at, nowhere.size(), name);
    }
    return refusal(name) == words;
  }

  // Why `name` cannot be read as an integer; empty if it can.
  std::string refusal(const std::string& name) const {
    int64_t unused = 0;
    OrtStatus* status = api_.KernelInfoGetAttribute_int64(info_, name.c_str(), &unused);
    if (status == nullptr) return "";
    const std::string words = api_.GetErrorMessage(status);
    api_.ReleaseStatus(status);
    return words;
  }

  bool succeeded(OrtStatus* status) const {
    if (status == nullptr) return true;
    api_.ReleaseStatus(status);
    return false;
  }

  const OrtApi& api_;
  const OrtKernelInfo* info_;
};

op::Shape shape_of(const OrtApi& api, const OrtValue* value) {
  OrtTensorTypeAndShapeInfo* info = nullptr;
  check(api, api.GetTensorTypeAndShape(value, &info));
  size_t axes = 0;
  op::Shape shape;
  OrtStatus* status = api.GetDimensionsCount(info, &axes);
  if (status == nullptr) {
    shape.resize(axes);
    status = api.GetDimensions(info, shape.data(), axes);
  }
  api.ReleaseTensorTypeAndShapeInfo(info);
  check(api, status);
  return shape;
}

template <class T>
T* output(const OrtApi& api, OrtKernelContext* context, size_t index, const op::Shape& shape) {
  OrtValue* value = nullptr;
  check(api, api.KernelContext_GetOutput(context, index, shape.data(), shape.size(), &value));
  void* data = nullptr;
  check(api, api.GetTensorMutableData(value, &data));
  return static_cast<T*>(data);
}

}  // namespace

op::Attributes attributes_of(const OrtApi& api, const OrtKernelInfo* info) {
  const NodeAttributes node(api, info);
  op::Attributes attributes;
  for (const op::Attribute& attribute : op::kAttributes) {
    std::visit([&](auto member) { node.take(attribute.name, attributes.*member); },
               attribute.member);
  }
  return attributes;
}

Inputs inputs_of(const OrtApi& api, const OrtKernelContext* context) {
  Inputs inputs;
  for (size_t index = 0; index < op::kInputs; ++index) {
    const OrtValue* value = nullptr;
    check(api, api.KernelContext_GetInput(context, index, &value));
    inputs.shapes[index] = shape_of(api, value);
    // The API has no accessor of its own for reading.
    void* data = nullptr;
    check(api, api.GetTensorMutableData(const_cast<OrtValue*>(value), &data));
    inputs.data[index] = static_cast<const float*>(data);
  }
  return inputs;
}

Outputs outputs_of(const OrtApi& api, OrtKernelContext* context, const op::Settings& settings,
                   const op::Sizes& sizes) {
  const op::Shape colors = {sizes.cameras, sizes.blended(settings), sizes.height, sizes.width};
  const op::Shape alphas = {sizes.cameras, 1, sizes.height, sizes.width};
  return {output<float>(api, context, op::kOutColors, colors),
          output<float>(api, context, op::kOutAlphas, alphas),
          output<int32_t>(api, context, op::kOutStatus, {4})};
}

}  // namespace talksplat::onnxruntime
