#include "plan.h"

#include <algorithm>
#include <cmath>
#include <string>

#include "../bounds.h"

namespace talksplat::cuda {
namespace {

void check(const Problem& problem) {
  within("gaussians", problem.gaussians, 0, kMaxGaussians);
  within("cameras", problem.cameras, 1, kMaxCameras);
  within("width", problem.width, 1, kMaxSide);
  within("height", problem.height, 1, kMaxSide);
  within("tile_entries", problem.tile_entries, 0, kMaxTileEntries);
  within("sh_degree", problem.sh_degree, -1, kMaxShDegree);
  if (has_colors(problem.render_mode)) within("channels", problem.channels, 1, kMaxChannels);
  if (has_colors(problem.render_mode) && problem.sh_degree >= 0) {
    within("channels of spherical harmonics", problem.channels, 3, 3);
    const int degree = problem.sh_degree;
    within("sh_bases", problem.sh_bases, (degree + 1) * (degree + 1), kMaxChannels);
  }
}

int64_t divide_up(int64_t a, int64_t b) { return (a + b - 1) / b; }

// The arrays of the workspace one after the other. With a base of nullptr it only measures.
class Layout {
 public:
  explicit Layout(void* base) : base_(static_cast<char*>(base)) {}

  template <class T>
  T* take(size_t count) {
    const size_t at = bytes_;
    // One element more than none, so that no two arrays begin at one place.
    const size_t size = std::max<size_t>(count, 1) * sizeof(T);
    bytes_ += (size + kWorkspaceAlignment - 1) / kWorkspaceAlignment * kWorkspaceAlignment;
    return base_ == nullptr ? nullptr : reinterpret_cast<T*>(base_ + at);
  }
  size_t bytes() const { return bytes_; }

