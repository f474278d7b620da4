// Draws small scenes with every branch of the CUDA rasterizer, for compute-sanitizer to watch.
//
// Every tensor has an allocation of its own, so that reading or writing past its end is seen. What
// comes out is checked too: every element written, numbers where numbers are due, NaN where the
// pairs had no room or the input was not finite. Exits with 1 and a line for whatever does not
// hold.

#include <cuda_runtime.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <exception>
#include <limits>
#include <random>
#include <string>
#include <vector>

#include "cuda/launch.h"
#include "cuda/plan.h"

namespace {

using talksplat::Dialect;
using talksplat::RenderMode;
using talksplat::cuda::Problem;

constexpr unsigned char kPoison = 0xA5;  // as a float neither NaN nor near anything drawn

void check(cudaError_t error, const char* what) {
  if (error == cudaSuccess) return;
  std::fprintf(stderr, "%s: %s (%s)\n", what, cudaGetErrorName(error), cudaGetErrorString(error));
  std::exit(1);
}

// Memory of the device, no larger than asked for, full of poison.
class Buffer {
 public:
  explicit Buffer(size_t bytes) : bytes_(bytes) {
    check(cudaMalloc(&pointer_, std::max<size_t>(bytes, 1)), "cudaMalloc");
    check(cudaMemset(pointer_, kPoison, std::max<size_t>(bytes, 1)), "cudaMemset");
  }
  explicit Buffer(const std::vector<float>& values) : Buffer(values.size() * sizeof(float)) {
    check(cudaMemcpy(pointer_, values.data(), bytes_, cudaMemcpyHostToDevice), "cudaMemcpy");
  }
  ~Buffer() { cudaFree(pointer_); }
  Buffer(const Buffer&) = delete;
  Buffer& operator=(const Buffer&) = delete;

  void* get() const { return pointer_; }

  template <class T>
  std::vector<T> read() const {
    std::vector<T> values(bytes_ / sizeof(T));
    check(cudaMemcpy(values.data(), pointer_, bytes_, cudaMemcpyDeviceToHost), "cudaMemcpy");
    return values;
  }

