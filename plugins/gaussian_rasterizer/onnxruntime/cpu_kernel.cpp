#include "cpu_kernel.h"

#include <cmath>
#include <cstring>
#include <utility>

namespace talksplat::onnxruntime {
namespace {

[[noreturn]] void refuse(const std::string& sentence) { throw std::invalid_argument(sentence); }

// Channel-first [C,channels,H,W].
ImageView view_of(const float* images, const op::Sizes& sizes, int camera, int channels) {
  const ptrdiff_t pixels = static_cast<ptrdiff_t>(sizes.width) * sizes.height;
  const ptrdiff_t first = static_cast<ptrdiff_t>(camera) * channels * pixels;
  return {const_cast<float*>(images) + first, sizes.width, 1, pixels};
}

ImageView background_of(const float* backgrounds, const op::Sizes& sizes, int camera) {
  if (!sizes.one_background) return view_of(backgrounds, sizes, camera, sizes.channels);
  return {const_cast<float*>(backgrounds) + static_cast<ptrdiff_t>(camera) * sizes.channels, 0, 0,
          1};
}

int64_t count_not_finite(const float* values, int64_t count) {
  int64_t found = 0;
  for (int64_t i = 0; i < count; ++i) found += !std::isfinite(values[i]);
  return found;
}

[[noreturn]] void refuse_gaussians(const Inputs& inputs) {
  std::string found;
  for (const op::Input input : {op::kMeans, op::kQuats, op::kScales, op::kOpacities, op::kColors}) {
    int64_t size = 1;
    for (const int64_t axis : inputs.shapes[input]) size *= axis;
    const int64_t count = count_not_finite(inputs.data[input], size);
    if (count == 0) continue;
    found += (found.empty() ? "" : ", ") + std::string(op::kInputNames[input]) + " (" +
             std::to_string(count) + " of " + std::to_string(size) + " values)";
  }
  refuse("Gaussians must be finite; found NaN or infinity in " + found);
}

void check_cameras(const op::Settings& settings, int cameras, const float* viewmats,
                   const float* Ks) {
  const char* expected_finite = ": expected finite values, found NaN or infinity";
  if (count_not_finite(viewmats, int64_t{16} * cameras) != 0) {
    refuse(std::string("viewmats") + expected_finite);
  }
  if (count_not_finite(Ks, int64_t{9} * cameras) != 0) refuse(std::string("Ks") + expected_finite);
  for (int camera = 0; camera < cameras; ++camera) {
    if (!(Ks[9 * camera] > 0.0f && Ks[9 * camera + 4] > 0.0f)) {
      refuse("Ks: expected positive focal lengths at [0, 0] and [1, 1]");
    }
    if (settings.sh_degree >= 0 && is_singular(viewmats + 16 * camera)) {
      refuse(
          "viewmats: expected invertible matrices, which give spherical harmonics the cameras' "
          "positions; found a singular one");
    }
  }
}

// A workspace for the time of one call.
class Loan {
 public:
  explicit Loan(Workspaces& workspaces) : owner_(workspaces), workspace_(workspaces.borrow()) {}
  ~Loan() { owner_.give_back(std::move(workspace_)); }
  Loan(const Loan&) = delete;
  Loan& operator=(const Loan&) = delete;
  Workspace& operator*() { return *workspace_; }

 private:
  Workspaces& owner_;
  std::unique_ptr<Workspace> workspace_;
};

}  // namespace

std::unique_ptr<Workspace> Workspaces::borrow() {
  {
    const std::lock_guard lock(mutex_);
    if (!free_.empty()) {
      std::unique_ptr<Workspace> workspace = std::move(free_.back());
      free_.pop_back();
      return workspace;
    }
  }
  return std::make_unique<Workspace>();
}

void Workspaces::give_back(std::unique_ptr<Workspace> workspace) {
  const std::lock_guard lock(mutex_);
  free_.push_back(std::move(workspace));
}

CpuKernel::CpuKernel(const OrtApi& api, const OrtKernelInfo* info, int threads)
    : api_(api), settings_(op::settings_of(attributes_of(api, info))), threads_(threads) {}

void CpuKernel::compute(OrtKernelContext* context) {
  const Inputs inputs = inputs_of(api_, context);
  const op::Sizes sizes = op::sizes_of(settings_, inputs.shapes);
  const float* viewmats = inputs.data[op::kViewmats];
  const float* Ks = inputs.data[op::kKs];
  check_cameras(settings_, sizes.cameras, viewmats, Ks);
  const Outputs outputs = outputs_of(api_, context, settings_, sizes);

  const bool with_colors = has_colors(settings_.render_mode);
  Gaussians gaussians;
  gaussians.count = sizes.gaussians;
  gaussians.means = inputs.data[op::kMeans];
  gaussians.quats = inputs.data[op::kQuats];
  gaussians.scales = inputs.data[op::kScales];
  gaussians.opacities = inputs.data[op::kOpacities];
  if (with_colors) {
    gaussians.colors = inputs.data[op::kColors];
    gaussians.color_channels = sizes.channels;
    gaussians.sh_degree = settings_.sh_degree;
    gaussians.sh_bases = sizes.sh_bases;
  }
  Request request;
  request.rules = settings_.rules;
  request.width = sizes.width;
  request.height = sizes.height;
  request.channels = sizes.blended(settings_);
  request.with_depth = has_depth(settings_.render_mode);
  request.expected_depth = has_expected_depth(settings_.render_mode);
  request.threads = threads_;

  Loan workspace(workspaces_);
  for (int camera = 0; camera < sizes.cameras; ++camera) {
    const ImageView background =
        with_colors ? background_of(inputs.data[op::kBackgrounds], sizes, camera) : ImageView{};
    uint32_t bad = 0;
    try {
      bad = rasterize(kernels(), request, gaussians,
                      make_camera(viewmats + 16 * camera, Ks + 9 * camera, sizes.width,
                                  sizes.height, settings_.rules.dialect),
                      background, view_of(outputs.colors, sizes, camera, request.channels),
                      view_of(outputs.alphas, sizes, camera, 1), *workspace, 0);
    } catch (const TooManyTileEntries& error) {
      refuse(std::to_string(sizes.gaussians) + " Gaussians on " + std::to_string(sizes.width) +
             " x " + std::to_string(sizes.height) + " pixels: their tile lists " + error.what() +
             "; make the image smaller, or scales or the number of Gaussians");
    }
    if (bad != 0) refuse_gaussians(inputs);
  }
  std::memset(outputs.status, 0, 4 * sizeof(int32_t));
}

}  // namespace talksplat::onnxruntime
