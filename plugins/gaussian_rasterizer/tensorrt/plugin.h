// GaussianRasterize as a layer of TensorRT.
#pragma once

#include <NvInferRuntime.h>

#include <array>
#include <optional>
#include <string>
#include <vector>

#include "../cuda/plan.h"
#include "../operator.h"

namespace talksplat::tensorrt {

// One layer: its attributes, and the plan of the shapes it was last told.
class Plugin final : public nvinfer1::IPluginV3,
                     public nvinfer1::IPluginV3OneCore,
                     public nvinfer1::IPluginV3OneBuild,
                     public nvinfer1::IPluginV3OneRuntime {
 public:
  // Throws std::invalid_argument if an attribute has no such value.
  explicit Plugin(const op::Attributes& attributes);

  // IPluginV3
  nvinfer1::IPluginCapability* getCapabilityInterface(
      nvinfer1::PluginCapabilityType type) noexcept override;
  nvinfer1::IPluginV3* clone() noexcept override;

  // IPluginV3OneCore
  const char* getPluginName() const noexcept override { return op::kName; }
  const char* getPluginVersion() const noexcept override { return op::kVersion; }
  const char* getPluginNamespace() const noexcept override { return op::kDomain; }

  // IPluginV3OneBuild
  int32_t getNbOutputs() const noexcept override { return op::kOutputs; }
  int32_t getOutputDataTypes(nvinfer1::DataType* output_types, int32_t outputs,
                             const nvinfer1::DataType* input_types,
                             int32_t inputs) const noexcept override;
  int32_t getOutputShapes(const nvinfer1::DimsExprs* inputs, int32_t input_count,
                          const nvinfer1::DimsExprs* shape_inputs, int32_t shape_input_count,
                          nvinfer1::DimsExprs* outputs, int32_t output_count,
                          nvinfer1::IExprBuilder& builder) noexcept override;
  bool supportsFormatCombination(int32_t position, const nvinfer1::DynamicPluginTensorDesc* tensors,
                                 int32_t inputs, int32_t outputs) noexcept override;
  int32_t configurePlugin(const nvinfer1::DynamicPluginTensorDesc* inputs, int32_t input_count,
                          const nvinfer1::DynamicPluginTensorDesc* outputs,
                          int32_t output_count) noexcept override;
  size_t getWorkspaceSize(const nvinfer1::DynamicPluginTensorDesc* inputs, int32_t input_count,
                          const nvinfer1::DynamicPluginTensorDesc* outputs,
                          int32_t output_count) const noexcept override;
  const char* getTimingCacheID() noexcept override { return description_.c_str(); }
  const char* getMetadataString() noexcept override { return description_.c_str(); }

  // IPluginV3OneRuntime
  int32_t onShapeChange(const nvinfer1::PluginTensorDesc* inputs, int32_t input_count,
                        const nvinfer1::PluginTensorDesc* outputs,
                        int32_t output_count) noexcept override;
  int32_t enqueue(const nvinfer1::PluginTensorDesc* input_descriptions,
                  const nvinfer1::PluginTensorDesc* output_descriptions, const void* const* inputs,
                  void* const* outputs, void* workspace, cudaStream_t stream) noexcept override;
  nvinfer1::IPluginV3* attachToContext(nvinfer1::IPluginResourceContext* context) noexcept override;
  const nvinfer1::PluginFieldCollection* getFieldsToSerialize() noexcept override;

 private:
  struct Prepared {
    std::array<nvinfer1::Dims, op::kInputs> inputs;
    cuda::Problem problem;
    cuda::Plan plan;
  };

  cuda::Problem problem_of(const std::array<op::Shape, op::kInputs>& shapes,
                           nvinfer1::DataType colors) const;
  // The problem of the upper bounds of a profile.
  cuda::Problem largest_problem(const nvinfer1::DynamicPluginTensorDesc* inputs) const;

  op::Attributes attributes_;
  op::Settings settings_;
  std::string description_;
  std::optional<Prepared> prepared_;
  nvinfer1::IErrorRecorder* recorder_ = nullptr;

  std::vector<nvinfer1::PluginField> fields_;
  nvinfer1::PluginFieldCollection collection_{};
};

class Creator final : public nvinfer1::IPluginCreatorV3One {
 public:
  Creator();

  nvinfer1::IPluginV3* createPlugin(const char* name, const nvinfer1::PluginFieldCollection* fields,
                                    nvinfer1::TensorRTPhase phase) noexcept override;
  const nvinfer1::PluginFieldCollection* getFieldNames() noexcept override { return &collection_; }
  const char* getPluginName() const noexcept override { return op::kName; }
  const char* getPluginVersion() const noexcept override { return op::kVersion; }
  const char* getPluginNamespace() const noexcept override { return op::kDomain; }

 private:
  std::vector<nvinfer1::PluginField> fields_;
  nvinfer1::PluginFieldCollection collection_{};
};

}  // namespace talksplat::tensorrt
