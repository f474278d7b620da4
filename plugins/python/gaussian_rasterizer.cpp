// Shapes are checked in talksplat.rasterization; here arrays become pointers and strides.
#include <nanobind/nanobind.h>
#include <nanobind/ndarray.h>
#include <nanobind/stl/optional.h>
#include <nanobind/stl/string.h>

#include <optional>

#include "cpu/rasterizer.h"
#include "cpu/thread_pool.h"

namespace nb = nanobind;

namespace {

using namespace talksplat;

using Input = nb::ndarray<const float, nb::c_contig, nb::device::cpu>;
using Output = nb::ndarray<float, nb::c_contig, nb::device::cpu>;
using Image = nb::ndarray<float, nb::device::cpu>;             // any strides
using ConstImage = nb::ndarray<const float, nb::device::cpu>;  // any strides

// What both directions need to know, filled in by talksplat.rasterization.
struct Settings {
  int width, height;
  float near_plane, far_plane, radius_clip, eps2d;
  int sh_degree;  // -1: colors are features
  int dialect;
  bool antialiased, with_colors, with_depth, expected_depth;
  int threads;
};

template <class Array>
ImageView view_of(const Array& images, size_t camera) {
  return {const_cast<float*>(images.data()) + static_cast<ptrdiff_t>(camera) * images.stride(0),
          images.stride(1), images.stride(2), images.stride(3)};
}

// [C,D] or [C,H,W,D].
ImageView background_of(const std::optional<ConstImage>& background, size_t camera) {
  if (!background) return {};
  if (background->ndim() == 4) return view_of(*background, camera);
  return {const_cast<float*>(background->data()) +
              static_cast<ptrdiff_t>(camera) * background->stride(0),
          0, 0, background->stride(1)};
}

// The Gaussians as one camera sees them: `colors` may have a leading camera axis.
Gaussians gaussians_of(const Input& means, const Input& quats, const Input& scales,
                       const Input& opacities, const Input& colors, const Settings& settings,
                       size_t camera) {
  Gaussians out;
  out.count = static_cast<int64_t>(means.shape(0));
  out.means = means.data();
  out.quats = quats.data();
  out.scales = scales.data();
  out.opacities = opacities.data();
  out.sh_degree = settings.with_colors ? settings.sh_degree : -1;
  if (!settings.with_colors) return out;
  const size_t own_axes = settings.sh_degree >= 0 ? 3 : 2;
  const size_t lead = colors.ndim() - own_axes;
  size_t per_camera = 1;
  for (size_t axis = lead; axis < colors.ndim(); ++axis) per_camera *= colors.shape(axis);
  out.colors = colors.data() + (lead == 1 ? camera * per_camera : 0);
  out.color_channels = static_cast<int>(colors.shape(colors.ndim() - 1));
  out.sh_bases = settings.sh_degree >= 0 ? static_cast<int>(colors.shape(lead + 1)) : 0;
  return out;
}

uint32_t forward(Workspace& workspace, const Settings& settings, const Input& means,
                 const Input& quats, const Input& scales, const Input& opacities,
                 const Input& colors, const Input& viewmats, const Input& Ks,
                 const std::optional<ConstImage>& backgrounds, const Image& out_colors,
                 const Image& out_alphas, bool keep_views) {
  const nb::gil_scoped_release release;
  Request request;
  request.rules.dialect = static_cast<Dialect>(settings.dialect);
  request.rules.antialiased = settings.antialiased;
  request.rules.near_plane = settings.near_plane;
  request.rules.far_plane = settings.far_plane;
  request.rules.radius_clip = settings.radius_clip;
  request.rules.low_pass = settings.eps2d;
  request.width = settings.width;
  request.height = settings.height;
  request.channels = static_cast<int>(out_colors.shape(3));
  request.with_depth = settings.with_depth;
  request.expected_depth = settings.expected_depth;
  request.threads = settings.threads;
  request.keep_for_backward = keep_views;
  workspace.times = {};
  for (size_t camera = 0; camera < viewmats.shape(0); ++camera) {
    const Gaussians gaussians =
        gaussians_of(means, quats, scales, opacities, colors, settings, camera);
    const uint32_t bad =
        rasterize(kernels(), request, gaussians,
                  make_camera(viewmats.data() + 16 * camera, Ks.data() + 9 * camera, settings.width,
                              settings.height, request.rules.dialect),
                  background_of(backgrounds, camera), view_of(out_colors, camera),
                  view_of(out_alphas, camera), workspace, keep_views ? camera : 0);
    if (bad != 0) return bad;
  }
  return 0;
}

void backward(Workspace& workspace, const Settings& settings, const Input& means,
              const Input& quats, const Input& scales, const Input& opacities, const Input& colors,
              const std::optional<ConstImage>& backgrounds, const ConstImage& grad_out_colors,
              const ConstImage& grad_out_alphas, const Output& grad_means, const Output& grad_quats,
              const Output& grad_scales, const Output& grad_opacities, const Output& grad_colors) {
  const nb::gil_scoped_release release;
  workspace.times.blend_backward = workspace.times.project_backward = 0.0;
  for (size_t camera = 0; camera < grad_out_colors.shape(0); ++camera) {
    const Gaussians gaussians =
        gaussians_of(means, quats, scales, opacities, colors, settings, camera);
    const ptrdiff_t color_offset =
        gaussians.colors == nullptr ? 0 : gaussians.colors - colors.data();
    const GaussianGradients out = {grad_means.data(), grad_quats.data(), grad_scales.data(),
                                   grad_opacities.data(), grad_colors.data() + color_offset};
    rasterize_backward(kernels(), settings.threads, gaussians, background_of(backgrounds, camera),
                       view_of(grad_out_colors, camera), view_of(grad_out_alphas, camera), out,
                       workspace, camera);
  }
}

void to_uint8(const ConstImage& image, const nb::ndarray<uint8_t, nb::c_contig>& out,
              bool channel_first) {
  const int row = channel_first ? 1 : 0, column = channel_first ? 2 : 1,
            channel = channel_first ? 0 : 2;
  const nb::gil_scoped_release release;
  const int width = static_cast<int>(image.shape(column));
  for (size_t y = 0; y < image.shape(row); ++y) {
    kernels().to_uint8(image.data() + static_cast<ptrdiff_t>(y) * image.stride(row),
                       image.stride(column), image.stride(channel), width,
                       out.data() + y * width * 3);
  }
}

}  // namespace

