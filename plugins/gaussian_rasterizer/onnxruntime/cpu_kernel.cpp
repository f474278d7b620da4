#include "cpu_kernel.h"

#include <cmath>
#include <cstring>

namespace talksplat::onnxruntime {
namespace {

// Channel-first [C,channels,H,W].
ImageView view_of(const float* images, const Sizes& sizes, int64_t camera, int channels) {
  const ptrdiff_t pixels = static_cast<ptrdiff_t>(sizes.width) * sizes.height;
  return {const_cast<float*>(images) + camera * channels * pixels, sizes.width, 1, pixels};
}

ImageView background_of(const float* backgrounds, const Sizes& sizes, int64_t camera) {
  if (!sizes.one_background) return view_of(backgrounds, sizes, camera, sizes.channels);
  return {const_cast<float*>(backgrounds) + camera * sizes.channels, 0, 0, 1};
}

int64_t count_not_finite(const float* values, int64_t count) {
  int64_t found = 0;
  for (int64_t i = 0; i < count; ++i) found += !std::isfinite(values[i]);
  return found;
}

[[noreturn]] void refuse_not_finite(const Inputs& inputs) {
  const struct {
    const char* name;
    Input input;
  } arrays[] = {{"means", kMeans},
                {"quats", kQuats},
                {"scales", kScales},
                {"opacities", kOpacities},
                {"colors", kColors}};
  std::string found;
  for (const auto& [name, index] : arrays) {
    int64_t size = 1;
    for (int64_t axis : inputs[index].shape) size *= axis;
    const int64_t count = count_not_finite(inputs[index].data, size);
    if (count == 0) continue;
    found += (found.empty() ? "" : ", ") + std::string(name) + " (" + std::to_string(count) +
             " of " + std::to_string(size) + " values)";
  }
  refuse("Gaussians must be finite; found NaN or infinity in " + found + ".");
}

// A workspace for the time of one call.
class Loan {
 public:
  explicit Loan(Workspaces& workspaces) : owner_(workspaces), workspace_(workspaces.borrow()) {}
  ~Loan() { owner_.give_back(std::move(workspace_)); }
  Loan(const Loan&) = delete;
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
    : api_(api), settings_(read_settings(Attributes(api, info))), threads_(threads) {}

void CpuKernel::compute(OrtKernelContext* context) {
  Inputs inputs;
  for (size_t index = 0; index < kInputs; ++index) inputs[index] = input(api_, context, index);
  const Sizes sizes = check_shapes(settings_, inputs);
  const float* viewmats = inputs[kViewmats].data;
  const float* Ks = inputs[kKs].data;
  check_cameras(settings_, sizes, viewmats, Ks);

  const int channels = sizes.blended(settings_);
  float* colors = output<float>(api_, context, kOutColors,
                                {sizes.cameras, channels, sizes.height, sizes.width});
  float* alphas =
      output<float>(api_, context, kOutAlphas, {sizes.cameras, 1, sizes.height, sizes.width});
  int32_t* status = output<int32_t>(api_, context, kOutStatus, {4});

  Gaussians gaussians;
  gaussians.count = sizes.gaussians;
  gaussians.means = inputs[kMeans].data;
  gaussians.quats = inputs[kQuats].data;
  gaussians.scales = inputs[kScales].data;
  gaussians.opacities = inputs[kOpacities].data;
  if (settings_.with_colors) {
    gaussians.colors = inputs[kColors].data;
    gaussians.color_channels = sizes.channels;
    gaussians.sh_degree = settings_.sh_degree;
    gaussians.sh_bases = sizes.sh_bases;
  }
  Request request;
  request.rules = settings_.rules;
  request.width = sizes.width;
  request.height = sizes.height;
  request.channels = channels;
  request.with_depth = settings_.with_depth;
  request.expected_depth = settings_.expected_depth;
  request.threads = threads_;

  Loan workspace(workspaces_);
  for (int64_t camera = 0; camera < sizes.cameras; ++camera) {
    const ImageView background = settings_.with_colors
                                     ? background_of(inputs[kBackgrounds].data, sizes, camera)
                                     : ImageView{};
    uint32_t bad = 0;
    try {
      bad = rasterize(kernels(), request, gaussians,
                      make_camera(viewmats + 16 * camera, Ks + 9 * camera, sizes.width,
                                  sizes.height, settings_.rules.dialect),
                      background, view_of(colors, sizes, camera, channels),
                      view_of(alphas, sizes, camera, 1), *workspace, 0);
    } catch (const TooManyTileEntries& error) {
      refuse(std::to_string(sizes.gaussians) + " Gaussians on " + std::to_string(sizes.width) +
             " x " + std::to_string(sizes.height) + " pixels: their tile lists " + error.what() +
             "; make the image smaller, or scales or the number of Gaussians.");
    }
    if (bad != 0) refuse_not_finite(inputs);
  }
  std::memset(status, 0, 4 * sizeof(int32_t));
}

}  // namespace talksplat::onnxruntime
