// talksplat.cuda.memory.DeviceArray as a DLPack capsule: the structures and who frees them are
// nanobind's. Streams are dealt with in Python, before.
#include <nanobind/nanobind.h>
#include <nanobind/ndarray.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/vector.h>

#include <cstdint>
#include <string>
#include <vector>

namespace nb = nanobind;
using namespace nb::literals;

namespace {

nb::dlpack::dtype dtype_of(const std::string& name) {
  if (name == "float32") return nb::dtype<float>();
  if (name == "uint8") return nb::dtype<uint8_t>();
  if (name == "int8") return nb::dtype<int8_t>();
  if (name == "int32") return nb::dtype<int32_t>();
  if (name == "int64") return nb::dtype<int64_t>();
  if (name == "bool") return nb::dtype<bool>();
  if (name == "float16") return {static_cast<uint8_t>(nb::dlpack::dtype_code::Float), 16, 1};
  throw nb::value_error(("no DLPack type for " + name).c_str());
}

// The capsule keeps `owner` alive until its consumer, or whoever drops it unconsumed, is done.
nb::object capsule(const nb::object& owner, uintptr_t pointer, const std::vector<size_t>& shape,
                   const std::string& dtype, int device, const nb::object& max_version) {
  const nb::ndarray<nb::array_api> array(reinterpret_cast<void*>(pointer), shape.size(),
                                         shape.data(), owner, nullptr, dtype_of(dtype),
                                         nb::device::cuda::value, device);
  return nb::cast(array).attr("__dlpack__")("max_version"_a = max_version);
}

}  // namespace

void bind_device_array(nb::module_& module) {
  module.def("device_array_capsule", &capsule, nb::arg(), nb::arg(), nb::arg(), nb::arg(),
             nb::arg(), nb::arg().none());
}
