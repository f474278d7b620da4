// Draws frames with every array of inputs, outputs and workspace in an allocation of its own,
// exactly as large as promised: built with the address sanitizer, which then sees any access beside
// one. Prints a line per frame: name, status, whether the picture is finite.
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <limits>
#include <memory>
#include <random>
#include <string>
#include <vector>

#include "gaussian_rasterizer/cuda/plan.h"

extern "C" int talksplat_host_launch(const char*, const unsigned grid[3], const unsigned block[3],
                                     unsigned shared_bytes, const void* arguments, size_t size);
extern "C" const char* talksplat_host_error();

using namespace talksplat;
using namespace talksplat::cuda;

namespace {

struct Scene {
  std::vector<float> means, quats, scales, opacities, colors, viewmats, Ks, backgrounds;
};

template <class T>
std::unique_ptr<T[]> rubbish(size_t count) {
  std::unique_ptr<T[]> out(new T[count]);
  std::fill_n(reinterpret_cast<unsigned char*>(out.get()), count * sizeof(T), 0xA5);
  return out;
}

Scene scene_of(const Problem& problem) {
  std::mt19937 random(7);
  std::normal_distribution<float> normal;
  std::uniform_real_distribution<float> uniform(0.0f, 1.0f);
  const size_t count = problem.gaussians;
  Scene scene;
  for (size_t i = 0; i < 3 * count; ++i) scene.means.push_back(0.4f * normal(random));
  for (size_t i = 0; i < 4 * count; ++i) scene.quats.push_back(normal(random));
  for (size_t i = 0; i < 3 * count; ++i) {
    scene.scales.push_back(0.05f * std::exp(0.6f * normal(random)));
  }
  for (size_t i = 0; i < count; ++i) scene.opacities.push_back(uniform(random));
  const size_t row = problem.sh_degree >= 0 ? 3 * problem.sh_bases : problem.channels;
  for (size_t i = 0; i < row * count; ++i) scene.colors.push_back(uniform(random));
  const size_t pixels =
      problem.one_background ? 1 : static_cast<size_t>(problem.width) * problem.height;
  for (int camera = 0; camera < problem.cameras; ++camera) {
    const float viewmat[16] = {1, 0, 0, 0.1f * camera, 0, 1, 0, 0, 0, 0, 1, 3, 0, 0, 0, 1};
    const float K[9] = {60, 0, 0.5f * problem.width, 0, 60, 0.5f * problem.height, 0, 0, 1};
    scene.viewmats.insert(scene.viewmats.end(), viewmat, viewmat + 16);
    scene.Ks.insert(scene.Ks.end(), K, K + 9);
    for (size_t i = 0; i < problem.channels * pixels; ++i) {
      scene.backgrounds.push_back(uniform(random));
    }
  }
  return scene;
}

void draw(const std::string& name, const Problem& problem, Scene scene) {
  const Plan plan = make_plan(problem);
  const size_t pixels = static_cast<size_t>(problem.width) * problem.height;
  const size_t cameras = problem.cameras, count = problem.gaussians;
  for (std::vector<float>* array :
       {&scene.means, &scene.quats, &scene.scales, &scene.opacities, &scene.colors, &scene.viewmats,
        &scene.Ks, &scene.backgrounds}) {
    array->shrink_to_fit();  // the sanitizer knows the capacity
  }
  std::vector<uint16_t> halves(problem.half_colors ? scene.colors.size() : 0, 0x3800);
  const size_t blended = cameras * output_channels(problem) * pixels;
  const auto out_colors = rubbish<float>(blended), out_alphas = rubbish<float>(cameras * pixels);
  const auto status = rubbish<int32_t>(4);
  const Tensors tensors = {
      scene.means.data(),
      scene.quats.data(),
      scene.scales.data(),
      scene.opacities.data(),
      problem.half_colors ? static_cast<const void*>(halves.data()) : scene.colors.data(),
      scene.viewmats.data(),
      scene.Ks.data(),
      scene.backgrounds.data(),
      out_colors.get(),
      out_alphas.get(),
      status.get()};
  // The layout inside one workspace is for test_plan.py; here every array stands alone.
  void* workspace = std::aligned_alloc(kWorkspaceAlignment, plan.workspace_bytes);
  FrameArguments frame = make_arguments(problem, tensors, workspace);
  std::free(workspace);
  const size_t tiles = static_cast<size_t>(frame.tiles_x) * frame.tiles_y;
  const auto frame_cameras = rubbish<FrameCamera>(cameras);
  const auto splats = rubbish<Splat>(cameras * count);
  const auto ranges = rubbish<TileRange>(cameras * count);
  const auto tile_cursors = rubbish<uint32_t>(cameras * tiles);
  const auto tile_starts = rubbish<uint32_t>(cameras * (tiles + 1));
  const auto pairs = rubbish<uint64_t>(cameras * frame.room);
  frame.frame_cameras = frame_cameras.get();
  frame.splats = splats.get();
  frame.ranges = ranges.get();
  frame.tile_cursors = tile_cursors.get();
  frame.tile_starts = tile_starts.get();
  frame.pairs = pairs.get();
  for (const Launch& launch : plan.launches) {
    if (talksplat_host_launch(launch.kernel, launch.grid, launch.block, launch.shared_bytes, &frame,
                              sizeof(frame)) != 0) {
      std::printf("%s: %s\n", launch.kernel, talksplat_host_error());
      std::exit(1);
    }
  }
  size_t finite = 0, nothing = 0;
  for (size_t i = 0; i < blended; ++i) {
    finite += std::isfinite(out_colors[i]);
    nothing += std::isnan(out_colors[i]);
  }
  const char* picture = finite == blended ? "picture" : nothing == blended ? "none" : "broken";
  std::printf("%s %d %d %d %s\n", name.c_str(), status[kStatusBad], status[kStatusNeeded],
              status[kStatusRoom], picture);
}

}  // namespace

