// The names that talksplat.rasterize, the manifest and the operator's attributes give to rules.
#pragma once

#include <stdexcept>
#include <string>
#include <string_view>

#include "rules.h"

namespace talksplat {

template <size_t kCount>
int place_among(const std::string_view (&known)[kCount], std::string_view name, const char* what) {
  std::string listed;
  for (size_t i = 0; i < kCount; ++i) {
    if (known[i] == name) return static_cast<int>(i);
    listed += (i == 0 ? "'" : ", '") + std::string(known[i]) + "'";
  }
  throw std::invalid_argument(std::string(what) + ": expected one of " + listed + "; found '" +
                              std::string(name) + "'");
}

inline Dialect dialect_named(std::string_view name) {
  static constexpr std::string_view kKnown[] = {"gsplat", "gsplat-1.5", "inria"};
  return static_cast<Dialect>(place_among(kKnown, name, "dialect"));
}

inline RenderMode render_mode_named(std::string_view name) {
  static constexpr std::string_view kKnown[] = {"RGB", "D", "ED", "RGB+D", "RGB+ED"};
  return static_cast<RenderMode>(place_among(kKnown, name, "render_mode"));
}

// Whether the rasterize mode is "antialiased".
inline bool antialiased_named(std::string_view name) {
  static constexpr std::string_view kKnown[] = {"classic", "antialiased"};
  return place_among(kKnown, name, "rasterize_mode") == 1;
}

}  // namespace talksplat
