#include "mesh_rasterizer.h"

#include <nanobind/nanobind.h>
#include <nanobind/ndarray.h>

namespace nb = nanobind;
namespace {

template <typename T, typename Shape>
using Array = nb::ndarray<T, Shape, nb::c_contig, nb::device::cpu>;
using Positions = Array<const float, nb::shape<-1, -1>>;
using Faces = Array<const std::int32_t, nb::shape<-1, 3>>;

talksplat::mesh::Mesh as_mesh(const Positions& positions, const Faces& faces) {
  return {positions.data(), static_cast<int>(positions.shape(1)), faces.data(),
          static_cast<std::int64_t>(faces.shape(0))};
}

// talksplat.mesh checks values and shapes and allocates; these two only compute.
void rasterize(Positions positions, Faces faces, Array<std::int32_t, nb::shape<-1, -1>> face_ids,
               Array<float, nb::shape<-1, -1, 3>> barycentrics,
               Array<float, nb::shape<-1, -1>> depth) {
  nb::gil_scoped_release release;
  talksplat::mesh::rasterize(as_mesh(positions, faces), static_cast<int>(face_ids.shape(1)),
                             static_cast<int>(face_ids.shape(0)), face_ids.data(),
                             barycentrics.data(), depth.data());
}

void interpolate(Faces faces, Array<const std::int32_t, nb::shape<-1>> face_ids,
                 Array<const float, nb::shape<-1, 3>> barycentrics,
                 Array<const float, nb::shape<-1, -1>> attributes,
                 Array<float, nb::shape<-1, -1>> out) {
  nb::gil_scoped_release release;
  talksplat::mesh::interpolate(faces.data(), face_ids.data(), barycentrics.data(),
                               static_cast<std::int64_t>(face_ids.shape(0)), attributes.data(),
                               static_cast<int>(attributes.shape(1)), out.data());
}

void render_attributes(Positions positions, Faces faces,
                       Array<const float, nb::shape<-1, -1>> attributes,
                       Array<float, nb::shape<-1, -1, -1>> image) {
  nb::gil_scoped_release release;
  talksplat::mesh::render_attributes(
      as_mesh(positions, faces), attributes.data(), static_cast<int>(attributes.shape(1)),
      static_cast<int>(image.shape(1)), static_cast<int>(image.shape(0)), image.data());
}

}  // namespace

void bind_mesh_rasterizer(nb::module_& module) {
  using namespace nb::literals;
  module.attr("mesh_max_coordinate") = talksplat::mesh::kMaxCoordinate;
  module.def("mesh_rasterize", &rasterize, "positions"_a, "faces"_a, "face_ids"_a, "barycentrics"_a,
             "depth"_a);
  module.def("mesh_interpolate", &interpolate, "faces"_a, "face_ids"_a, "barycentrics"_a,
             "attributes"_a, "out"_a);
  module.def("mesh_render_attributes", &render_attributes, "positions"_a, "faces"_a, "attributes"_a,
             "image"_a);
}
