#include "hydrofoil/data/batches.h"

#include <ATen/ops/empty.h>

#include <algorithm>
#include <utility>

#include "hydrofoil/base/error.h"
#include "hydrofoil/data/permutation.h"

namespace hydrofoil::data {
namespace {

constexpr const char* kFunction = "Batches";

// a * b of positive numbers; nullopt over 2^63 - 1.
int64_t checked_product(int64_t a, int64_t b, const char* what) {
  int64_t product = 0;
  HYDROFOIL_CHECK_ARG(!__builtin_mul_overflow(a, b, &product), kFunction, what, ": got ", a, " x ", b,
                      ", expected a product below 2^63");
  return product;
}

}  // namespace

void BatchesOptions::validate() const {
  const auto positive = [](int64_t value, const char* name) {
    HYDROFOIL_CHECK_ARG(value >= 1, kFunction, name, ": got ", value, ", expected at least 1");
  };
  positive(context, "context");
  positive(global_batch, "global_batch");
  positive(world_size, "world_size");
  positive(accumulation, "accumulation");
  HYDROFOIL_CHECK_ARG(rank >= 0 && rank < world_size, kFunction, "rank: got ", rank, ", expected one from 0 to ",
                      world_size - 1);
  (void)checked_product(global_batch, context, "global_batch x context");
  const int64_t parts = checked_product(world_size, accumulation, "world_size x accumulation");
  HYDROFOIL_CHECK_ARG(global_batch % parts == 0, kFunction, "global_batch: got ", global_batch,
                      " windows, which cannot be cut equally for ", world_size, " ranks x ", accumulation,
                      " accumulation steps; expected a multiple of ", parts);
}

Batches::Batches(TokenStream stream, const BatchesOptions& options) : stream_(std::move(stream)), options_(options) {
  options_.validate();
  micro_batch_size_ = options_.global_batch / (options_.world_size * options_.accumulation);
  num_windows_ = stream_.num_windows(options_.context);
  HYDROFOIL_CHECK_ARG(num_windows_ >= 1, kFunction, "stream: got ", stream_.num_tokens(), " tokens, expected at least ",
                      options_.context, " + 1");
}

std::vector<int64_t> Batches::window_indices(int64_t step, int64_t micro_step) const {
  HYDROFOIL_CHECK_ARG(step >= 0 && step < INT64_MAX / options_.global_batch, kFunction, "step: got ", step,
                      ", expected one from 0 to ", INT64_MAX / options_.global_batch - 1);
  HYDROFOIL_CHECK_ARG(micro_step >= 0 && micro_step < options_.accumulation, kFunction, "micro_step: got ", micro_step,
                      ", expected one from 0 to ", options_.accumulation - 1);
  const int64_t first =
      step * options_.global_batch + (micro_step * options_.world_size + options_.rank) * micro_batch_size_;
  std::vector<int64_t> indices;
  indices.reserve(static_cast<size_t>(micro_batch_size_));
  for (int64_t position = first; position < first + micro_batch_size_; ++position) {
    indices.push_back(permuted(position % num_windows_, num_windows_, options_.seed, position / num_windows_));
  }
  return indices;
}

Batch Batches::micro_batch(int64_t step, int64_t micro_step) const {
  return read_windows(stream_, options_.context, window_indices(step, micro_step));
}

std::map<std::string, int64_t> Batches::state() const {
  return {{"context", options_.context},
          {"num_tokens", stream_.num_tokens()},
          {"seed", options_.seed},
          {"tokens_per_step", options_.global_batch * options_.context}};
}

void Batches::check_state(const std::map<std::string, int64_t>& saved) const {
  for (const auto& [name, expected] : state()) {
    const auto found = saved.find(name);
    HYDROFOIL_CHECK_ARG(found != saved.end(), kFunction, "the saved state has no '", name, "'");
    HYDROFOIL_CHECK_ARG(found->second == expected, kFunction, name, ": the saved run has ", found->second,
                        ", this one has ", expected, ": its data would not go on where it stopped");
  }
}

Batch read_windows(const TokenStream& stream, int64_t context, std::span<const int64_t> indices) {
  const int64_t num_windows = stream.num_windows(context);
  const auto count = static_cast<int64_t>(indices.size());
  const at::Tensor windows = at::empty({count, context + 1}, at::kLong);
  int64_t* row = windows.mutable_data_ptr<int64_t>();
  for (const int64_t index : indices) {
    HYDROFOIL_CHECK_ARG(index >= 0 && index < num_windows, "read_windows", "window: got ", index,
                        ", expected one from 0 to ", num_windows - 1);
    stream.read_into(index * context, {row, static_cast<size_t>(context + 1)});
    row += context + 1;
  }
  return {.inputs = windows.narrow(1, 0, context).contiguous(), .targets = windows.narrow(1, 1, context).contiguous()};
}

std::vector<int64_t> spread_windows(const TokenStream& stream, int64_t context, int64_t count) {
  HYDROFOIL_CHECK_ARG(count >= 0, "spread_windows", "count: got ", count, ", expected at least 0");
  const int64_t available = stream.num_windows(context);
  const int64_t taken = std::min(count, available);
  std::vector<int64_t> indices;
  for (int64_t i = 0; i < taken; ++i) {
    indices.push_back(static_cast<int64_t>(static_cast<__int128>(i) * available / taken));
  }
  return indices;
}

}  // namespace hydrofoil::data
