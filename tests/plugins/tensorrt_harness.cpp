// What TensorRT does with a plugin library, without TensorRT: its interfaces are called through its
// own headers, its services (logger, recorder, expressions) are stood in for. A plain C face, for
// the test to speak to.
#include <NvInferRuntime.h>

#include <cstring>
#include <memory>
#include <string>
#include <vector>

using namespace nvinfer1;

namespace {

struct Logger : ILogger {
  void log(Severity severity, const char* message) noexcept override {
    if (severity == Severity::kERROR) messages += std::string(message) + "\n";
  }
  std::string messages;
};

struct LoggerFinder : ILoggerFinder {
  ILogger* findLogger() override { return &logger; }
  Logger logger;
};

struct Recorder : IErrorRecorder {
  int32_t getNbErrors() const noexcept override { return static_cast<int32_t>(errors.size()); }
  ErrorCode getErrorCode(int32_t) const noexcept override { return ErrorCode::kSUCCESS; }
  ErrorDesc getErrorDesc(int32_t index) const noexcept override { return errors[index].c_str(); }
  bool hasOverflowed() const noexcept override { return false; }
  void clear() noexcept override { errors.clear(); }
  bool reportError(ErrorCode, ErrorDesc text) noexcept override {
    errors.emplace_back(text);
    return true;
  }
  RefCount incRefCount() noexcept override { return 1; }
  RefCount decRefCount() noexcept override { return 1; }
  std::vector<std::string> errors;
};

struct ResourceContext : IPluginResourceContext {
  IGpuAllocator* getGpuAllocator() const noexcept override { return nullptr; }
  IErrorRecorder* getErrorRecorder() const noexcept override { return &recorder; }
  mutable Recorder recorder;
};

// An expression of dimensions, as text.
struct Expression : IDimensionExpr, private apiv::VDimensionExpr {
  explicit Expression(std::string written) : text(std::move(written)) { mImpl = this; }
  bool isConstant() const override { return false; }
  int64_t getConstantValue() const override { return 0; }
  bool isSizeTensor() const override { return false; }
  std::string text;
};

struct ExpressionBuilder : IExprBuilder, private apiv::VExprBuilder {
  ExpressionBuilder() { mImpl = this; }
  const IDimensionExpr* written(const std::string& text) {
    expressions.push_back(std::make_unique<Expression>(text));
    return expressions.back().get();
  }
  const IDimensionExpr* constant(int64_t value) override { return written(std::to_string(value)); }
  const IDimensionExpr* operation(DimensionOperation op, const IDimensionExpr& first,
                                  const IDimensionExpr& second) override {
    if (op != DimensionOperation::kSUM) return nullptr;
    return written("(" + static_cast<const Expression&>(first).text + " + " +
                   static_cast<const Expression&>(second).text + ")");
  }
  const IDimensionExpr* declareSizeTensor(int32_t, const IDimensionExpr&,
                                          const IDimensionExpr&) override {
    return nullptr;
  }
  std::vector<std::unique_ptr<Expression>> expressions;
};

LoggerFinder g_finder;
ResourceContext g_context;
std::string g_text;  // of the last answer

IPluginV3OneCore& core(IPluginV3* plugin) {
  return *static_cast<IPluginV3OneCore*>(
      plugin->getCapabilityInterface(PluginCapabilityType::kCORE));
}
IPluginV3OneBuild& build(IPluginV3* plugin) {
  return *static_cast<IPluginV3OneBuild*>(
      plugin->getCapabilityInterface(PluginCapabilityType::kBUILD));
}
IPluginV3OneRuntime& runtime(IPluginV3* plugin) {
  return *static_cast<IPluginV3OneRuntime*>(
      plugin->getCapabilityInterface(PluginCapabilityType::kRUNTIME));
}

const char* answer(std::string text) {
  g_text = std::move(text);
  return g_text.c_str();
}

}  // namespace

