#include "plugin.h"

#include <algorithm>
#include <array>
#include <initializer_list>
#include <stdexcept>
#include <utility>

#include "../bounds.h"
#include "../cuda/launch.h"
#include "../cuda/operator_frame.h"
#include "plugin_fields.h"
#include "reporting.h"

namespace talksplat::tensorrt {
namespace {

using nvinfer1::DataType;
using nvinfer1::Dims;

constexpr int32_t kFailed = -1;

using Shapes = std::array<op::Shape, op::kInputs>;

op::Shape shape_of(const Dims& dims) { return {dims.d, dims.d + std::max(dims.nbDims, 0)}; }

bool same(const Dims& a, const Dims& b) {
  return a.nbDims == b.nbDims && std::equal(a.d, a.d + std::max(a.nbDims, 0), b.d);
}

void check_counts(int64_t inputs, int64_t outputs) {
  if (inputs == op::kInputs && outputs == op::kOutputs) return;
  throw std::invalid_argument("expected " + std::to_string(op::kInputs) + " inputs and " +
                              std::to_string(op::kOutputs) + " outputs, found " +
                              std::to_string(inputs) + " and " + std::to_string(outputs));
}

bool may_have_type(size_t input, DataType type) {
  return type == DataType::kFLOAT || (input == op::kColors && type == DataType::kHALF);
}

DataType output_type(size_t output) {
  return output == op::kOutStatus ? DataType::kINT32 : DataType::kFLOAT;
}

struct Axis {
  size_t input, axis;
};

void take_largest(Shapes& shapes, std::initializer_list<Axis> axes) {
  int64_t largest = 0;
  for (const auto& [input, axis] : axes) {
    if (axis < shapes[input].size()) largest = std::max(largest, shapes[input][axis]);
  }
  for (const auto& [input, axis] : axes) {
    if (axis < shapes[input].size()) shapes[input][axis] = largest;
  }
}

std::string text_of(int32_t value) { return std::to_string(value); }
std::string text_of(float value) { return number_text(value, 9); }  // no two floats are alike
std::string text_of(const std::string& value) { return value; }

// TensorRT promises no alignment of a workspace: there is room to begin where the plan's may.
constexpr size_t kSlack = cuda::kWorkspaceAlignment - 1;

void* aligned(void* workspace) {
  const auto address = reinterpret_cast<uintptr_t>(workspace);
  return reinterpret_cast<void*>((address + kSlack) / cuda::kWorkspaceAlignment *
                                 cuda::kWorkspaceAlignment);
}

// 0, or a failure that is reported.
int32_t result_of(cudaError_t error, const char* failure, nvinfer1::IErrorRecorder* recorder) {
  if (error == cudaSuccess) return 0;
  report(std::string(failure) + ": " + cudaGetErrorString(error) + " (" + cudaGetErrorName(error) +
             ")",
         recorder, nvinfer1::ErrorCode::kFAILED_EXECUTION);
  return kFailed;
}

std::string describe(const op::Attributes& attributes) {
  std::string text = std::string(op::kDomain) + "::" + op::kName + " " + TALKSPLAT_VERSION;
  for (const op::Attribute& attribute : op::kAttributes) {
    std::visit(
        [&](auto member) {
          text += std::string(" ") + attribute.name + "=" + text_of(attributes.*member);
        },
        attribute.member);
  }
  return text;
}

}  // namespace

Plugin::Plugin(const op::Attributes& attributes)
    : attributes_(attributes),
      settings_(op::settings_of(attributes)),
      description_(describe(attributes)) {}

nvinfer1::IPluginCapability* Plugin::getCapabilityInterface(
    nvinfer1::PluginCapabilityType type) noexcept {
  switch (type) {
    case nvinfer1::PluginCapabilityType::kCORE:
      return static_cast<nvinfer1::IPluginV3OneCore*>(this);
    case nvinfer1::PluginCapabilityType::kBUILD:
      return static_cast<nvinfer1::IPluginV3OneBuild*>(this);
    case nvinfer1::PluginCapabilityType::kRUNTIME:
      return static_cast<nvinfer1::IPluginV3OneRuntime*>(this);
  }
  report("TensorRT asked for a capability that this plugin does not know", recorder_);
  return nullptr;
}

nvinfer1::IPluginV3* Plugin::clone() noexcept {
  return reported(recorder_, static_cast<nvinfer1::IPluginV3*>(nullptr),
                  [&] { return new Plugin(*this); });
}

int32_t Plugin::getOutputDataTypes(DataType* output_types, int32_t outputs,
                                   const DataType* input_types, int32_t inputs) const noexcept {
  return reported(recorder_, kFailed, [&] {
    check_counts(inputs, outputs);
    for (size_t input = 0; input < op::kInputs; ++input) {
      if (may_have_type(input, input_types[input])) continue;
      throw std::invalid_argument(std::string(op::kInputNames[input]) + ": expected float32" +
                                  (input == op::kColors ? " or float16" : "") +
                                  "; put a Cast before it");
    }
    for (size_t output = 0; output < op::kOutputs; ++output) {
      output_types[output] = output_type(output);
    }
    return 0;
  });
}

int32_t Plugin::getOutputShapes(const nvinfer1::DimsExprs* inputs, int32_t input_count,
                                const nvinfer1::DimsExprs*, int32_t shape_input_count,
                                nvinfer1::DimsExprs* outputs, int32_t output_count,
                                nvinfer1::IExprBuilder& builder) noexcept {
  return reported(recorder_, kFailed, [&] {
    check_counts(input_count, output_count);
    if (shape_input_count != 0) throw std::invalid_argument("expected no shape inputs");
    const auto axis = [&](size_t input, int32_t rank, int32_t index) {
      if (inputs[input].nbDims != rank) {
        throw std::invalid_argument(std::string(op::kInputNames[input]) + ": expected " +
                                    std::to_string(rank) + " axes, found " +
                                    std::to_string(inputs[input].nbDims));
      }
      return inputs[input].d[index];
    };
    const auto* cameras = axis(op::kViewmats, 3, 0);
    const auto* one = builder.constant(1);
    const auto* channels = one;  // of depth alone
    if (has_colors(settings_.render_mode)) {
      const int32_t rank = settings_.sh_degree < 0 ? 2 : 3;
      channels = axis(op::kColors, rank, rank - 1);
      if (has_depth(settings_.render_mode)) {
        channels = builder.operation(nvinfer1::DimensionOperation::kSUM, *channels, *one);
      }
    }
    const auto* height = axis(op::kBackgrounds, 4, 2);
    const auto* width = axis(op::kBackgrounds, 4, 3);
    if (settings_.width != 0) {
      height = builder.constant(settings_.height);
      width = builder.constant(settings_.width);
    }
    outputs[op::kOutColors] = {4, {cameras, channels, height, width}};
    outputs[op::kOutAlphas] = {4, {cameras, one, height, width}};
    outputs[op::kOutStatus] = {1, {builder.constant(4)}};
    return 0;
  });
}

bool Plugin::supportsFormatCombination(int32_t position,
                                       const nvinfer1::DynamicPluginTensorDesc* tensors,
                                       int32_t inputs, int32_t outputs) noexcept {
  return reported(recorder_, false, [&] {
    check_counts(inputs, outputs);
    const nvinfer1::PluginTensorDesc& tensor = tensors[position].desc;
    if (tensor.format != nvinfer1::TensorFormat::kLINEAR) return false;
    return position < inputs ? may_have_type(position, tensor.type)
                             : tensor.type == output_type(position - inputs);
  });
}

int32_t Plugin::configurePlugin(const nvinfer1::DynamicPluginTensorDesc* inputs,
                                int32_t input_count, const nvinfer1::DynamicPluginTensorDesc*,
                                int32_t output_count) noexcept {
  return reported(recorder_, kFailed, [&] {
    check_counts(input_count, output_count);
    cuda::make_plan(largest_problem(inputs));  // says what no kernel can take
    return 0;
  });
}

size_t Plugin::getWorkspaceSize(const nvinfer1::DynamicPluginTensorDesc* inputs,
                                int32_t input_count, const nvinfer1::DynamicPluginTensorDesc*,
                                int32_t output_count) const noexcept {
  return reported(recorder_, size_t{0}, [&] {
    check_counts(input_count, output_count);
    return cuda::make_plan(largest_problem(inputs)).workspace_bytes + kSlack;
  });
}

int32_t Plugin::onShapeChange(const nvinfer1::PluginTensorDesc* inputs, int32_t input_count,
                              const nvinfer1::PluginTensorDesc*, int32_t output_count) noexcept {
  prepared_.reset();
  return reported(recorder_, kFailed, [&] {
    check_counts(input_count, output_count);
    Prepared prepared;
    Shapes shapes;
    for (size_t input = 0; input < op::kInputs; ++input) {
      prepared.inputs[input] = inputs[input].dims;
      shapes[input] = shape_of(inputs[input].dims);
    }
    prepared.problem = problem_of(shapes, inputs[op::kColors].type);
    prepared.plan = cuda::make_plan(prepared.problem);
    const int32_t loaded =
        result_of(cuda::load_kernels(prepared.plan), "the kernels could not be loaded", recorder_);
    if (loaded == 0) prepared_ = std::move(prepared);
    return loaded;
  });
}

int32_t Plugin::enqueue(const nvinfer1::PluginTensorDesc* descriptions,
                        const nvinfer1::PluginTensorDesc*, const void* const* inputs,
                        void* const* outputs, void* workspace, cudaStream_t stream) noexcept {
  return reported(recorder_, kFailed, [&] {
    if (!prepared_) throw std::logic_error("enqueue was called before onShapeChange");
    for (size_t input = 0; input < op::kInputs; ++input) {
      if (same(descriptions[input].dims, prepared_->inputs[input])) continue;
      throw std::logic_error(std::string(op::kInputNames[input]) +
                             ": the shape changed without a call of onShapeChange");
    }
    const cuda::FrameArguments arguments = cuda::make_arguments(
        prepared_->problem, cuda::tensors_of(inputs, outputs), aligned(workspace));
    return result_of(cuda::enqueue(prepared_->plan, arguments, stream),
                     "a kernel could not be launched", recorder_);
  });
}

nvinfer1::IPluginV3* Plugin::attachToContext(nvinfer1::IPluginResourceContext* context) noexcept {
  return reported(recorder_, static_cast<nvinfer1::IPluginV3*>(nullptr), [&] {
    auto* attached = new Plugin(*this);
    attached->recorder_ = context == nullptr ? nullptr : context->getErrorRecorder();
    return attached;
  });
}

const nvinfer1::PluginFieldCollection* Plugin::getFieldsToSerialize() noexcept {
  return reported(recorder_, static_cast<const nvinfer1::PluginFieldCollection*>(nullptr), [&] {
    fields_ = fields_of(attributes_);
    collection_ = {static_cast<int32_t>(fields_.size()), fields_.data()};
    return &collection_;
  });
}

cuda::Problem Plugin::problem_of(const Shapes& shapes, DataType colors) const {
  return cuda::problem_of(settings_, op::sizes_of(settings_, shapes), colors == DataType::kHALF);
}

cuda::Problem Plugin::largest_problem(const nvinfer1::DynamicPluginTensorDesc* inputs) const {
  Shapes shapes;
  for (size_t input = 0; input < op::kInputs; ++input) shapes[input] = shape_of(inputs[input].max);
  // TensorRT bounds every tensor by itself, so bounds of axes that are always equal may differ.
  take_largest(
      shapes,
      {{op::kMeans, 0}, {op::kQuats, 0}, {op::kScales, 0}, {op::kOpacities, 0}, {op::kColors, 0}});
  take_largest(shapes, {{op::kViewmats, 0}, {op::kKs, 0}, {op::kBackgrounds, 0}});
  return problem_of(shapes, inputs[op::kColors].desc.type);
}

Creator::Creator()
    : fields_(field_names()), collection_{static_cast<int32_t>(fields_.size()), fields_.data()} {}

nvinfer1::IPluginV3* Creator::createPlugin(const char*,
                                           const nvinfer1::PluginFieldCollection* fields,
                                           nvinfer1::TensorRTPhase phase) noexcept {
  return reported(nullptr, static_cast<nvinfer1::IPluginV3*>(nullptr), [&] {
    const nvinfer1::PluginFieldCollection none{};
    return new Plugin(attributes_of(fields == nullptr ? none : *fields, phase));
  });
}

}  // namespace talksplat::tensorrt
