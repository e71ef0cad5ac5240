#include "hydrofoil/engine/batch_sizes.h"

#include "hydrofoil/base/error.h"

namespace hydrofoil::engine {
namespace {

std::string arithmetic(const char* name, int64_t value, const std::string& note) {
  return std::string(name) + " " + std::to_string(value) + (note.empty() ? "" : " (" + note + ")");
}

}  // namespace

BatchSizes complete_batch_sizes(std::optional<int64_t> train_batch_size, std::optional<int64_t> micro_batch_size,
                                std::optional<int64_t> accumulation_steps, int64_t world_size) {
  constexpr const char* kFunction = "config";
  HYDROFOIL_CHECK_ARG(world_size >= 1, kFunction, "world size: got ", world_size, ", expected >= 1");
  HYDROFOIL_CHECK_ARG(train_batch_size || micro_batch_size, kFunction,
                      "either train_batch_size or train_micro_batch_size_per_gpu needs to be given (the world size is ",
                      world_size, "); \"auto\" and null count as not given");
  const auto check_positive = [&](const char* name, const std::optional<int64_t>& value) {
    HYDROFOIL_CHECK_ARG(!value || *value >= 1, kFunction, name, ": got ", *value, ", expected an integer >= 1");
  };
  check_positive("train_batch_size", train_batch_size);
  check_positive("train_micro_batch_size_per_gpu", micro_batch_size);
  check_positive("gradient_accumulation_steps", accumulation_steps);

  BatchSizes sizes;
  const auto text = [](int64_t value) { return std::to_string(value); };
  const std::string world = text(world_size);
  if (accumulation_steps) {
    sizes.accumulation_steps = *accumulation_steps;
  } else if (train_batch_size && micro_batch_size) {
    sizes.accumulation_steps = *train_batch_size / *micro_batch_size / world_size;
    sizes.accumulation_note = text(*train_batch_size) + " // " + text(*micro_batch_size) + " // " + world + " ranks";
  } else {
    sizes.accumulation_steps = 1;
    sizes.accumulation_note = "1 where it is not given";
  }
  if (micro_batch_size) {
    sizes.micro_batch_size = *micro_batch_size;
  } else {
    sizes.micro_batch_size = *train_batch_size / world_size / sizes.accumulation_steps;
    sizes.micro_note = text(*train_batch_size) + " // " + world + " ranks // " + text(sizes.accumulation_steps);
  }
  int64_t product = 0;
  const bool overflow = __builtin_mul_overflow(sizes.micro_batch_size, sizes.accumulation_steps, &product) ||
                        __builtin_mul_overflow(product, world_size, &product);
  const std::string factors =
      arithmetic("train_micro_batch_size_per_gpu", sizes.micro_batch_size, sizes.micro_note) + " x " +
      arithmetic("gradient_accumulation_steps", sizes.accumulation_steps, sizes.accumulation_note) + " x world size " +
      world;
  HYDROFOIL_CHECK_ARG(!overflow, kFunction, factors, " exceeds 64 bits");
  sizes.train_batch_size = train_batch_size.value_or(product);
  if (!train_batch_size) {
    sizes.train_note = text(sizes.micro_batch_size) + " x " + text(sizes.accumulation_steps) + " x " + world + " ranks";
  }
  HYDROFOIL_CHECK_ARG(sizes.train_batch_size == product && product >= 1, kFunction, "train_batch_size ",
                      sizes.train_batch_size, product >= 1 ? " is not equal to " : " is too small: ", factors, " = ",
                      product);
  return sizes;
}

}  // namespace hydrofoil::engine
