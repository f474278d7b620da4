// Draws a moving cloud frame after frame and prints how often memory was asked for in each.
#include <atomic>
#include <cstddef>
#include <cstdio>
#include <random>
#include <vector>

#include "cpu/rasterizer.h"

static std::atomic<int> allocations{0};

// glibc's own functions under other names; every way to memory on the heap leads through these.
extern "C" {
void* __libc_malloc(std::size_t size);
void* __libc_calloc(std::size_t count, std::size_t size);
void* __libc_realloc(void* block, std::size_t size);
void* __libc_memalign(std::size_t alignment, std::size_t size);

void* malloc(std::size_t size) {
  ++allocations;
  return __libc_malloc(size);
}
void* calloc(std::size_t count, std::size_t size) {
  ++allocations;
  return __libc_calloc(count, size);
}
void* realloc(void* block, std::size_t size) {
  ++allocations;
  return __libc_realloc(block, size);
}
void* aligned_alloc(std::size_t alignment, std::size_t size) {
  ++allocations;
  return __libc_memalign(alignment, size);
}
int posix_memalign(void** block, std::size_t alignment, std::size_t size) {
  ++allocations;
  *block = __libc_memalign(alignment, size);
  return 0;
}
}

namespace talksplat {
#if defined(__x86_64__)
// Named by the rasterizer, not called here.
const Kernels& avx2_kernels() { return portable_kernels(); }
const Kernels& avx512_kernels() { return portable_kernels(); }
#endif
}  // namespace talksplat

using namespace talksplat;

int main() {
  constexpr int kCount = 2000, kSize = 128, kFrames = 8;
  for (const int channels : {3, 32}) {
    std::mt19937 random(1);
    std::uniform_real_distribution<float> uniform(-1, 1);
    std::vector<float> means(kCount * 3), quats(kCount * 4), scales(kCount * 3, 0.05f);
    std::vector<float> opacities(kCount, 0.5f), colors(kCount * channels, 0.5f);
    for (float& x : means) x = uniform(random);
    for (float& x : quats) x = uniform(random);
    Gaussians gaussians;
    gaussians.count = kCount;
    gaussians.means = means.data();
    gaussians.quats = quats.data();
    gaussians.scales = scales.data();
    gaussians.opacities = opacities.data();
    gaussians.colors = colors.data();
    gaussians.color_channels = channels;
    const float viewmat[16] = {1, 0, 0, 0, 0, 1, 0, 0, 0, 0, 1, 4, 0, 0, 0, 1};
    const float K[9] = {200, 0, kSize / 2, 0, 200, kSize / 2, 0, 0, 1};
    const Camera camera = make_camera(viewmat, K, kSize, kSize, Dialect::kGsplat);
    std::vector<float> image(kSize * kSize * channels), alpha(kSize * kSize);
    Request request;
    request.width = request.height = kSize;
    request.channels = channels;
    request.threads = 2;
    const ImageView colors_out{image.data(), kSize * channels, channels, 1};
    const ImageView alphas_out{alpha.data(), kSize, 1, 1};
    Workspace workspace;
    for (int frame = 0; frame < kFrames; ++frame) {
      for (float& x : means) x += 0.002f * uniform(random);  // as a speaking head does
      const int before = allocations;
      if (rasterize(portable_kernels(), request, gaussians, camera, {}, colors_out, alphas_out,
                    workspace, 0) != 0) {
        return 1;
      }
      std::printf("%d ", allocations - before);
    }
    std::printf("\n");
  }
}
