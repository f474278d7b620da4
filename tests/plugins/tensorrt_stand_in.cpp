// A libnvinfer with nothing in it but its version and a registry that takes notes.
#include <NvInferRuntime.h>

#include <string>

using namespace nvinfer1;

namespace {

struct Registry : IPluginRegistry {
  bool registerCreator(IPluginCreatorInterface& creator, const char* name_space) noexcept override {
    if (!taken.empty()) return false;
    auto& known = static_cast<IPluginCreatorV3One&>(creator);
    taken = std::string(name_space) + "::" + known.getPluginName();
    return true;
  }
  void setErrorRecorder(IErrorRecorder*) noexcept override {}
  IErrorRecorder* getErrorRecorder() const noexcept override { return nullptr; }
  bool isParentSearchEnabled() const override { return true; }
  void setParentSearchEnabled(bool) override {}
  PluginLibraryHandle loadLibrary(const char*) noexcept override { return nullptr; }
  void deregisterLibrary(PluginLibraryHandle) noexcept override {}
  IPluginCreatorInterface* const* getAllCreators(int32_t*) const noexcept override {
    return nullptr;
  }
  IPluginCreatorInterface* getCreator(const char*, const char*, const char*) noexcept override {
    return nullptr;
  }
  bool deregisterCreator(const IPluginCreatorInterface&) noexcept override { return false; }
  IPluginResource* acquirePluginResource(const char*, IPluginResource*) noexcept override {
    return nullptr;
  }
  int32_t releasePluginResource(const char*) noexcept override { return 0; }
  // Since 10.10, so not always an override.
  virtual IPluginCreatorInterface* const* getAllCreatorsRecursive(int32_t*) noexcept {
    return nullptr;
  }
#if NV_TENSORRT_MAJOR == 10
  bool registerCreator(IPluginCreator&, const char*) noexcept override { return false; }
  IPluginCreator* const* getPluginCreatorList(int32_t*) const noexcept override { return nullptr; }
  IPluginCreator* getPluginCreator(const char*, const char*, const char*) noexcept override {
    return nullptr;
  }
  bool deregisterCreator(const IPluginCreator&) noexcept override { return false; }
#endif
  std::string taken;
};

Registry& registry() {
  static Registry instance;
  return instance;
}

}  // namespace

extern "C" {

int32_t getInferLibVersion() noexcept { return SAID_VERSION; }

IPluginRegistry* getPluginRegistry() noexcept { return &registry(); }

// How many creators a plugin library has for this TensorRT.
int32_t stand_in_creators(IPluginCreatorInterface* const* (*get_creators)(int32_t&)) {
  int32_t count = -1;
  get_creators(count);
  return count;
}

const char* stand_in_taken() { return registry().taken.c_str(); }
}
