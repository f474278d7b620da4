#include "operator.h"

#include "bounds.h"
#include "names.h"

namespace talksplat::op {

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
  Rules rules;
  rules.near_plane = attributes.near_plane;
  rules.far_plane = attributes.far_plane;
  rules.radius_clip = attributes.radius_clip;
  rules.low_pass = attributes.eps2d;
  rules.antialiased = antialiased_named(attributes.rasterize_mode);
  rules.dialect = dialect_named(attributes.dialect);
  settings.rules = checked(rules);
  settings.render_mode = render_mode_named(attributes.render_mode);
  settings.tile_entries = within("tile_entries", attributes.tile_entries, 0, kMaxTileEntries);
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
  const int64_t count = within("N of means", means[0], 0, kMaxGaussians);
  sizes.gaussians = count;
  expect(kQuats, {count, 4});
  expect(kScales, {count, 3});
  if (shapes[kOpacities] != Shape{count, 1}) expect(kOpacities, {count});

  const Shape& viewmats = shapes[kViewmats];
  if (viewmats.size() != 3 || viewmats[1] != 4 || viewmats[2] != 4) {
    refuse_shape(kViewmats, "[C, 4, 4]");
  }
  const int64_t cameras = within("C of viewmats", viewmats[0], 1, kMaxCameras);
  sizes.cameras = static_cast<int>(cameras);
  expect(kKs, {cameras, 3, 3});

  const Shape& colors = shapes[kColors];
  const std::string gaussians = std::to_string(count);
  if (settings.sh_degree < 0) {
    if (colors.size() != 2 || colors[0] != count) refuse_shape(kColors, "[" + gaussians + ", D]");
    sizes.channels = static_cast<int>(within("D of colors", colors[1], 1, kMaxChannels));
  } else {
    if (colors.size() != 3 || colors[0] != count || colors[2] != 3) {
      refuse_shape(kColors, "[" + gaussians + ", K, 3]");
    }
    const int bases = (settings.sh_degree + 1) * (settings.sh_degree + 1);
    sizes.sh_bases =
        static_cast<int>(within("K of colors for sh_degree " + std::to_string(settings.sh_degree),
                                colors[1], bases, kMaxChannels));
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