extern "C" {

int32_t harness_headers_version() { return NV_TENSORRT_VERSION; }

ILoggerFinder* harness_logger_finder() { return &g_finder; }

const char* harness_take_logged() {
  answer(g_finder.logger.messages);
  g_finder.logger.messages.clear();
  return g_text.c_str();
}

const char* harness_take_recorded() {
  std::string text;
  for (const std::string& error : g_context.recorder.errors) text += error + "\n";
  g_context.recorder.clear();
  return answer(text);
}

// "kind name version namespace"
const char* harness_creator_identity(IPluginCreatorInterface* any) {
  const std::string kind = any->getInterfaceInfo().kind;
  if (kind != "PLUGIN CREATOR_V3ONE") return answer(kind);
  auto* creator = static_cast<IPluginCreatorV3One*>(any);
  return answer(kind + " " + creator->getPluginName() + " " + creator->getPluginVersion() + " " +
                creator->getPluginNamespace());
}

const PluginFieldCollection* harness_creator_fields(IPluginCreatorV3One* creator) {
  return creator->getFieldNames();
}

IPluginV3* harness_create(IPluginCreatorV3One* creator, const PluginField* fields, int32_t count,
                          int32_t phase) {
  const PluginFieldCollection collection = {count, fields};
  return creator->createPlugin("layer", &collection, static_cast<TensorRTPhase>(phase));
}

void harness_destroy(IPluginV3* plugin) { delete plugin; }

IPluginV3* harness_clone(IPluginV3* plugin) { return plugin->clone(); }

IPluginV3* harness_attach(IPluginV3* plugin) { return runtime(plugin).attachToContext(&g_context); }

// "kind major.minor", or "none".
const char* harness_capability(IPluginV3* plugin, int32_t type) {
  auto* found = plugin->getCapabilityInterface(static_cast<PluginCapabilityType>(type));
  if (found == nullptr) return answer("none");
  const InterfaceInfo info = found->getInterfaceInfo();
  return answer(std::string(info.kind) + " " + std::to_string(info.major) + "." +
                std::to_string(info.minor));
}

// "name version namespace"
const char* harness_identity(IPluginV3* plugin) {
  return answer(std::string(core(plugin).getPluginName()) + " " + core(plugin).getPluginVersion() +
                " " + core(plugin).getPluginNamespace());
}

const PluginFieldCollection* harness_fields_to_serialize(IPluginV3* plugin) {
  return runtime(plugin).getFieldsToSerialize();
}

const char* harness_timing_cache_id(IPluginV3* plugin) { return build(plugin).getTimingCacheID(); }

int32_t harness_output_count(IPluginV3* plugin) { return build(plugin).getNbOutputs(); }

int32_t harness_output_types(IPluginV3* plugin, const int32_t* input_types, int32_t inputs,
                             int32_t* output_types, int32_t outputs) {
  return build(plugin).getOutputDataTypes(reinterpret_cast<DataType*>(output_types), outputs,
                                          reinterpret_cast<const DataType*>(input_types), inputs);
}

// Shapes of the outputs in terms of those of the inputs, "viewmats.0 colors.1 …" a line; empty if
// the plugin refused. `names` and `ranks` are those of the inputs.
const char* harness_output_shapes(IPluginV3* plugin, const char* const* names, const int32_t* ranks,
                                  int32_t inputs, int32_t outputs) {
  ExpressionBuilder builder;
  std::vector<DimsExprs> in(inputs), out(outputs);
  for (int32_t input = 0; input < inputs; ++input) {
    in[input].nbDims = ranks[input];
    for (int32_t axis = 0; axis < ranks[input]; ++axis) {
      in[input].d[axis] = builder.written(std::string(names[input]) + "." + std::to_string(axis));
    }
  }
  if (build(plugin).getOutputShapes(in.data(), inputs, nullptr, 0, out.data(), outputs, builder)) {
    return answer("");
  }
  std::string text;
  for (const DimsExprs& shape : out) {
    for (int32_t axis = 0; axis < shape.nbDims; ++axis) {
      text += (axis == 0 ? "" : " ") + static_cast<const Expression*>(shape.d[axis])->text;
    }
    text += "\n";
  }
  return answer(text);
}

bool harness_supports(IPluginV3* plugin, int32_t position, const DynamicPluginTensorDesc* tensors,
                      int32_t inputs, int32_t outputs) {
  return build(plugin).supportsFormatCombination(position, tensors, inputs, outputs);
}

int32_t harness_configure(IPluginV3* plugin, const DynamicPluginTensorDesc* inputs,
                          int32_t input_count, const DynamicPluginTensorDesc* outputs,
                          int32_t output_count) {
  return build(plugin).configurePlugin(inputs, input_count, outputs, output_count);
}

size_t harness_workspace_size(IPluginV3* plugin, const DynamicPluginTensorDesc* inputs,
                              int32_t input_count, const DynamicPluginTensorDesc* outputs,
                              int32_t output_count) {
  return build(plugin).getWorkspaceSize(inputs, input_count, outputs, output_count);
}

int32_t harness_shape_change(IPluginV3* plugin, const PluginTensorDesc* inputs, int32_t input_count,
                             const PluginTensorDesc* outputs, int32_t output_count) {
  return runtime(plugin).onShapeChange(inputs, input_count, outputs, output_count);
}

int32_t harness_enqueue(IPluginV3* plugin, const PluginTensorDesc* input_descriptions,
                        const PluginTensorDesc* output_descriptions, const void* const* inputs,
                        void* const* outputs, void* workspace, void* stream) {
  return runtime(plugin).enqueue(input_descriptions, output_descriptions, inputs, outputs,
                                 workspace, static_cast<cudaStream_t>(stream));
}
}
