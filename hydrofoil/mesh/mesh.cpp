#include "hydrofoil/mesh/mesh.h"

#include "hydrofoil/base/error.h"
#include "hydrofoil/base/nearest.h"

namespace hydrofoil::mesh {

Mesh::Mesh(std::vector<Axis> axes) : axes_(std::move(axes)) {
  HYDROFOIL_CHECK_ARG(!axes_.empty(), "Mesh", "got no axes, expected at least one");
  for (size_t a = 0; a < axes_.size(); ++a) {
    HYDROFOIL_CHECK_ARG(!axes_[a].name.empty(), "Mesh", "axis ", a, " has no name");
    HYDROFOIL_CHECK_ARG(axes_[a].size >= 1, "Mesh", "axis ", axes_[a].name, ": got size ", axes_[a].size,
                        ", expected >= 1");
    for (size_t b = 0; b < a; ++b) {
      HYDROFOIL_CHECK_ARG(axes_[a].name != axes_[b].name, "Mesh", "axis ", axes_[a].name, " stands twice");
    }
    HYDROFOIL_CHECK_ARG(!__builtin_mul_overflow(world_size_, axes_[a].size, &world_size_), "Mesh",
                        "the product of the axis sizes does not fit in 31 bits");
  }
}

size_t Mesh::index(std::string_view axis) const {
  std::vector<std::string> names;
  for (size_t a = 0; a < axes_.size(); ++a) {
    if (axes_[a].name == axis) return a;
    names.push_back(axes_[a].name);
  }
  HYDROFOIL_CHECK_ARG(false, "Mesh", "unknown axis '", axis, "'; the nearest is '", nearest_name(axis, names), "'");
}

int Mesh::stride(size_t axis) const {
  int stride = 1;
  for (size_t a = axes_.size(); a-- > axis + 1;) stride *= axes_[a].size;
  return stride;
}

int Mesh::size(std::string_view axis) const { return axes_[index(axis)].size; }

int Mesh::rank_along(int world_rank, std::string_view axis) const {
  HYDROFOIL_CHECK_ARG(world_rank >= 0 && world_rank < world_size_, "Mesh", "world_rank: got ", world_rank,
                      ", expected 0 to ", world_size_ - 1);
  const size_t a = index(axis);
  return world_rank / stride(a) % axes_[a].size;
}

int Mesh::world_rank(const std::vector<int>& coordinates) const {
  HYDROFOIL_CHECK_ARG(coordinates.size() == axes_.size(), "Mesh", "got ", coordinates.size(), " coordinates, expected ",
                      axes_.size());
  int rank = 0;
  for (size_t a = 0; a < axes_.size(); ++a) {
    HYDROFOIL_CHECK_ARG(coordinates[a] >= 0 && coordinates[a] < axes_[a].size, "Mesh", "axis ", axes_[a].name,
                        ": got coordinate ", coordinates[a], ", expected 0 to ", axes_[a].size - 1);
    rank = rank * axes_[a].size + coordinates[a];
  }
  return rank;
}

std::vector<int> Mesh::group(int world_rank, std::string_view axis) const {
  const size_t a = index(axis);
  const int first = world_rank - rank_along(world_rank, axis) * stride(a);
  std::vector<int> ranks;
  for (int i = 0; i < axes_[a].size; ++i) ranks.push_back(first + i * stride(a));
  return ranks;
}

}  // namespace hydrofoil::mesh
