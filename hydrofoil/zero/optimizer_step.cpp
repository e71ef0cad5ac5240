#include "hydrofoil/zero/optimizer_step.h"

#include <ATen/core/grad_mode.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/isfinite.h>

#include <algorithm>
#include <bit>
#include <cmath>
#include <set>

#include "hydrofoil/base/error.h"
#include "hydrofoil/comm/agree.h"
#include "hydrofoil/kernels/gradient_stats.h"
#include "hydrofoil/kernels/torch_types.h"
#include "hydrofoil/memory/allocation.h"
#include "hydrofoil/zero/span.h"

namespace hydrofoil::zero {
namespace {

// What each rank tells the others, as 64-bit words.
enum Word : int64_t { kSumOfSquares, kNonFinite, kParameter, kMicroStep, kUnitHash, kFreeBytes, kNumWords };

kernels::GradientStats stats_of(const at::Tensor& gradient) {
  if (gradient.is_cpu()) {
    return kernels::gradient_stats(gradient.const_data_ptr(), kernels::element_type(gradient.scalar_type()),
                                   gradient.numel());
  }
  kernels::GradientStats stats;
  stats.sum_of_squares = gradient.to(at::kDouble).square().sum().item<double>();
  if (!std::isfinite(stats.sum_of_squares)) {
    stats.first_non_finite = at::isfinite(gradient).logical_not().to(at::kByte).argmax().item<int64_t>();
  }
  return stats;
}

int64_t parameter_at(const FlatGroup& group, int64_t owned_index) {
  const int64_t index = owned_index + group.owned().begin;
  for (const auto& slot : group.slots()) {
    if (index < slot.offset + slot.numel) return slot.index;
  }
  return group.slots().back().index;
}

// Fills this rank's words from its own slices and what its hooks saw.
void measure(Runtime& runtime, int64_t* words) {
  double sum = 0.0;
  words[kParameter] = words[kMicroStep] = -1;
  for (auto& unit : runtime.units()) {
    for (auto& bucket : unit->buckets) {
      const auto stats = stats_of(bucket->owned_gradient());
      sum += stats.sum_of_squares;
      if (stats.first_non_finite && words[kNonFinite] == 0) {
        words[kNonFinite] = 1;
        words[kParameter] = parameter_at(bucket->group(), *stats.first_non_finite);
      }
    }
  }
  if (const auto& seen = runtime.reducer().non_finite()) {
    words[kMicroStep] = seen->micro_step;
    for (size_t p = 0; p < runtime.parameters().size(); ++p) {
      if (runtime.parameters()[p].name == seen->parameter) words[kParameter] = static_cast<int64_t>(p);
    }
  }
  words[kSumOfSquares] = std::bit_cast<int64_t>(sum);
  words[kUnitHash] = static_cast<int64_t>(runtime.gatherer().record()->hash());
  words[kFreeBytes] = runtime.chooses_retained() ? runtime.free_bytes() : 0;
}

// Names the rank whose own backward brought the first non-finite gradient; where none did (the reduction overflowed), a
// rank that holds the result.
void name_origin(const int64_t* words, int size, const std::vector<RuntimeParameter>& parameters,
                 GradientSummary& summary) {
  for (int rank = 0; rank < size; ++rank) {
    const int64_t* of_rank = words + rank * kNumWords;
    const int64_t micro_step = of_rank[kMicroStep];
    if (of_rank[kNonFinite] == 0 && micro_step < 0) continue;
    const bool earlier = micro_step >= 0 && (summary.micro_step < 0 || micro_step < summary.micro_step);
    if (summary.rank >= 0 && !earlier) continue;
    summary.rank = rank;
    summary.micro_step = micro_step;
    summary.parameter = parameters[std::max<int64_t>(of_rank[kParameter], 0)].name;
  }
}

}  // namespace

GradientSummary summarize_gradients(Runtime& runtime) {
  const Span span(runtime.recorder(), trace::Lane::kStep, "gradient norm", "");
  const comm::Group& group = runtime.gather_group();
  const int size = group.size();
  at::Tensor mine = at::empty({kNumWords}, at::kLong).zero_();
  measure(runtime, mine.data_ptr<int64_t>());
  at::Tensor all = mine;
  if (size > 1) {
    all = at::empty({size * kNumWords}, at::kLong);
    comm::OpInfo info{"gradient summary", op_signature(OpKind::kControl, 2)};
    info.history = runtime.gatherer().record();
    info.caller_waits = true;
    const ScopedStopwatch wait(runtime.waits().for_reduce());
    group.all_gather(mine, all, std::move(info)).wait();
  }
  const int64_t* words = all.data_ptr<int64_t>();
  const bool sharded = runtime.sharding().optimizer_states;
  GradientSummary summary;
  double sum = 0.0;
  int64_t free_bytes = words[kFreeBytes];
  for (int rank = 0; rank < size; ++rank) {
    const int64_t* of_rank = words + rank * kNumWords;
    if (sharded || rank == 0) sum += std::bit_cast<double>(of_rank[kSumOfSquares]);
    if (of_rank[kUnitHash] != words[kUnitHash])
      comm::throw_different_history(group, "step", *runtime.gatherer().record());
    if (of_rank[kNonFinite] != 0) summary.finite = false;
    free_bytes = std::min(free_bytes, of_rank[kFreeBytes]);
  }
  if (!summary.finite) name_origin(words, size, runtime.parameters(), summary);
  if (!std::isfinite(sum)) summary.finite = false;
  summary.norm = std::sqrt(sum);
  if (runtime.chooses_retained()) runtime.choose_retained(free_bytes);
  runtime.gatherer().record()->restart();
  return summary;
}

void step_optimizer(Runtime& runtime, optim::OptimizerKind kind, std::span<const optim::Hyperparameters> groups,
                    int64_t step, float gradient_scale) {
  runtime.allocate_optimizer_states(static_cast<int>(optim::state_names(kind, groups).size()));
  for (auto& unit : runtime.units()) {
    const Span span(runtime.recorder(), trace::Lane::kStep, "update", unit->name);
    for (size_t b = 0; b < unit->buckets.size(); ++b) {
      const FlatGroup& group = unit->buckets[b]->group();
      if (group.segments().empty()) continue;
      optim::ShardTensors shard{group.owned_master(),
                                group.has_master_copy() ? group.owned_model() : at::Tensor(),
                                unit->buckets[b]->owned_gradient(),
                                unit->optimizer_states[b],
                                // The same at every stage and number of ranks: so are the bits.
                                {group.owned().begin, group.slots().front().index}};
      for (const int64_t missed : std::set<int64_t>(group.missed_steps().begin(), group.missed_steps().end())) {
        std::vector<optim::Segment> segments;
        for (size_t s = 0; s < group.segments().size(); ++s) {
          if (group.missed_steps()[s] == missed) segments.push_back(group.segments()[s]);
        }
        optim::optimizer_step(kind, shard, segments, groups, step - missed, gradient_scale);
      }
    }
  }
  runtime.count_missed_steps();
}

namespace {

// Where a client shard lies in its group's owned slice, and the shape it shows.
struct ClientRun {
  int optimizer_group = 0;
  int64_t offset = 0;
  std::vector<int64_t> sizes;
  std::vector<int64_t> strides;
  int64_t parameter = -1;

