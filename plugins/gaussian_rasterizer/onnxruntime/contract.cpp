#include "contract.h"

#include <cmath>
#include <cstdio>
#include <initializer_list>
#include <limits>

namespace talksplat::onnxruntime {
namespace {

constexpr int kMaxSide = 32768;
constexpr int kMaxShDegree = 3;
constexpr int64_t kMaxAxis = std::numeric_limits<int32_t>::max();

std::string short_number(double value) {
  char text[32];
  std::snprintf(text, sizeof(text), "%g", value);
  return text;
}

int whole_number(const Attributes& attributes, const char* name, int64_t otherwise, int64_t low,
                 int64_t high) {
  const int64_t value = attributes.integer(name, otherwise);
  if (value < low || value > high) {
    refuse(std::string("GaussianRasterize: the attribute ") + name + " expects " +
           std::to_string(low) + " to " + std::to_string(high) + ", found " +
           std::to_string(value) + ".");
  }
  return static_cast<int>(value);
}

float number(const Attributes& attributes, const char* name, float otherwise, float low) {
  const float value = attributes.number(name, otherwise);
  if (!(value >= low)) {
    refuse(std::string("GaussianRasterize: the attribute ") + name + " expects at least " +
           short_number(low) + ", found " + short_number(value) + ".");
  }
  return value;
}

int choice(const Attributes& attributes, const char* name,
           std::initializer_list<const char*> choices) {
  const std::string value = attributes.text(name, *choices.begin());
  std::string listed;
  int index = 0;
  for (const char* known : choices) {
    if (value == known) return index;
    listed += std::string(index++ == 0 ? "" : ", ") + "'" + known + "'";
  }
  refuse(std::string("GaussianRasterize: the attribute ") + name + " expects one of " + listed +
         ", found '" + value + "'.");
}

[[noreturn]] void refuse_shape(const char* name, const std::string& expected, const Shape& found) {
  refuse(std::string(name) + ": expected shape " + expected + ", found " + describe(found) + ".");
}

void expect_shape(const char* name, const Shape& expected, const Shape& found) {
  if (found != expected) refuse_shape(name, describe(expected), found);
}

int64_t axis_of(const char* name, const char* axis, int64_t size) {
  if (size > kMaxAxis) {
    refuse(std::string(name) + ": expected at most " + std::to_string(kMaxAxis) + " for " + axis +
           ", found " + std::to_string(size) + ".");
  }
  return size;
}

int side_of(const char* name, int64_t size) {
  if (size < 1 || size > kMaxSide) {
    refuse(std::string(name) + ": expected 1 to " + std::to_string(kMaxSide) + " pixels, found " +
           std::to_string(size) + ".");
  }
  return static_cast<int>(size);
}

bool is_singular(const float* viewmat) {
  double axes[3][3], lengths = 1.0;
  for (int row = 0; row < 3; ++row) {
    double square = 0.0;
    for (int column = 0; column < 3; ++column) {
      axes[row][column] = viewmat[4 * row + column];
      square += axes[row][column] * axes[row][column];
    }
    lengths *= std::sqrt(square);
  }
  const double determinant = axes[0][0] * (axes[1][1] * axes[2][2] - axes[1][2] * axes[2][1]) -
                             axes[0][1] * (axes[1][0] * axes[2][2] - axes[1][2] * axes[2][0]) +
                             axes[0][2] * (axes[1][0] * axes[2][1] - axes[1][1] * axes[2][0]);
  return !(std::abs(determinant) > 1e-9 * lengths);
}

void expect_finite(const char* name, const float* values, int64_t count) {
  for (int64_t i = 0; i < count; ++i) {
    if (!std::isfinite(values[i])) {
      refuse(std::string(name) + ": expected finite values, found NaN or infinity.");
    }
  }
}

}  // namespace

Settings read_settings(const Attributes& attributes) {
  Settings settings;
  settings.width = whole_number(attributes, "width", 0, 0, kMaxSide);
  settings.height = whole_number(attributes, "height", 0, 0, kMaxSide);
  if ((settings.width == 0) != (settings.height == 0)) {
    refuse(
        "GaussianRasterize: the attributes width and height are both given or both 0, which "
        "stands for the size of the backgrounds; found " +
        std::to_string(settings.width) + " and " + std::to_string(settings.height) + ".");
  }
  settings.sh_degree = whole_number(attributes, "sh_degree", -1, -1, kMaxShDegree);
  settings.rules.near_plane = number(attributes, "near_plane", 0.01f, 1e-9f);
  settings.rules.far_plane = std::fmin(number(attributes, "far_plane", 1e10f, 0.0f), 3e38f);
  settings.rules.radius_clip = number(attributes, "radius_clip", 0.0f, 0.0f);
  settings.rules.low_pass = number(attributes, "eps2d", 0.3f, 0.0f);
  settings.rules.antialiased =
      choice(attributes, "rasterize_mode", {"classic", "antialiased"}) == 1;
  settings.rules.dialect =
      static_cast<Dialect>(choice(attributes, "dialect", {"gsplat", "gsplat-1.5", "inria"}));
  const int mode = choice(attributes, "render_mode", {"RGB", "D", "ED", "RGB+D", "RGB+ED"});
  settings.with_colors = mode == 0 || mode >= 3;
  settings.with_depth = mode != 0;
  settings.expected_depth = mode == 2 || mode == 4;
  settings.tile_entries =
      whole_number(attributes, "tile_entries", 0, 0, std::numeric_limits<int32_t>::max());
  return settings;
}

Sizes check_shapes(const Settings& settings, const Inputs& inputs) {
  Sizes sizes;
  const Shape& means = inputs[kMeans].shape;
  if (means.size() != 2 || means[1] != 3) refuse_shape("means", "[N, 3]", means);
  const int64_t count = axis_of("means", "N", means[0]);
  sizes.gaussians = count;
  expect_shape("quats", {count, 4}, inputs[kQuats].shape);
  expect_shape("scales", {count, 3}, inputs[kScales].shape);
  if (inputs[kOpacities].shape != Shape{count, 1}) {
    expect_shape("opacities", {count}, inputs[kOpacities].shape);
  }

  const Shape& viewmats = inputs[kViewmats].shape;
  if (viewmats.size() != 3 || viewmats[1] != 4 || viewmats[2] != 4) {
    refuse_shape("viewmats", "[C, 4, 4]", viewmats);
  }
  sizes.cameras = viewmats[0];
  expect_shape("Ks", {sizes.cameras, 3, 3}, inputs[kKs].shape);

  const Shape& colors = inputs[kColors].shape;
  const std::string gaussians = std::to_string(count);
  if (settings.sh_degree < 0) {
    if (colors.size() != 2 || colors[0] != count || colors[1] < 1) {
      refuse_shape("colors", "[" + gaussians + ", D] with D >= 1", colors);
    }
    sizes.channels = static_cast<int>(axis_of("colors", "D", colors[1]));
  } else {
    const int bases = (settings.sh_degree + 1) * (settings.sh_degree + 1);
    if (colors.size() != 3 || colors[0] != count || colors[1] < bases || colors[2] != 3) {
      refuse_shape("colors",
                   "[" + gaussians + ", K, 3] with K >= " + std::to_string(bases) +
                       " for sh_degree " + std::to_string(settings.sh_degree),
                   colors);
    }
    sizes.channels = 3;
    sizes.sh_bases = static_cast<int>(axis_of("colors", "K", colors[1]));
  }

  const Shape& backgrounds = inputs[kBackgrounds].shape;
  const Shape flat = {sizes.cameras, sizes.channels, 1, 1};
  if (settings.width == 0) {
    if (backgrounds.size() != 4 || backgrounds[0] != sizes.cameras ||
        backgrounds[1] != sizes.channels) {
      refuse_shape("backgrounds",
                   "[" + std::to_string(sizes.cameras) + ", " + std::to_string(sizes.channels) +
                       ", height, width]",
                   backgrounds);
    }
    sizes.height = side_of("the height of backgrounds", backgrounds[2]);
    sizes.width = side_of("the width of backgrounds", backgrounds[3]);
  } else {
    sizes.height = settings.height;
    sizes.width = settings.width;
    const Shape whole = {sizes.cameras, sizes.channels, sizes.height, sizes.width};
    if (backgrounds != whole && backgrounds != flat) {
      refuse_shape("backgrounds", describe(whole) + " or " + describe(flat), backgrounds);
    }
  }
  sizes.one_background = backgrounds == flat;
  return sizes;
}

void check_cameras(const Settings& settings, const Sizes& sizes, const float* viewmats,
                   const float* Ks) {
  expect_finite("viewmats", viewmats, 16 * sizes.cameras);
  expect_finite("Ks", Ks, 9 * sizes.cameras);
  for (int64_t camera = 0; camera < sizes.cameras; ++camera) {
    if (!(Ks[9 * camera] > 0.0f && Ks[9 * camera + 4] > 0.0f)) {
      refuse("Ks: expected positive focal lengths at [0, 0] and [1, 1].");
    }
    if (settings.sh_degree >= 0 && is_singular(viewmats + 16 * camera)) {
      refuse(
          "viewmats: expected invertible matrices, which give spherical harmonics the cameras' "
          "positions; found a singular one.");
    }
  }
}

}  // namespace talksplat::onnxruntime
