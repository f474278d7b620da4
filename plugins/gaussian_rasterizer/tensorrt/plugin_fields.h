// The operator's attributes as TensorRT carries them: plugin fields, when a network is built and
// again inside an engine.
#pragma once

#include <NvInferRuntime.h>

#include <vector>

#include "../operator.h"

namespace talksplat::tensorrt {

// What a field of each attribute is called and which type it has; no data.
std::vector<nvinfer1::PluginField> field_names();

// The values of `attributes`, which the fields point into.
std::vector<nvinfer1::PluginField> fields_of(const op::Attributes& attributes);

// In the build phase an absent field means the default, as in ONNX; in an engine all are there.
// Throws std::invalid_argument with a full sentence.
op::Attributes attributes_of(const nvinfer1::PluginFieldCollection& fields,
                             nvinfer1::TensorRTPhase phase);

}  // namespace talksplat::tensorrt