  [[nodiscard]] at::Tensor view(const at::Tensor& owned) const {
    return owned.as_strided(sizes, strides, owned.storage_offset() + offset);
  }
};

// Whole parameters in their shapes where this rank owns all of the group, else runs of its slice.
std::vector<ClientRun> client_runs(const FlatGroup& group) {
  std::vector<ClientRun> runs;
  if (group.owned().numel() == group.padded_numel()) {
    for (const auto& slot : group.slots()) {
      if (slot.numel == 0) continue;
      runs.push_back({slot.optimizer_group, slot.offset, slot.parameter.sizes().vec(), slot.parameter.strides().vec(),
                      slot.index});
    }
    return runs;
  }
  for (const auto& segment : group.segments()) runs.push_back({segment.group, segment.offset, {segment.numel}, {1}});
  return runs;
}

}  // namespace

std::vector<ClientShard> client_shards(Runtime& runtime) {
  std::vector<ClientShard> shards;
  for (auto& unit : runtime.units()) {
    for (auto& bucket : unit->buckets) {
      for (const auto& run : client_runs(bucket->group())) {
        shards.push_back({run.optimizer_group, run.view(bucket->group().owned_master()),
                          run.view(bucket->owned_gradient()), run.parameter});
      }
    }
  }
  return shards;
}

namespace {

// Index in client_shards() of a bucket's first run.
size_t first_client_shard(Runtime& runtime, const Unit& of_unit, size_t of_bucket) {
  size_t index = 0;
  for (auto& unit : runtime.units()) {
    for (size_t b = 0; b < unit->buckets.size(); ++b) {
      if (unit.get() == &of_unit && b == of_bucket) return index;
      index += client_runs(unit->buckets[b]->group()).size();
    }
  }
  return index;
}

at::Tensor join_pieces(const FlatGroup& group, const std::vector<at::Tensor>& pieces, size_t first) {
  at::Tensor joined = memory::make_flat_tensor(group.owned().numel(), at::kFloat, group.device());
  for (const auto& run : client_runs(group)) {
    const at::Tensor& piece = pieces.at(first++);
    if (piece.defined()) run.view(joined).copy_(piece);
  }
  return joined;
}

void check_pieces(Runtime& runtime, const std::vector<at::Tensor>& pieces) {
  const std::vector<ClientShard> shards = client_shards(runtime);
  HYDROFOIL_CHECK_ARG(pieces.size() == shards.size(), "client_state", "got ", pieces.size(), " pieces, expected ",
                      shards.size(), ", one a client shard");
  for (size_t i = 0; i < shards.size(); ++i) {
    HYDROFOIL_CHECK_ARG(!pieces[i].defined() || pieces[i].sizes() == shards[i].value.sizes(), "client_state",
                        "got a state of shape ", pieces[i].sizes(), ", expected ", shards[i].value.sizes(),
                        ": one value an element of the shard");
  }
}

}  // namespace

Runtime::OwnedTensor client_state(Runtime& runtime, std::vector<at::Tensor> pieces) {
  check_pieces(runtime, pieces);
  return [&runtime, pieces = std::move(pieces)](Unit& unit, size_t bucket) {
    return join_pieces(unit.buckets[bucket]->group(), pieces, first_client_shard(runtime, unit, bucket));
  };
}

void set_client_state(Runtime& runtime, int64_t parameter, const std::vector<at::Tensor>& pieces,
                      const at::Tensor& value) {
  check_pieces(runtime, pieces);
  const FlatGroup* group = nullptr;
  size_t first = 0;
  at::Tensor joined;
  runtime.scatter(
      parameter,
      [&](Unit& unit, size_t bucket) {
        group = &unit.buckets[bucket]->group();
        first = first_client_shard(runtime, unit, bucket);
        joined = join_pieces(*group, pieces, first);
        return joined;
      },
      value);
  if (group == nullptr) return;  // this rank owns nothing of it
  const at::NoGradGuard no_grad;
  for (const auto& run : client_runs(*group)) {
    const at::Tensor& piece = pieces.at(first++);
    if (piece.defined()) piece.copy_(run.view(joined));
  }
}

void scale_gradients(Runtime& runtime, double scale) {
  if (scale == 1.0) return;
  for (auto& unit : runtime.units()) {
    for (auto& bucket : unit->buckets) bucket->owned_gradient().mul_(scale);
  }
}

void apply_masters(Runtime& runtime) {
  for (auto& unit : runtime.units()) {
    for (auto& group : unit->groups) {
      if (group->has_master_copy()) group->owned_model().copy_(group->owned_master());
    }
  }
}

}  // namespace hydrofoil::zero
