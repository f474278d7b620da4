#include <nanobind/nanobind.h>

void bind_cuda_plan(nanobind::module_& module);
void bind_device_array(nanobind::module_& module);
void bind_gaussian_rasterizer(nanobind::module_& module);
void bind_mesh_rasterizer(nanobind::module_& module);

NB_MODULE(_native, module) {
  module.doc() = "Native parts of talksplat: the Gaussian rasterizer and the mesh rasterizer.";
  bind_cuda_plan(module);
  bind_device_array(module);
  bind_gaussian_rasterizer(module);
  bind_mesh_rasterizer(module);
}
