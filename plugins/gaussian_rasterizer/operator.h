// GaussianRasterize as an operator of a graph: what it is called, what it eats and what it answers,
// whoever carries it.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <string>
#include <variant>
#include <vector>

#include "rules.h"

namespace talksplat::op {

inline constexpr char kDomain[] = "talksplat";
inline constexpr char kName[] = "GaussianRasterize";
inline constexpr char kVersion[] = "1";

// In the order of the operator.
enum Input : size_t {
  kMeans,
  kQuats,
  kScales,
  kOpacities,
  kColors,
  kViewmats,
  kKs,
  kBackgrounds,
  kInputs
};
enum Output : size_t { kOutColors, kOutAlphas, kOutStatus, kOutputs };

inline constexpr std::array<const char*, kInputs> kInputNames = {
    "means", "quats", "scales", "opacities", "colors", "viewmats", "Ks", "backgrounds"};
inline constexpr std::array<const char*, kOutputs> kOutputNames = {"colors", "alphas", "status"};

// As they are written in a graph, with their defaults.
struct Attributes {
  int32_t width = 0, height = 0;  // 0: those of the backgrounds
  int32_t sh_degree = -1;         // -1: colors are features
  float near_plane = 0.01f, far_plane = 1e10f, radius_clip = 0.0f, eps2d = 0.3f;
  std::string rasterize_mode = "classic", dialect = "gsplat", render_mode = "RGB";
  int32_t tile_entries = 0;  // room for Gaussian-tile pairs of a camera; 0: the plan's own

  bool operator==(const Attributes&) const = default;
};

// Every attribute by name, for carriers that read and write them one by one.
struct Attribute {
  const char* name;
  std::variant<int32_t Attributes::*, float Attributes::*, std::string Attributes::*> member;
};
inline constexpr Attribute kAttributes[] = {
    {"width", &Attributes::width},
    {"height", &Attributes::height},
    {"sh_degree", &Attributes::sh_degree},
    {"near_plane", &Attributes::near_plane},
    {"far_plane", &Attributes::far_plane},
    {"radius_clip", &Attributes::radius_clip},
    {"eps2d", &Attributes::eps2d},
    {"rasterize_mode", &Attributes::rasterize_mode},
    {"dialect", &Attributes::dialect},
    {"render_mode", &Attributes::render_mode},
    {"tile_entries", &Attributes::tile_entries},
};

// What the attributes mean.
struct Settings {
  Rules rules;
  int width = 0, height = 0;
  int sh_degree = -1;
  RenderMode render_mode = RenderMode::kRGB;
  int64_t tile_entries = 0;
};

// Throws std::invalid_argument with a full sentence, as everything here does.
Settings settings_of(const Attributes& attributes);

using Shape = std::vector<int64_t>;

// "[2, 3]", for messages.
std::string describe(const Shape& shape);

struct Sizes {
  int64_t gaussians = 0;  // N
  int cameras = 0;        // C
  int channels = 0;       // D, without depth
  int sh_bases = 0;       // K
  int width = 0, height = 0;
  bool one_background = false;  // [C,D,1,1]: one colour for all pixels

  // X: channels of the colors that come out.
  int blended(const Settings& settings) const {
    return blended_channels(settings.render_mode, channels);
  }

  bool operator==(const Sizes&) const = default;
};

// The sizes of one call, if the shapes of its inputs fit each other.
Sizes sizes_of(const Settings& settings, const std::array<Shape, kInputs>& shapes);

}  // namespace talksplat::op
