#include "operator.h"

#include <cmath>
#include <cstdio>
#include <limits>
#include <stdexcept>

#include "names.h"

namespace talksplat::op {
namespace {

constexpr int kMaxSide = 32768;
constexpr int kMaxShDegree = 3;
constexpr int64_t kMaxAxis = std::numeric_limits<int32_t>::max();

[[noreturn]] void refuse(const std::string& what, const std::string& expected,
                         const std::string& found) {
  throw std::invalid_argument(what + ": expected " + expected + ", found " + found);
}

int64_t within(const std::string& what, int64_t value, int64_t low, int64_t high) {
  if (value < low || value > high) {
    refuse(what, std::to_string(low) + " to " + std::to_string(high), std::to_string(value));
  }
  return value;
}

std::string short_number(double value) {
  char text[32];
  std::snprintf(text, sizeof(text), "%g", value);
  return text;
}

float at_least(const char* what, float value, float low) {
  if (!(value >= low)) refuse(what, "at least " + short_number(low), short_number(value));
  return value;
}

}  // namespace

Settings settings_of(const Attributes& attributes) {
  Settings settings;
  settings.width = static_cast<int>(within("width", attributes.width, 0, kMaxSide));
  settings.height = static_cast<int>(within("height", attributes.height, 0, kMaxSide));
  if ((settings.width == 0) != (settings.height == 0)) {
    refuse("width and height", "both, or both 0 for the size of the backgrounds",
           std::to_string(settings.width) + " and " + std::to_string(settings.height));
  }
  settings.sh_degree =
      static_cast<int>(within("sh_degree", attributes.sh_degree, -1, kMaxShDegree));
  settings.rules.near_plane = at_least("near_plane", attributes.near_plane, 1e-9f);
  settings.rules.far_plane = std::fmin(at_least("far_plane", attributes.far_plane, 0.0f), 3e38f);
  settings.rules.radius_clip = at_least("radius_clip", attributes.radius_clip, 0.0f);
  settings.rules.low_pass = at_least("eps2d", attributes.eps2d, 0.0f);
  settings.rules.antialiased = antialiased_named(attributes.rasterize_mode);
  settings.rules.dialect = dialect_named(attributes.dialect);
  settings.render_mode = render_mode_named(attributes.render_mode);
  settings.tile_entries = within("tile_entries", attributes.tile_entries, 0, kMaxAxis);
  return settings;
}

std::string describe(const Shape& shape) {
  std::string text = "[";
  for (size_t axis = 0; axis < shape.size(); ++axis) {
    text += (axis == 0 ? "" : ", ") + std::to_string(shape[axis]);
  }
  return text + "]";
}

Sizes sizes_of(const Settings& settings, const std::array<Shape, kInputs>& shapes) {
  const auto refuse_shape = [&](Input input, const std::string& expected) {
    refuse(kInputNames[input], "shape " + expected, describe(shapes[input]));
  };
  const auto expect = [&](Input input, const Shape& expected) {
    if (shapes[input] != expected) refuse_shape(input, describe(expected));
  };

  Sizes sizes;
  const Shape& means = shapes[kMeans];
  if (means.size() != 2 || means[1] != 3) refuse_shape(kMeans, "[N, 3]");
  const int64_t count = within("N of means", means[0], 0, kMaxAxis);
  sizes.gaussians = count;
  expect(kQuats, {count, 4});
  expect(kScales, {count, 3});
  if (shapes[kOpacities] != Shape{count, 1}) expect(kOpacities, {count});

  const Shape& viewmats = shapes[kViewmats];
  if (viewmats.size() != 3 || viewmats[1] != 4 || viewmats[2] != 4) {
    refuse_shape(kViewmats, "[C, 4, 4]");
  }
  const int64_t cameras = within("C of viewmats", viewmats[0], 0, kMaxAxis);
  sizes.cameras = static_cast<int>(cameras);
  expect(kKs, {cameras, 3, 3});

  const Shape& colors = shapes[kColors];
  const std::string gaussians = std::to_string(count);
  if (settings.sh_degree < 0) {
    if (colors.size() != 2 || colors[0] != count) refuse_shape(kColors, "[" + gaussians + ", D]");
    sizes.channels = static_cast<int>(within("D of colors", colors[1], 1, kMaxAxis));
  } else {
    if (colors.size() != 3 || colors[0] != count || colors[2] != 3) {
      refuse_shape(kColors, "[" + gaussians + ", K, 3]");
    }
    const int bases = (settings.sh_degree + 1) * (settings.sh_degree + 1);
    sizes.sh_bases =
        static_cast<int>(within("K of colors for sh_degree " + std::to_string(settings.sh_degree),
                                colors[1], bases, kMaxAxis));
    sizes.channels = 3;
  }

  const Shape& backgrounds = shapes[kBackgrounds];
  const Shape flat = {cameras, sizes.channels, 1, 1};
  if (settings.width == 0) {
    if (backgrounds.size() != 4 || backgrounds[0] != cameras || backgrounds[1] != sizes.channels) {
      refuse_shape(kBackgrounds, "[" + std::to_string(cameras) + ", " +
                                     std::to_string(sizes.channels) + ", H, W]");
    }
    sizes.height = static_cast<int>(within("H of backgrounds", backgrounds[2], 1, kMaxSide));
    sizes.width = static_cast<int>(within("W of backgrounds", backgrounds[3], 1, kMaxSide));
  } else {
    sizes.height = settings.height;
    sizes.width = settings.width;
    const Shape whole = {cameras, sizes.channels, sizes.height, sizes.width};
    if (backgrounds != whole && backgrounds != flat) {
      refuse_shape(kBackgrounds, describe(whole) + " or " + describe(flat));
    }
  }
  sizes.one_background = backgrounds == flat;
  return sizes;
}

}  // namespace talksplat::op
