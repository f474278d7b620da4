// A libcuda.so.1 for machines without a GPU, as far as talksplat calls it: what the real CUDA
// bindings for Python convert their arguments for. Memory is the host's, streams do their work at
// once, kernels run through their compilation for the host. fake_driver.py is the stricter model of
// how a driver behaves; this one shows that the bindings take what they are given.
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <map>
#include <string>
#include <vector>

extern "C" int talksplat_host_launch(const char*, const unsigned[3], const unsigned[3], unsigned,
                                     const void*, size_t);
extern "C" size_t talksplat_host_argument_bytes(const char*);

namespace {

using Result = int;
using Pointer = unsigned long long;
constexpr Result kSuccess = 0, kInvalidValue = 1, kOutOfMemory = 2, kInvalidContext = 201,
                 kNotFound = 500;
constexpr size_t kMemory = size_t{1} << 30;
constexpr int kDevice = 0;

struct Stream {
  bool capturing = false;
  std::vector<std::function<void()>> captured;
};
struct Graph {
  std::vector<std::function<void()>> work;
};
struct Event {
  std::chrono::steady_clock::time_point moment;
};

int primary_context;  // its address is the handle
thread_local std::vector<void*> current;
std::map<Pointer, size_t> allocated;
size_t used = 0;

bool has_context() { return !current.empty() && current.back() == &primary_context; }

Result put(void* stream, std::function<void()> work) {
  if (!has_context()) return kInvalidContext;
  auto* queue = static_cast<Stream*>(stream);
  if (queue->capturing) {
    queue->captured.push_back(std::move(work));
  } else {
    work();
  }
  return kSuccess;
}

Result Init(unsigned flags) { return flags == 0 ? kSuccess : kInvalidValue; }
Result DriverGetVersion(int* version) {
  const char* text = std::getenv("HOST_CUDA_VERSION");
  *version = std::atoi(text == nullptr ? "13000" : text);
  return kSuccess;
}
Result GetErrorString(Result, const char** text) {
  *text = "said by the driver";
  return kSuccess;
}
Result DeviceGetCount(int* count) {
  *count = 1;
  return kSuccess;
}
Result DeviceGet(int* device, int ordinal) {
  *device = kDevice;
  return ordinal == 0 ? kSuccess : kInvalidValue;
}
Result DeviceGetName(char* name, int length, int) {
  std::snprintf(name, length, "Host");
  return kSuccess;
}
Result DeviceGetAttribute(int* value, int attribute, int) {
  *value = attribute == 75 ? 8 : attribute == 76 ? 9 : -1;  // compute capability
  return kSuccess;
}
Result DeviceTotalMem(size_t* bytes, int) {
  *bytes = kMemory;
  return kSuccess;
}
Result DevicePrimaryCtxRetain(void** context, int) {
  *context = &primary_context;
  return kSuccess;
}
Result DevicePrimaryCtxRelease(int) { return allocated.empty() ? kSuccess : kInvalidValue; }
Result DevicePrimaryCtxReset(int) { return kSuccess; }
Result CtxGetCurrent(void** context) {
  *context = current.empty() ? nullptr : current.back();
  return kSuccess;
}
Result CtxPushCurrent(void* context) {
  current.push_back(context);
  return kSuccess;
}
Result CtxPopCurrent(void** context) {
  if (current.empty()) return kInvalidContext;
  *context = current.back();
  current.pop_back();
  return kSuccess;
}
Result MemGetInfo(size_t* free, size_t* total) {
  *free = kMemory - used;
  *total = kMemory;
  return kSuccess;
}
Result MemAlloc(Pointer* pointer, size_t bytes) {
  if (!has_context()) return kInvalidContext;
  if (used + bytes > kMemory) return kOutOfMemory;
  void* memory = std::aligned_alloc(256, (bytes + 255) / 256 * 256);
  std::memset(memory, 0xff, bytes);
  *pointer = reinterpret_cast<Pointer>(memory);
  allocated[*pointer] = bytes;
  used += bytes;
  return kSuccess;
}
Result MemFree(Pointer pointer) {
  const auto found = allocated.find(pointer);
  if (!has_context() || found == allocated.end()) return kInvalidValue;
  used -= found->second;
  allocated.erase(found);
  std::free(reinterpret_cast<void*>(pointer));
  return kSuccess;
}
Result MemHostAlloc(void** pointer, size_t bytes, unsigned flags) {
  if (!has_context() || flags != 0) return kInvalidValue;
  *pointer = std::malloc(bytes);
  return kSuccess;
}
Result MemFreeHost(void* pointer) {
  std::free(pointer);
  return kSuccess;
}
Result MemcpyDtoH(void* host, Pointer device, size_t bytes) {
  std::memcpy(host, reinterpret_cast<void*>(device), bytes);
  return kSuccess;
}
Result MemcpyHtoDAsync(Pointer device, const void* host, size_t bytes, void* stream) {
  return put(stream, [=] { std::memcpy(reinterpret_cast<void*>(device), host, bytes); });
}
Result MemcpyDtoHAsync(void* host, Pointer device, size_t bytes, void* stream) {
  return put(stream, [=] { std::memcpy(host, reinterpret_cast<void*>(device), bytes); });
}
Result MemcpyDtoDAsync(Pointer target, Pointer source, size_t bytes, void* stream) {
  return put(stream, [=] {
    std::memcpy(reinterpret_cast<void*>(target), reinterpret_cast<void*>(source), bytes);
  });
}
Result MemsetD8Async(Pointer target, unsigned char value, size_t bytes, void* stream) {
  return put(stream, [=] { std::memset(reinterpret_cast<void*>(target), value, bytes); });
}
Result StreamCreate(void** stream, unsigned flags) {
  if (!has_context() || flags != 1) return kInvalidValue;  // CU_STREAM_NON_BLOCKING
  *stream = new Stream;
  return kSuccess;
}
Result StreamDestroy(void* stream) {
  delete static_cast<Stream*>(stream);
  return kSuccess;
}
Result StreamSynchronize(void* stream) {
  return static_cast<Stream*>(stream)->capturing ? 900 : kSuccess;  // capture unsupported
}
Result StreamWaitEvent(void*, void*, unsigned flags) { return flags == 0 ? kSuccess : 1; }
Result StreamBeginCapture(void* stream, int mode) {
  if (!has_context() || mode != 1) return kInvalidValue;  // thread-local
  static_cast<Stream*>(stream)->capturing = true;
  return kSuccess;
}
Result StreamEndCapture(void* stream, void** graph) {
  auto* queue = static_cast<Stream*>(stream);
  queue->capturing = false;
  *graph = new Graph{std::move(queue->captured)};
  queue->captured.clear();
  return kSuccess;
}
Result GraphInstantiate(void** executable, void* graph, unsigned long long flags) {
  *executable = new Graph(*static_cast<Graph*>(graph));
  return flags == 0 ? kSuccess : kInvalidValue;
}
Result GraphLaunch(void* executable, void* stream) {
  Result result = kSuccess;
  for (const auto& work : static_cast<Graph*>(executable)->work) {
    if (result == kSuccess) result = put(stream, work);
  }
  return result;
}
Result GraphDestroy(void* graph) {
  delete static_cast<Graph*>(graph);
  return kSuccess;
}
Result EventCreate(void** event, unsigned flags) {
  *event = new Event;
  return flags == 0 || flags == 2 ? kSuccess : kInvalidValue;  // default, no timing
}
Result EventDestroy(void* event) {
  delete static_cast<Event*>(event);
  return kSuccess;
}
Result EventRecord(void* event, void* stream) {
  return put(stream,
             [=] { static_cast<Event*>(event)->moment = std::chrono::steady_clock::now(); });
}
Result EventSynchronize(void*) { return kSuccess; }
Result EventElapsedTime(float* milliseconds, void* start, void* end) {
  const auto passed = static_cast<Event*>(end)->moment - static_cast<Event*>(start)->moment;
  *milliseconds = std::chrono::duration<float, std::milli>(passed).count();
  return kSuccess;
}
Result ModuleLoadData(void** module, const void* image) {
  *module = new int;
  return std::memcmp(image,
                     "\x7f"
                     "ELF",
                     4) == 0
             ? kSuccess
             : 200;  // invalid image
}
Result ModuleUnload(void* module) {
  delete static_cast<int*>(module);
  return kSuccess;
}
Result ModuleGetFunction(void** function, void*, const char* name) {
  *function = new std::string(name);  // as long as the module
  return kSuccess;
}
Result LaunchKernel(void* function, unsigned gx, unsigned gy, unsigned gz, unsigned bx, unsigned by,
                    unsigned bz, unsigned shared_bytes, void* stream, void** parameters,
                    void** extra) {
  if (extra != nullptr) return kInvalidValue;
  const std::string name = *static_cast<std::string*>(function);
  const auto* bytes = static_cast<const char*>(parameters[0]);
  const std::vector<char> arguments(bytes, bytes + talksplat_host_argument_bytes(name.c_str()));
  return put(stream, [=] {
    const unsigned grid[3] = {gx, gy, gz}, block[3] = {bx, by, bz};
    if (talksplat_host_launch(name.c_str(), grid, block, shared_bytes, arguments.data(),
                              arguments.size()) != 0) {
      std::abort();
    }
  });
}

template <class Function>
void* address(Function* function) {
  return reinterpret_cast<void*>(function);
}

const std::map<std::string, void*>& functions() {
  static const std::map<std::string, void*> all = {
      {"cuInit", address(&Init)},
      {"cuDriverGetVersion", address(&DriverGetVersion)},
      {"cuGetErrorString", address(&GetErrorString)},
      {"cuDeviceGetCount", address(&DeviceGetCount)},
      {"cuDeviceGet", address(&DeviceGet)},
      {"cuDeviceGetName", address(&DeviceGetName)},
      {"cuDeviceGetAttribute", address(&DeviceGetAttribute)},
      {"cuDeviceTotalMem", address(&DeviceTotalMem)},
      {"cuDevicePrimaryCtxRetain", address(&DevicePrimaryCtxRetain)},
      {"cuDevicePrimaryCtxRelease", address(&DevicePrimaryCtxRelease)},
      {"cuDevicePrimaryCtxReset", address(&DevicePrimaryCtxReset)},
      {"cuCtxGetCurrent", address(&CtxGetCurrent)},
      {"cuCtxPushCurrent", address(&CtxPushCurrent)},
      {"cuCtxPopCurrent", address(&CtxPopCurrent)},
      {"cuMemGetInfo", address(&MemGetInfo)},
      {"cuMemAlloc", address(&MemAlloc)},
      {"cuMemFree", address(&MemFree)},
      {"cuMemHostAlloc", address(&MemHostAlloc)},
      {"cuMemFreeHost", address(&MemFreeHost)},
      {"cuMemcpyDtoH", address(&MemcpyDtoH)},
      {"cuMemcpyHtoDAsync", address(&MemcpyHtoDAsync)},
      {"cuMemcpyDtoHAsync", address(&MemcpyDtoHAsync)},
      {"cuMemcpyDtoDAsync", address(&MemcpyDtoDAsync)},
      {"cuMemsetD8Async", address(&MemsetD8Async)},
      {"cuStreamCreate", address(&StreamCreate)},
      {"cuStreamDestroy", address(&StreamDestroy)},
      {"cuStreamSynchronize", address(&StreamSynchronize)},
      {"cuStreamWaitEvent", address(&StreamWaitEvent)},
      {"cuStreamBeginCapture", address(&StreamBeginCapture)},
      {"cuStreamEndCapture", address(&StreamEndCapture)},
      {"cuGraphInstantiate", address(&GraphInstantiate)},
      {"cuGraphInstantiateWithFlags", address(&GraphInstantiate)},
      {"cuGraphLaunch", address(&GraphLaunch)},
      {"cuGraphDestroy", address(&GraphDestroy)},
      {"cuGraphExecDestroy", address(&GraphDestroy)},
      {"cuEventCreate", address(&EventCreate)},
      {"cuEventDestroy", address(&EventDestroy)},
      {"cuEventRecord", address(&EventRecord)},
      {"cuEventSynchronize", address(&EventSynchronize)},
      {"cuEventElapsedTime", address(&EventElapsedTime)},
      {"cuModuleLoadData", address(&ModuleLoadData)},
      {"cuModuleUnload", address(&ModuleUnload)},
      {"cuModuleGetFunction", address(&ModuleGetFunction)},
      {"cuLaunchKernel", address(&LaunchKernel)},
  };
  return all;
}

}  // namespace

// Where the bindings ask for everything else, and some for this function once more.
extern "C" __attribute__((visibility("default"))) Result cuGetProcAddress_v2(const char* symbol,
                                                                             void** function, int,
                                                                             uint64_t,
                                                                             int* status) {
  const auto found = functions().find(symbol);
  if (std::strcmp(symbol, "cuGetProcAddress") == 0) {
    *function = address(&cuGetProcAddress_v2);
  } else {
    *function = found == functions().end() ? nullptr : found->second;
  }
  if (status != nullptr) *status = *function == nullptr ? 1 : 0;
  return *function == nullptr ? kNotFound : kSuccess;
}
