#include "plugin_fields.h"

#include <algorithm>
#include <cstring>
#include <iterator>
#include <limits>
#include <stdexcept>
#include <type_traits>

namespace talksplat::tensorrt {
namespace {

using nvinfer1::PluginField;
using nvinfer1::PluginFieldType;

template <class T>
constexpr PluginFieldType kTypeOf = std::is_same_v<T, int32_t> ? PluginFieldType::kINT32
                                    : std::is_same_v<T, float> ? PluginFieldType::kFLOAT32
                                                               : PluginFieldType::kCHAR;

const char* name_of(PluginFieldType type) {
  static constexpr const char* kNames[] = {"float16", "float32", "float64", "int8",    "int16",
                                           "int32",   "char",    "Dims",    "unknown", "bfloat16",
                                           "int64",   "fp8",     "int4",    "fp4"};
  const auto index = static_cast<size_t>(type);
  return index < std::size(kNames) ? kNames[index] : "a type of a later TensorRT";
}

[[noreturn]] void refuse(const std::string& sentence) { throw std::invalid_argument(sentence); }

[[noreturn]] void refuse_type(const PluginField& field, const char* expected) {
  refuse(std::string(field.name) + ": expected " + expected + ", found " +
         std::to_string(field.length) + " of type " + name_of(field.type));
}

template <class Stored>
Stored load(const PluginField& field) {
  Stored value;
  std::memcpy(&value, field.data, sizeof(value));  // TensorRT promises no alignment
  return value;
}

void read(const PluginField& field, int32_t& value) {
  if (field.length == 1 && field.type == PluginFieldType::kINT32) {
    value = load<int32_t>(field);
    return;
  }
  if (field.length != 1 || field.type != PluginFieldType::kINT64) refuse_type(field, "one int32");
  const auto wide = load<int64_t>(field);
  if (wide < std::numeric_limits<int32_t>::min() || wide > std::numeric_limits<int32_t>::max()) {
    refuse(std::string(field.name) + ": expected an int32, found " + std::to_string(wide));
  }
  value = static_cast<int32_t>(wide);
}

void read(const PluginField& field, float& value) {
  if (field.length == 1 && field.type == PluginFieldType::kFLOAT32) {
    value = load<float>(field);
  } else if (field.length == 1 && field.type == PluginFieldType::kFLOAT64) {
    value = static_cast<float>(load<double>(field));
  } else {
    refuse_type(field, "one float32");
  }
}

void read(const PluginField& field, std::string& value) {
  if (field.length < 0 || field.type != PluginFieldType::kCHAR) refuse_type(field, "characters");
  const auto* begin = static_cast<const char*>(field.data);
  // With or without the zero at the end: the ONNX parser counts it.
  value.assign(begin, std::find(begin, begin + field.length, '\0'));
}

}  // namespace

std::vector<PluginField> field_names() {
  std::vector<PluginField> fields;
  for (const op::Attribute& attribute : op::kAttributes) {
    std::visit(
        [&]<class T>(T op::Attributes::*) {
          fields.emplace_back(attribute.name, nullptr, kTypeOf<T>, 1);
        },
        attribute.member);
  }
  return fields;
}

std::vector<PluginField> fields_of(const op::Attributes& attributes) {
  std::vector<PluginField> fields;
  for (const op::Attribute& attribute : op::kAttributes) {
    std::visit(
        [&]<class T>(T op::Attributes::* member) {
          const T& value = attributes.*member;
          if constexpr (std::is_same_v<T, std::string>) {
            fields.emplace_back(attribute.name, value.c_str(), kTypeOf<T>,
                                static_cast<int32_t>(value.size() + 1));
          } else {
            fields.emplace_back(attribute.name, &value, kTypeOf<T>, 1);
          }
        },
        attribute.member);
  }
  return fields;
}

op::Attributes attributes_of(const nvinfer1::PluginFieldCollection& fields,
                             nvinfer1::TensorRTPhase phase) {
  op::Attributes attributes;
  std::vector<bool> seen(std::size(op::kAttributes));
  for (int32_t i = 0; i < fields.nbFields; ++i) {
    const PluginField& field = fields.fields[i];
    const std::string name = field.name == nullptr ? "" : field.name;
    const auto* known =
        std::find_if(std::begin(op::kAttributes), std::end(op::kAttributes),
                     [&](const op::Attribute& attribute) { return attribute.name == name; });
    if (known == std::end(op::kAttributes)) {
      std::string listed;
      for (const op::Attribute& attribute : op::kAttributes) {
        listed += std::string(listed.empty() ? "" : ", ") + attribute.name;
      }
      refuse("there is no attribute '" + name + "'; known are " + listed);
    }
    if (field.data == nullptr) refuse(name + ": has no value");
    const auto index = static_cast<size_t>(known - std::begin(op::kAttributes));
    if (seen[index]) refuse(name + ": given twice");
    seen[index] = true;
    std::visit([&](auto member) { read(field, attributes.*member); }, known->member);
  }
  if (phase == nvinfer1::TensorRTPhase::kRUNTIME) {
    for (size_t i = 0; i < seen.size(); ++i) {
      if (!seen[i]) {
        refuse(std::string(op::kAttributes[i].name) +
               ": not in the engine, which another version of this plugin serialised; build the "
               "engine again");
      }
    }
  }
  return attributes;
}

}  // namespace talksplat::tensorrt
