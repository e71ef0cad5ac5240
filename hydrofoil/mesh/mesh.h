#pragma once

#include <string>
#include <string_view>
#include <vector>

namespace hydrofoil::mesh {

// One axis of the rank mesh: "dp", "fsdp", "tp", "pp", "sp", "ep".
struct Axis {
  std::string name;
  int size = 1;
};

// Named axes over the world's ranks, row-major: the last axis varies fastest. A value; pure arithmetic.
class Mesh {
 public:
  // Throws InvalidArgument for no axes, a size below 1, a name that is empty or stands twice, or a product over 2^31
  // - 1.
  explicit Mesh(std::vector<Axis> axes);

  [[nodiscard]] const std::vector<Axis>& axes() const { return axes_; }
  [[nodiscard]] int world_size() const { return world_size_; }
  // Number of ranks along an axis. Throws InvalidArgument with the nearest name for an unknown one.
  [[nodiscard]] int size(std::string_view axis) const;

  // Place of a world rank along an axis (its dp_rank, tp_rank, ...). Throws InvalidArgument for a rank outside the
  // world.
  [[nodiscard]] int rank_along(int world_rank, std::string_view axis) const;
  // World rank at one coordinate for each axis, in axis order. Throws InvalidArgument for a wrong number or range.
  [[nodiscard]] int world_rank(const std::vector<int>& coordinates) const;
  // World ranks that differ from `world_rank` only along `axis`, in axis order: the ranks of its group there.
  [[nodiscard]] std::vector<int> group(int world_rank, std::string_view axis) const;

 private:
  [[nodiscard]] size_t index(std::string_view axis) const;
  [[nodiscard]] int stride(size_t axis) const;

  std::vector<Axis> axes_;
  int world_size_ = 1;
};

}  // namespace hydrofoil::mesh
