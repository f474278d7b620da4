// The plan of a frame on a CUDA device: numbers only, no CUDA is called here.
#include <nanobind/nanobind.h>
#include <nanobind/stl/string.h>

#include <string>

#include "cuda/plan.h"
#include "names.h"

namespace nb = nanobind;

namespace {

using namespace talksplat;

struct PythonPlan {
  cuda::Problem problem;
  cuda::Plan plan;
};

PythonPlan make_plan(int64_t gaussians, int cameras, int channels, int width, int height,
                     int sh_degree, int sh_bases, bool half_colors, bool one_background,
                     const std::string& render_mode, const std::string& rasterize_mode,
                     const std::string& dialect, float near_plane, float far_plane,
                     float radius_clip, float eps2d, int64_t tile_entries) {
  cuda::Problem problem;
  problem.gaussians = gaussians;
  problem.cameras = cameras;
  problem.channels = channels;
  problem.width = width;
  problem.height = height;
  problem.sh_degree = sh_degree;
  problem.sh_bases = sh_bases;
  problem.half_colors = half_colors;
  problem.one_background = one_background;
  problem.render_mode = render_mode_named(render_mode);
  problem.rules.dialect = dialect_named(dialect);
  problem.rules.antialiased = antialiased_named(rasterize_mode);
  problem.rules.near_plane = near_plane;
  problem.rules.far_plane = far_plane;
  problem.rules.radius_clip = radius_clip;
  problem.rules.low_pass = eps2d;
  problem.tile_entries = tile_entries;
  return {problem, cuda::make_plan(problem)};
}

nb::list launches_of(const PythonPlan& self) {
  nb::list out;
  for (const cuda::Launch& launch : self.plan.launches) {
    out.append(nb::make_tuple(
        launch.kernel, nb::make_tuple(launch.grid[0], launch.grid[1], launch.grid[2]),
        nb::make_tuple(launch.block[0], launch.block[1], launch.block[2]), launch.shared_bytes));
  }
  return out;
}

nb::bytes arguments_of(const PythonPlan& self, uintptr_t means, uintptr_t quats, uintptr_t scales,
                       uintptr_t opacities, uintptr_t colors, uintptr_t viewmats, uintptr_t Ks,
                       uintptr_t backgrounds, uintptr_t out_colors, uintptr_t out_alphas,
                       uintptr_t status, uintptr_t workspace) {
  const auto pointer = [](uintptr_t address) { return reinterpret_cast<void*>(address); };
  const cuda::Tensors tensors = {pointer(means),      pointer(quats),       pointer(scales),
                                 pointer(opacities),  pointer(colors),      pointer(viewmats),
                                 pointer(Ks),         pointer(backgrounds), pointer(out_colors),
                                 pointer(out_alphas), pointer(status)};
  const cuda::FrameArguments arguments =
      cuda::make_arguments(self.problem, tensors, pointer(workspace));
  return nb::bytes(&arguments, sizeof(arguments));
}

}  // namespace

void bind_cuda_plan(nb::module_& module) {
  nb::class_<PythonPlan>(module, "GaussianCudaPlan",
                         "Workspace and launches of a frame on a CUDA device.")
      .def_prop_ro("workspace_bytes",
                   [](const PythonPlan& self) { return self.plan.workspace_bytes; })
      .def_prop_ro("tile_entries",
                   [](const PythonPlan& self) { return cuda::tile_entries(self.problem); })
      .def_prop_ro("output_channels",
                   [](const PythonPlan& self) { return cuda::output_channels(self.problem); })
      .def_prop_ro("launches", &launches_of)
      .def("arguments", &arguments_of, nb::arg("means"), nb::arg("quats"), nb::arg("scales"),
           nb::arg("opacities"), nb::arg("colors"), nb::arg("viewmats"), nb::arg("Ks"),
           nb::arg("backgrounds"), nb::arg("out_colors"), nb::arg("out_alphas"), nb::arg("status"),
           nb::arg("workspace"));
  module.attr("GAUSSIAN_CUDA_WORKSPACE_ALIGNMENT") = cuda::kWorkspaceAlignment;
  module.def("gaussian_cuda_plan", &make_plan, nb::kw_only(), nb::arg("gaussians"),
             nb::arg("cameras") = 1, nb::arg("channels") = 3, nb::arg("width"), nb::arg("height"),
             nb::arg("sh_degree") = -1, nb::arg("sh_bases") = 0, nb::arg("half_colors") = false,
             nb::arg("one_background") = false, nb::arg("render_mode") = "RGB",
             nb::arg("rasterize_mode") = "classic", nb::arg("dialect") = "gsplat",
             nb::arg("near_plane") = 0.01f, nb::arg("far_plane") = 1e10f,
             nb::arg("radius_clip") = 0.0f, nb::arg("eps2d") = 0.3f, nb::arg("tile_entries") = 0);
}