 private:
  void* pointer_ = nullptr;
  size_t bytes_;
};

struct Case {
  const char* name;
  Problem problem;
  bool background = false;
  bool not_finite = false;  // one NaN among the means
  bool overflow = false;    // less room than the picture needs
};

std::vector<float> normal(std::mt19937& random, size_t count, float mean, float deviation) {
  std::normal_distribution<float> numbers(mean, deviation);
  std::vector<float> values(count);
  for (float& value : values) value = numbers(random);
  return values;
}

// Cameras before the origin, the later ones further away.
std::vector<float> viewmats(int cameras) {
  std::vector<float> values;
  for (int camera = 0; camera < cameras; ++camera) {
    const float distance = 0.7f + 0.2f * static_cast<float>(camera);
    const float rows[16] = {1, 0, 0, 0, 0, -1, 0, 0, 0, 0, -1, distance, 0, 0, 0, 1};
    values.insert(values.end(), rows, rows + 16);
  }
  return values;
}

std::vector<float> intrinsics(const Problem& problem) {
  const float width = static_cast<float>(problem.width);
  const float height = static_cast<float>(problem.height);
  std::vector<float> values;
  for (int camera = 0; camera < problem.cameras; ++camera) {
    const float rows[9] = {2.3f * height, 0, width / 2, 0, 2.3f * height, height / 2, 0, 0, 1};
    values.insert(values.end(), rows, rows + 9);
  }
  return values;
}

// The bits of halves between 0 and 1.
std::vector<float> half_colors(std::mt19937& random, size_t count) {
  std::vector<uint16_t> halves((count + 1) / 2 * 2);
  for (uint16_t& half : halves) half = static_cast<uint16_t>(random() % 0x3c00u);
  std::vector<float> values(halves.size() / 2);
  std::memcpy(values.data(), halves.data(), halves.size() * sizeof(uint16_t));
  return values;
}

bool poisoned(float value) {
  uint32_t bits;
  std::memcpy(&bits, &value, sizeof bits);
  return bits == 0xA5A5A5A5u;
}

int complain(const Case& one, const std::string& what) {
  std::printf("%s: %s\n", one.name, what.c_str());
  return 1;
}

int draw(const Case& one) {
  const Problem& problem = one.problem;
  const size_t count = static_cast<size_t>(problem.gaussians);
  const size_t pixels = static_cast<size_t>(problem.width) * problem.height * problem.cameras;
  std::mt19937 random(1);

  std::vector<float> means = normal(random, 3 * count, 0.0f, 0.06f);
  if (one.not_finite) means[means.size() / 2] = std::numeric_limits<float>::quiet_NaN();
  std::vector<float> scales = normal(random, 3 * count, -5.0f, 0.6f);
  for (float& scale : scales) scale = std::exp(scale);
  std::vector<float> opacities = normal(random, count, 1.2f, 1.6f);
  for (float& opacity : opacities) opacity = 1.0f / (1.0f + std::exp(-opacity));
  const size_t row = problem.sh_degree < 0 ? problem.channels : 3 * problem.sh_bases;

  const Buffer device_means(means), quats(normal(random, 4 * count, 0.0f, 1.0f));
  const Buffer device_scales(scales), device_opacities(opacities);
  const Buffer colors(problem.half_colors ? half_colors(random, row * count)
                                          : normal(random, row * count, 0.5f, 0.2f));
  const Buffer views(viewmats(problem.cameras)), Ks(intrinsics(problem));
  const size_t behind = problem.one_background
                            ? static_cast<size_t>(problem.channels) * problem.cameras
                            : problem.channels * pixels;
  const Buffer backgrounds(normal(random, one.background ? behind : 0, 0.5f, 0.1f));
  const int channels = talksplat::cuda::output_channels(problem);
  const Buffer out_colors(channels * pixels * sizeof(float)), out_alphas(pixels * sizeof(float));
  const Buffer status(4 * sizeof(int32_t));

  const talksplat::cuda::Plan plan = talksplat::cuda::make_plan(problem);
  const Buffer workspace(plan.workspace_bytes);
  const talksplat::cuda::Tensors tensors = {device_means.get(),
                                            quats.get(),
                                            device_scales.get(),
                                            device_opacities.get(),
                                            colors.get(),
                                            views.get(),
                                            Ks.get(),
                                            one.background ? backgrounds.get() : nullptr,
                                            out_colors.get(),
                                            out_alphas.get(),
                                            status.get()};
  const auto arguments = talksplat::cuda::make_arguments(problem, tensors, workspace.get());

  cudaStream_t stream;
  check(cudaStreamCreate(&stream), "cudaStreamCreate");
  // Twice in the same workspace: what the first frame left there must not matter.
  for (int frame = 0; frame < 2; ++frame) {
    check(talksplat::cuda::enqueue(plan, arguments, stream), one.name);
    check(cudaStreamSynchronize(stream), one.name);
  }
  check(cudaStreamDestroy(stream), "cudaStreamDestroy");

  int wrong = 0;
  const bool refused = one.not_finite || one.overflow;
  for (const Buffer* buffer : {&out_colors, &out_alphas}) {
    size_t unwritten = 0, unexpected = 0;
    for (const float value : buffer->read<float>()) {
      unwritten += poisoned(value);
      unexpected += refused ? !std::isnan(value) : !std::isfinite(value);
    }
    const char* name = buffer == &out_colors ? "colors" : "alphas";
    if (unwritten) wrong += complain(one, std::to_string(unwritten) + " of " + name + " unwritten");
    if (unexpected) {
      wrong += complain(one, std::to_string(unexpected) + " of " + name +
                                 (refused ? " are not NaN" : " are not finite"));
    }
  }
  const std::vector<int32_t> said = status.read<int32_t>();
  if ((said[0] != 0) != one.not_finite) {
    wrong += complain(one, "status says of the input " + std::to_string(said[0]));
  }
  if ((said[1] > said[2]) != one.overflow) {
    wrong += complain(
        one, "status says " + std::to_string(said[1]) + " pairs of " + std::to_string(said[2]));
  }
  std::printf("%s: %s, %d pairs\n", one.name, wrong ? "wrong" : "as expected", said[1]);
  return wrong;
}

std::vector<Case> cases(int64_t gaussians) {
  Problem usual;
  usual.gaussians = gaussians;
  usual.width = 120;  // no whole number of tiles
  usual.height = 88;
  const auto with = [&](auto change) {
    Problem problem = usual;
    change(problem);
    return problem;
  };
  return {
      {"three channels", usual},
      {"inria over a picture", with([](Problem& p) { p.rules.dialect = Dialect::kInria; }), true},
      {"gsplat 1.5, antialiased", with([](Problem& p) {
         p.rules.dialect = Dialect::kGsplat15;
         p.rules.antialiased = true;
       })},
      {"32 channels", with([](Problem& p) { p.channels = 32; })},
      {"32 half channels", with([](Problem& p) {
         p.channels = 32;
         p.half_colors = true;
       })},
      {"five channels over one colour", with([](Problem& p) {
         p.channels = 5;
         p.one_background = true;
       }),
       true},
      {"40 channels", with([](Problem& p) { p.channels = 40; })},
      {"spherical harmonics, two cameras", with([](Problem& p) {
         p.sh_degree = 3;
         p.sh_bases = 16;
         p.cameras = 2;
       })},
      {"colour and expected depth", with([](Problem& p) { p.render_mode = RenderMode::kRGBED; })},
      {"depth", with([](Problem& p) { p.render_mode = RenderMode::kD; })},
      {"no Gaussian", with([](Problem& p) { p.gaussians = 0; }), true},
      {"one pixel", with([](Problem& p) { p.width = p.height = 1; })},
      {"long lists", with([](Problem& p) {  // more Gaussians than shared memory sorts
         p.gaussians *= 4;
         p.width = p.height = 40;
       })},
      {"not finite", usual, false, true},
      {"too many pairs", with([](Problem& p) { p.tile_entries = 64; }), false, false, true},
  };
}

}  // namespace

int main(int count, char** arguments) {
  const int64_t gaussians = count > 1 ? std::atoll(arguments[1]) : 3000;
  int wrong = 0;
  try {
    for (const Case& one : cases(gaussians)) wrong += draw(one);
  } catch (const std::exception& error) {
    std::fprintf(stderr, "%s\n", error.what());
    return 1;
  }
  return wrong == 0 ? 0 : 1;
}
