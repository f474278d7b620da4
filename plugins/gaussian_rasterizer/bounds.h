// What sizes and rules the rasterizers take, and the sentences that refuse others. For the host.
#pragma once

#include <cmath>
#include <cstdint>
#include <cstdio>
#include <limits>
#include <stdexcept>
#include <string>

#include "rules.h"

namespace talksplat {

inline constexpr int64_t kMaxGaussians = std::numeric_limits<int32_t>::max();
inline constexpr int kMaxCameras = 65535;  // blocks along a grid's second axis
inline constexpr int kMaxChannels = 1 << 20;
inline constexpr int kMaxSide = 32768;  // pixels
inline constexpr int kMaxShDegree = 3;
// How many were needed is counted up to 2^31 - 1, which must be more than there is room for.
inline constexpr int64_t kMaxTileEntries = std::numeric_limits<int32_t>::max() - 1;

// These throw std::invalid_argument.
[[noreturn]] inline void refuse(const std::string& what, const std::string& expected,
                                const std::string& found) {
  throw std::invalid_argument(what + ": expected " + expected + ", found " + found);
}

inline int64_t within(const std::string& what, int64_t value, int64_t low, int64_t high) {
  if (value < low || value > high) {
    refuse(what, std::to_string(low) + " to " + std::to_string(high), std::to_string(value));
  }
  return value;
}

// With so many significant digits; nine tell every float from every other.
inline std::string number_text(float value, int digits) {
  char text[32];
  std::snprintf(text, sizeof(text), "%.*g", digits, static_cast<double>(value));
  return text;
}

inline void at_least(const char* what, float value, float low) {
  if (!(value >= low)) refuse(what, "at least " + number_text(low, 6), number_text(value, 6));
}

// `rules` as the kernels want them, if there are such: far_plane is finite, so that an infinite
// depth lies beyond it.
inline Rules checked(Rules rules) {
  at_least("near_plane", rules.near_plane, 1e-9f);
  at_least("far_plane", rules.far_plane, 0.0f);
  at_least("radius_clip", rules.radius_clip, 0.0f);
  at_least("eps2d", rules.low_pass, 0.0f);
  rules.far_plane = std::fmin(rules.far_plane, 3e38f);
  return rules;
}

}  // namespace talksplat