 private:
  char* base_;
  size_t bytes_ = 0;
};

FrameArguments arguments_of(const Problem& problem) {
  FrameArguments out = {};
  out.rules = checked(problem.rules);
  out.max_alpha = out.rules.max_alpha();
  // Stopping below 1e-4 is stopping at or below the number before it.
  out.last_transmittance =
      out.rules.stop_at_equality() ? kMinTransmittance : std::nextafter(kMinTransmittance, 0.0f);
  out.render_mode = problem.render_mode;
  out.gaussians = static_cast<uint32_t>(problem.gaussians);
  out.cameras = static_cast<uint32_t>(problem.cameras);
  out.color_channels = has_colors(problem.render_mode) ? problem.channels : 0;
  out.channels = output_channels(problem);
  out.width = problem.width;
  out.height = problem.height;
  out.tiles_x = static_cast<int>(divide_up(problem.width, kTileSize));
  out.tiles_y = static_cast<int>(divide_up(problem.height, kTileSize));
  out.sh_degree = problem.sh_degree;
  out.sh_bases = problem.sh_bases;
  out.room = static_cast<uint32_t>(tile_entries(problem));
  out.half_colors = problem.half_colors;
  out.one_background = problem.one_background;
  return out;
}

void lay_out(FrameArguments& out, Layout& layout) {
  const size_t cameras = out.cameras, gaussians = out.gaussians;
  const size_t tiles = static_cast<size_t>(out.tiles_x) * out.tiles_y;
  out.frame_cameras = layout.take<FrameCamera>(cameras);
  out.splats = layout.take<Splat>(cameras * gaussians);
  out.ranges = layout.take<TileRange>(cameras * gaussians);
  out.tile_cursors = layout.take<uint32_t>(cameras * tiles);
  out.tile_starts = layout.take<uint32_t>(cameras * (tiles + 1));
  out.pairs = layout.take<uint64_t>(cameras * out.room);
}

const char* blend_kernel(int channels) {
  static constexpr const char* kInSplats[] = {"talksplat_blend_1", "talksplat_blend_2",
                                              "talksplat_blend_3", "talksplat_blend_4"};
  if (channels <= 4) return kInSplats[channels - 1];
  return channels <= 8    ? "talksplat_blend_8"
         : channels <= 16 ? "talksplat_blend_16"
                          : "talksplat_blend_32";
}

}  // namespace

int64_t tile_entries(const Problem& problem) {
  if (problem.tile_entries > 0) return problem.tile_entries;
  const int64_t tiles = divide_up(problem.width, kTileSize) * divide_up(problem.height, kTileSize);
  // No more than every Gaussian in every tile.
  const int64_t most =
      problem.gaussians > kMaxTileEntries / tiles ? kMaxTileEntries : problem.gaussians * tiles;
  // Small Gaussians meet few tiles; each tile is met by some. Heads of 5,000 to 176,000 Gaussians,
  // on 512 and 1024 pixels, near and far, need less than a third of this (test_plan.py).
  const int64_t usual = 16 * problem.gaussians + 256 * tiles;
  return std::clamp<int64_t>(usual, 1, std::max<int64_t>(most, 1));
}

int output_channels(const Problem& problem) {
  return blended_channels(problem.render_mode, problem.channels);
}

Plan make_plan(const Problem& problem) {
  check(problem);
  FrameArguments frame = arguments_of(problem);
  Layout layout(nullptr);
  lay_out(frame, layout);
  const unsigned cameras = frame.cameras;
  const unsigned tiles = static_cast<unsigned>(frame.tiles_x) * frame.tiles_y;
  const unsigned passes =
      frame.channels <= 4 ? 1 : static_cast<unsigned>(divide_up(frame.channels, kChannelsAPass));
  const unsigned by_tile = static_cast<unsigned>(divide_up(tiles, kThreads));
  const unsigned by_gaussian =
      static_cast<unsigned>(std::max<int64_t>(divide_up(frame.gaussians, kThreads), 1));
  Plan plan;
  plan.workspace_bytes = layout.bytes();
  plan.launches = {
      {"talksplat_prepare", {by_tile, cameras, 1}, {kThreads, 1, 1}, 0},
      {"talksplat_project", {by_gaussian, cameras, 1}, {kThreads, 1, 1}, 0},
      {"talksplat_scan", {cameras, 1, 1}, {kScanThreads, 1, 1}, 0},
      {"talksplat_scatter", {by_gaussian, cameras, 1}, {kThreads, 1, 1}, 0},
      {"talksplat_sort", {tiles, cameras, 1}, {kSortThreads, 1, 1}, 0},
      {blend_kernel(frame.channels), {tiles, cameras, passes}, {kBlendThreads, 1, 1}, 0},
  };
  return plan;
}

FrameArguments make_arguments(const Problem& problem, const Tensors& tensors, void* workspace) {
  if (workspace == nullptr || reinterpret_cast<uintptr_t>(workspace) % kWorkspaceAlignment != 0) {
    throw std::invalid_argument("workspace: expected an address that is a multiple of " +
                                std::to_string(kWorkspaceAlignment));
  }
  FrameArguments out = arguments_of(problem);
  Layout layout(workspace);
  lay_out(out, layout);
  out.means = static_cast<const float*>(tensors.means);
  out.quats = static_cast<const float*>(tensors.quats);
  out.scales = static_cast<const float*>(tensors.scales);
  out.opacities = static_cast<const float*>(tensors.opacities);
  out.colors = tensors.colors;
  out.viewmats = static_cast<const float*>(tensors.viewmats);
  out.Ks = static_cast<const float*>(tensors.Ks);
  out.backgrounds = static_cast<const float*>(tensors.backgrounds);
  out.out_colors = static_cast<float*>(tensors.out_colors);
  out.out_alphas = static_cast<float*>(tensors.out_alphas);
  out.status = static_cast<int32_t*>(tensors.status);
  const size_t four = 4 * (problem.half_colors ? sizeof(uint16_t) : sizeof(float));
  out.wide_rows =
      problem.channels % 4 == 0 && reinterpret_cast<uintptr_t>(tensors.colors) % four == 0;
  return out;
}

}  // namespace talksplat::cuda