int main() {
  Problem plain;
  plain.gaussians = 150;
  plain.width = 37;
  plain.height = 21;
  draw("plain", plain, scene_of(plain));

  for (const int channels : {5, 16, 40}) {
    Problem problem = plain;
    problem.channels = channels;
    problem.cameras = 2;
    problem.render_mode = RenderMode::kRGBED;
    problem.one_background = channels == 16;
    draw("channels", problem, scene_of(problem));
    problem.half_colors = true;
    draw("halves", problem, scene_of(problem));
  }
  Problem harmonics = plain;
  harmonics.sh_degree = 3;
  harmonics.sh_bases = 16;
  draw("harmonics", harmonics, scene_of(harmonics));

  Problem one_tile = plain;
  one_tile.gaussians = 2500;
  one_tile.width = one_tile.height = 16;
  draw("long_list", one_tile, scene_of(one_tile));

  Problem large = plain;
  large.width = 150;
  large.height = 130;
  Scene large_scene = scene_of(large);
  for (size_t i = 0; i < large_scene.scales.size(); i += 4) large_scene.scales[i] *= 30.0f;
  draw("large", large, large_scene);

  Problem none = plain;
  none.gaussians = 0;
  draw("no_gaussians", none, scene_of(none));

  for (const int64_t room : {1, 17, 200}) {
    Problem narrow = plain;
    narrow.tile_entries = room;
    narrow.cameras = 2;
    draw("overflow", narrow, scene_of(narrow));
  }

  const float inf = std::numeric_limits<float>::infinity();
  for (const float value : {std::nanf(""), inf, -inf}) {
    for (std::vector<float> Scene::* array :
         {&Scene::means, &Scene::quats, &Scene::scales, &Scene::opacities, &Scene::colors,
          &Scene::viewmats, &Scene::Ks}) {
      Scene scene = scene_of(plain);
      std::vector<float>& values = scene.*array;
      for (size_t i = 0; i < values.size(); i += 5) values[i] = value;
      draw("not_finite", plain, scene);
    }
  }
  // Finite, and as bad as that can be.
  for (const Dialect dialect : {Dialect::kGsplat, Dialect::kGsplat15, Dialect::kInria}) {
    for (const float value : {0.0f, 1e-38f, 1e-20f, 1e20f, 3e38f, -3e38f}) {
      for (std::vector<float> Scene::* array :
           {&Scene::means, &Scene::quats, &Scene::scales, &Scene::opacities}) {
        Problem problem = plain;
        problem.rules.dialect = dialect;
        problem.rules.antialiased = value > 1.0f;
        Scene scene = scene_of(problem);
        std::vector<float>& values = scene.*array;
        for (size_t i = 0; i < values.size(); i += 2) values[i] = value;
        draw("extreme", problem, scene);
      }
    }
  }
}