void bind_gaussian_rasterizer(nb::module_& module) {
  // Workspaces held by Python globals outlive the module at exit; the warning would reach users.
  nb::set_leak_warnings(false);
  nb::exception<TooManyTileEntries>(module, "TooManyTileEntries");
  nb::class_<Settings>(module, "RasterizeSettings")
      .def(nb::init<>())
      .def_rw("width", &Settings::width)
      .def_rw("height", &Settings::height)
      .def_rw("near_plane", &Settings::near_plane)
      .def_rw("far_plane", &Settings::far_plane)
      .def_rw("radius_clip", &Settings::radius_clip)
      .def_rw("eps2d", &Settings::eps2d)
      .def_rw("sh_degree", &Settings::sh_degree)
      .def_rw("dialect", &Settings::dialect)
      .def_rw("antialiased", &Settings::antialiased)
      .def_rw("with_colors", &Settings::with_colors)
      .def_rw("with_depth", &Settings::with_depth)
      .def_rw("expected_depth", &Settings::expected_depth)
      .def_rw("threads", &Settings::threads);
  nb::class_<StageTimes>(module, "RasterizeStageTimes")
      .def_ro("project", &StageTimes::project)
      .def_ro("sort", &StageTimes::sort)
      .def_ro("bin", &StageTimes::bin)
      .def_ro("blend", &StageTimes::blend)
      .def_ro("blend_backward", &StageTimes::blend_backward)
      .def_ro("project_backward", &StageTimes::project_backward);
  nb::class_<Workspace>(module, "RasterizeWorkspace")
      .def(nb::init<>())
      .def_ro("times", &Workspace::times);
  module.def("rasterize", &forward);
  module.def("rasterize_backward", &backward, nb::arg(), nb::arg(), nb::arg(), nb::arg(), nb::arg(),
             nb::arg(), nb::arg(), nb::arg().none(), nb::arg(), nb::arg(), nb::arg(), nb::arg(),
             nb::arg(), nb::arg(), nb::arg());
  module.def("available_processors", &available_processors);
  module.def("instruction_set", [] { return std::string(kernels().name); });
  module.def("choose_instruction_set", [](const std::string& name) {
    const Kernels* found = find_kernels(name.c_str());
    if (found != nullptr) choose_kernels(*found);
    return found != nullptr;
  });
  module.def("to_uint8", &to_uint8);
}
