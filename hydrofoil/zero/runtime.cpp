#include "hydrofoil/zero/runtime.h"

#include <ATen/core/grad_mode.h>

#include <algorithm>
#include <bit>
#include <mutex>
#include <unordered_set>

#include "hydrofoil/base/error.h"
#include "hydrofoil/base/log.h"
#include "hydrofoil/comm/joining_group.h"
#include "hydrofoil/memory/allocation.h"
#include "hydrofoil/memory/host_allocator.h"
#include "hydrofoil/memory/process_memory.h"
#include "hydrofoil/zero/span.h"

namespace hydrofoil::zero {

// The parameters of one living runtime, among those of all. The runtime holds them: an address is no other tensor's.
class Runtime::Ownership {
 public:
  ~Ownership() {
    const std::lock_guard lock(mutex_);
    for (const void* parameter : own_) all_.erase(parameter);
  }
  void take(const RuntimeParameter& info) {
    const void* parameter = info.parameter.unsafeGetTensorImpl();
    const std::lock_guard lock(mutex_);
    HYDROFOIL_CHECK_ARG(all_.insert(parameter).second, "initialize", "parameter ", info.name,
                        " belongs to an engine already; call destroy() of that engine before");
    own_.push_back(parameter);
  }

 private:
  inline static std::mutex mutex_;
  inline static std::unordered_set<const void*> all_;
  std::vector<const void*> own_;
};

namespace {

constexpr int64_t kChooseSteps = 64;               // between looks at the free memory, once the first steps are over
constexpr int64_t kTrimBytes = int64_t{16} << 20;  // freed on the heap, after which its holes go back to the system

at::ScalarType stored_dtype(const at::Tensor& parameter, const Sharding& sharding) {
  if (sharding.model_dtype && at::isFloatingType(parameter.scalar_type())) return *sharding.model_dtype;
  return parameter.scalar_type();
}

}  // namespace

Runtime::Runtime(std::vector<RuntimeParameter> parameters, std::vector<ModuleNode> modules,
                 const RuntimeOptions& options, comm::Group gather_group, comm::Group reduce_group)
    : parameters_(std::move(parameters)),
      modules_(std::move(modules)),
      options_(options),
      gather_group_(std::move(gather_group)),
      reduce_group_(std::move(reduce_group)) {
  HYDROFOIL_CHECK_ARG(!parameters_.empty(), "initialize", "the model has no parameters");
  for (const auto& info : parameters_) {
    const auto dtype = info.parameter.scalar_type();
    const bool moves = dtype == at::kFloat || dtype == at::kBFloat16 || dtype == at::kHalf || dtype == at::kChar ||
                       dtype == at::kInt || dtype == at::kLong;
    const bool cast = options_.sharding.model_dtype && at::isFloatingType(dtype);
    HYDROFOIL_CHECK_ARG(moves || cast, "initialize", "parameter ", info.name, ": got dtype ", dtype,
                        ", expected float32, bfloat16, float16, int8, int32 or int64");
  }
  require_optimizer_groups();
  std::vector<ParameterSize> sizes;
  int64_t total_bytes = 0;
  for (size_t p = 0; p < parameters_.size(); ++p) {
    const at::Tensor& parameter = parameters_[p].parameter;
    const auto& first = parameters_[0];
    HYDROFOIL_CHECK_ARG(parameter.device() == first.parameter.device(), "initialize", "parameter ", parameters_[p].name,
                        ": got device ", parameter.device().str(), ", expected ", first.parameter.device().str(),
                        " as of ", first.name, ": one engine trains on one device");
    const auto dtype = stored_dtype(parameter, options_.sharding);
    sizes.push_back({parameter.numel(), static_cast<int64_t>(c10::elementSize(dtype))});
    total_bytes += sizes.back().numel * sizes.back().element_bytes;
    HYDROFOIL_CHECK_ARG(index_.emplace(parameter.unsafeGetTensorImpl(), p).second, "initialize", "parameter ",
                        parameters_[p].name, " is listed twice");
  }
  ownership_ = std::make_unique<Ownership>();
  for (const auto& info : parameters_) ownership_->take(info);
  const c10::Device device = parameters_[0].parameter.device();
  if (device.is_cpu()) {
    arena_ = gather_group_.shared_arena(comm::SharedUse::kTransient);
    permanent_arena_ = gather_group_.shared_arena(comm::SharedUse::kPermanent);
    slice_arena_ = gather_group_.shared_arena(comm::SharedUse::kSlices);
  }
  if (arena_ == nullptr) arena_ = memory::Arena::create(device, total_bytes + (int64_t{1} << 20));
  if (options_.sharding.poison_released) arena_->poison_released();
  layout_ = plan_units(modules_, sizes, options_.unit_min_bytes);
  places_.resize(parameters_.size());
  missed_steps_.resize(parameters_.size());
  for (const auto& plan : layout_.units) {
    auto unit = std::make_unique<Unit>();
    unit->name = plan.name.empty() ? "(root)" : plan.name;
    unit->parameters = plan.parameters;
    units_.push_back(std::move(unit));
  }
  std::vector<std::string> scope_names;
  for (const auto& scope : layout_.scopes) {
    scope_names.push_back(modules_[scope.module].path);
    for (const int u : scope.units) ++units_[u]->num_scopes;
  }
  int64_t freed_bytes = 0;  // of the parameters' own memory
  for (size_t u = 0; u < units_.size(); ++u) {
    build_unit(u);
    for (const auto& group : units_[u]->groups) freed_bytes += group->full_bytes();
    if (freed_bytes < kTrimBytes && u + 1 < units_.size()) continue;
    memory::trim_heap();
    memory::trim_host_allocator();
    freed_bytes = 0;
  }
  options_.reduction.join_divergent_units = options_.reduction.join_divergent_units && options_.sharding.parameters;
  if (options_.reduction.join_divergent_units) {  // not before: the units may share memory over the plain group
    gather_group_ = comm::make_joining_group(
        gather_group_, [this](int64_t id) { return ParameterGatherer::contribution(units_, id); });
  }
  gatherer_ =
      std::make_unique<ParameterGatherer>(units_, layout_.scopes, std::move(scope_names), gather_group_,
                                          options_.reduction, options_.translate_hook_error, waits_, options_.recorder);
  retained_budget_ = options_.keep_gathered_bytes.value_or(0);
  gatherer_->retain(retained_budget_);
  gatherer_->on_backward([this] { notice_backward(); });
  install_hooks();
  arena_->trim();
  if (device.is_cpu() && options_.training) memory::install_host_allocator();
}

Runtime::~Runtime() {
  if (alive()) destroy(false);
}

void Runtime::build_unit(size_t u) {
  const at::NoGradGuard no_grad;
  Unit& unit = *units_[u];
  std::map<std::pair<at::ScalarType, bool>, std::vector<ParameterSlot>> grouped;
  for (const int64_t p : unit.parameters) {
    const auto& info = parameters_[p];
    const auto dtype = stored_dtype(info.parameter, options_.sharding);
    const bool trainable = options_.training && info.parameter.requires_grad();
    grouped[{dtype, trainable}].push_back({p, info.name, info.parameter, 0, 0, info.optimizer_group, missed_steps_[p]});
  }
  for (auto& [key, slots] : grouped) {
    std::vector<std::shared_ptr<InitialShard>> gathered_together;
    auto group = std::make_unique<FlatGroup>(unit.name, std::move(slots), key.first, key.second, options_.sharding,
                                             gather_group_, arena_, slice_arena_.get());
    bool broadcast = false;
    for (size_t i = 0; i < group->slots().size(); ++i) {
      auto& info = parameters_[group->slots()[i].index];
      if (info.initial_shard != nullptr) {
        info.initial_shard->gather();
        group->adopt(i, values_in_memory_order(info.parameter));
        if (info.initial_shard->alone()) {
          info.initial_shard->retire();
        } else {
          gathered_together.push_back(std::move(info.initial_shard));
        }
        info.initial_shard.reset();
        continue;
      }
      at::Tensor values = values_in_memory_order(info.parameter);
      if (!group->whole()) {
        gather_group_.broadcast(values, 0, {info.name, op_signature(OpKind::kAccess, group->slots()[i].index)}).wait();
      }
      broadcast = true;
      group->adopt(i, values);
    }
    for (const auto& shard : gathered_together) shard->retire();
    group->finish(gather_group_, broadcast);
    unit.groups.push_back(std::move(group));
  }
  make_buckets(u);
}

void Runtime::make_buckets(size_t u) {
  Unit& unit = *units_[u];
  unit.num_trainable = 0;
  for (auto& group : unit.groups) {
    if (!group->trainable()) continue;
    unit.buckets.push_back(std::make_unique<GradientBucket>(*group, options_.sharding, arena_, permanent_arena_.get()));
    unit.num_trainable += static_cast<int64_t>(group->slots().size());
  }
  unit.optimizer_states.resize(unit.buckets.size());
  index_places(u);
}

void Runtime::index_places(size_t u) {
  Unit& unit = *units_[u];
  // Storages of an earlier layout die: their addresses will be other tensors'.
  std::erase_if(unit_of_storage_, [u](const auto& entry) { return entry.second == static_cast<int>(u); });
  int bucket = 0;
  for (size_t g = 0; g < unit.groups.size(); ++g) {
    const auto& slots = unit.groups[g]->slots();
    const bool trainable = unit.groups[g]->trainable();
    for (size_t i = 0; i < slots.size(); ++i) {
      if (unit.groups[g]->sharded()) {
        unit_of_storage_[slots[i].parameter.storage().unsafeGetStorageImpl()] = static_cast<int>(u);
      }
      places_[slots[i].index] = {static_cast<int>(u), static_cast<int>(g), trainable ? bucket : -1,
                                 static_cast<int>(i)};
    }
    if (trainable) ++bucket;
  }
}

void Runtime::install_hooks() {
  hooks_.clear();
  auto reducer = std::make_unique<GradientReducer>(units_, reduce_group_, options_.reduction,
                                                   options_.sharding.gradients, waits_, options_.recorder);
  if (reducer_ != nullptr) reducer->configure_as(*reducer_);
  reducer_ = std::move(reducer);
  for (size_t u = 0; u < units_.size(); ++u) {
    for (size_t b = 0; b < units_[u]->buckets.size(); ++b) {
      const auto& slots = units_[u]->buckets[b]->group().slots();
      for (size_t i = 0; i < slots.size(); ++i) {
        hooks_.push_back(std::make_unique<GradientHook>(
            slots[i].parameter,
            [this, u, b, i](const at::Tensor& gradient) {
              notice_backward();
              reducer_->on_gradient(u, b, i, gradient);
            },
            options_.translate_hook_error));
      }
    }
  }
}

void Runtime::notice_backward() {
  if (backward_noticed_) return;
  backward_noticed_ = true;
  queue_backward_callback(
      [this, alive = std::weak_ptr<int>(alive_)] {
        if (alive.expired()) return;
        gatherer_->meet("end of backward");
        reducer_->end_round();
        gatherer_->finish_backward();
        backward_noticed_ = false;  // not before: after a failure recover() has work to do
      },
      options_.translate_hook_error);
}

void Runtime::watch_loss(const at::Tensor& loss) {
  if (!loss.requires_grad() || loss.is_leaf()) return;
  watch_gradient(
      loss,
      [this, alive = std::weak_ptr<int>(alive_)] {
        if (alive.expired()) return;
        notice_backward();
        reducer_->begin_round();
      },
      options_.translate_hook_error);
}

void Runtime::recover() {
  if (!backward_noticed_ || in_backward()) return;
  backward_noticed_ = false;
  window_aborted_ = reducer_->abort_round() || window_aborted_;
  gatherer_->end_backward();
}

std::shared_ptr<Invocation> Runtime::enter(int scope) {
  if (!gatherer_->in_forward() && !in_backward()) {
    recover();
    // Not for a forward that no backward follows: PEFT freezes adapters for a reference forward, between a forward and
    // its backward, and thaws them again.
    if (at::GradMode::is_enabled() && !reducer_->window_open() && requires_grad_changed()) regroup();
    gatherer_->expect_forward(!reducer_->window_ends());
  }
  return gatherer_->enter(scope);
}

bool Runtime::access(int64_t parameter) {
  // Asked even where it is gathered: it may only linger, and the backward will need it again.
  return gatherer_->access(places_.at(parameter).unit);
}

void Runtime::keep_for_caller(const at::Tensor& tensor) {
  if (unit_of_storage_.empty() || !tensor.has_storage()) return;
  const auto found = unit_of_storage_.find(tensor.storage().unsafeGetStorageImpl());
  if (found != unit_of_storage_.end()) gatherer_->access(found->second);
}

int64_t Runtime::find(const at::Tensor& parameter) const {
  const auto found = index_.find(parameter.unsafeGetTensorImpl());
  return found == index_.end() ? -1 : found->second;
}

void Runtime::prepare_step() {
  recover();
  gatherer_->meet("step");
  reducer_->complete_window();
  gatherer_->release_idle();
  for (auto& unit : units_) {
    for (auto& group : unit->groups) {
      const std::string lost = group->lost_parameter();
      HYDROFOIL_CHECK_ARG(
          lost.empty(), "step", "parameter ", lost,
          " was given other memory after initialize (module.to(), "
          "load_state_dict(assign=True), .data = ...), which the engine cannot follow; load with copies, or "
          "change the model before initialize");
      if (group->sharded() || !group->modified_outside()) continue;
      if (!unit->change_logged) {
        log_info("parameters of unit ", unit->name,
                 " were changed outside the engine: its fp32 masters follow "
                 "(said once a unit)");
      }
      unit->change_logged = true;
      group->write_back();
    }
  }
}

void Runtime::publish_step() {
  ++num_steps_;
  publish(/*trainable_only=*/true);
  reducer_->reset_window();
}

void Runtime::publish_parameters() { publish(/*trainable_only=*/false); }

bool Runtime::chooses_retained() const {
  if (options_.keep_gathered_bytes || options_.memory_bytes == 0 || !gatherer_->gathers()) return false;
  const int64_t step = num_steps_ + 1;
  return step < kChooseSteps ? std::has_single_bit(static_cast<uint64_t>(step)) : step % kChooseSteps == 0;
}

int64_t Runtime::free_bytes() const {
  return memory::free_bytes(parameters_[0].parameter.device(), options_.memory_bytes, options_.ranks_of_host);
}

void Runtime::choose_retained(int64_t free_bytes) {
  // What stays gathered now counts as free: else each look would give away half of what the one before has left.
  const int64_t before = gatherer_->retained_bytes();
  retained_budget_ = budget_to_keep(free_bytes + before);
  gatherer_->retain(retained_budget_);
  const int64_t bytes = gatherer_->retained_bytes();
  if (bytes == before || gather_group_.rank() != 0) return;
  log_info("plan: from step ", num_steps_ + 2, " on ", bytes,
           " bytes of units stay gathered until the step (before: ", before, "); the leanest rank has ", free_bytes,
           " bytes free");
}

void Runtime::publish(bool trainable_only) {
  const at::NoGradGuard no_grad;
  const Span span(recorder(), trace::Lane::kStep, "publish", "");
  gatherer_->release_retained();
  std::vector<comm::Work> works;
  for (size_t u = 0; u < units_.size(); ++u) {
    for (auto& group : units_[u]->groups) {
      if (trainable_only && !group->trainable()) continue;
      works.push_back(group->start_publish(gather_group_,
                                           {units_[u]->name, op_signature(OpKind::kPublish, static_cast<int64_t>(u))}));
      if (!options_.reduction.overlap) {
        const ScopedStopwatch wait(waits_.for_gather());
        works.back().wait();
      }
      group->bump_versions();
    }
  }
  {
    const ScopedStopwatch wait(waits_.for_gather());
    for (auto& work : works) work.wait();
    synchronize_parameters();
  }
  for (auto& unit : units_) {
    for (auto& group : unit->groups) {
      if (!trainable_only || group->trainable()) group->discard_writes();
    }
  }
}

void Runtime::synchronize_parameters() {
  for (const auto& unit : units_) {
    for (const auto& group : unit->groups) {
      if (!group->shared()) continue;
      gather_group_.barrier({"parameters", op_signature(OpKind::kPublish, 0)});
      return;
    }
  }
}

void Runtime::refresh_masters() {
  synchronize_parameters();
  for (auto& unit : units_) {
    for (auto& group : unit->groups) {
      if (group->sharded() || !group->trainable()) continue;
      group->write_back();
      group->refresh_master();
      group->note_versions();
    }
  }
}

void Runtime::allocate_optimizer_states(int num_states) {
  num_states_ = std::max(num_states_, num_states);
  for (auto& unit : units_) {
    for (size_t b = 0; b < unit->buckets.size(); ++b) {
      auto& states = unit->optimizer_states[b];
      const FlatGroup& group = unit->buckets[b]->group();
      while (static_cast<int>(states.size()) < num_states) {
        states.push_back(
            memory::make_flat_tensor(group.owned().numel(), options_.sharding.optimizer_state_dtype, group.device()));
      }
    }
  }
}

MemoryReport Runtime::memory() const {
  MemoryReport report;
  for (const auto& unit : units_) {
    int64_t unit_bytes = 0;
    for (const auto& group : unit->groups) {
      unit_bytes += group->full_bytes();
      report.parameter_bytes += group->permanent_bytes();
      if (group->has_master_copy()) report.master_bytes += static_cast<int64_t>(group->owned_master().nbytes());
    }
    for (const auto& bucket : unit->buckets) report.gradient_bytes += bucket->permanent_bytes();
    for (const auto& states : unit->optimizer_states) {
      for (const auto& state : states) report.optimizer_state_bytes += static_cast<int64_t>(state.nbytes());
    }
    report.largest_unit_bytes = std::max(report.largest_unit_bytes, unit_bytes);
  }
  report.host_tensor_bytes = memory::host_allocator_use().resident_bytes;
  report.slot_bytes = arena_->in_use_bytes();
  report.peak_slot_bytes = arena_->peak_bytes();
  return report;
}

bool Runtime::requires_grad_changed() const {
  if (!options_.training) return false;
  for (size_t p = 0; p < parameters_.size(); ++p) {
    const Place& place = places_[p];
    if (parameters_[p].parameter.requires_grad() != units_[place.unit]->groups[place.group]->trainable()) return true;
  }
  return false;
}

void Runtime::require_optimizer_groups() const {
  for (const auto& info : parameters_) {
    const bool trainable = options_.training && info.parameter.requires_grad();
    HYDROFOIL_CHECK_ARG(!trainable || info.optimizer_group >= 0, "requires_grad", "parameter ", info.name,
                        " was made trainable, but it is in no optimizer group; list it in model_parameters at "
                        "initialize (frozen parameters may be listed)");
  }
}

void Runtime::require_alive(const char* function) const {
  HYDROFOIL_CHECK_ARG(alive(), function, "the engine was destroyed");
}

std::vector<std::shared_ptr<InitialShard>> Runtime::destroy(bool gather) {
  if (!alive()) return {};
  alive_.reset();
  const bool amid_pass = backward_noticed_ || gatherer_->in_forward();
  hooks_.clear();
  gatherer_->on_backward({});
  if (gather && options_.sharding.parameters) {
    for (size_t u = 0; u < units_.size(); ++u) {
      gatherer_->hold(static_cast<int>(u));
      for (auto& group : units_[u]->groups) group->dissolve();
      gatherer_->drop(static_cast<int>(u));
    }
    gatherer_->meet("destroy");
  }
  for (auto& parameter : parameters_) parameter.parameter.mutable_grad().reset();
  gatherer_->release_retained();
  reducer_.reset();
  gatherer_.reset();
  // The shards take the reduce channel along. The gather channel ends here, so that ranks which still run the model
  // hear at once that this one has left; in the middle of a pass both end, and the shards are lost.
  std::vector<std::shared_ptr<InitialShard>> shards(parameters_.size());
  for (auto& unit : units_) {
    unit->buckets.clear();
    for (auto& group : unit->groups) {
      if (!group->sharded()) continue;
      if (gather || amid_pass) {
        group->abandon();
        continue;
      }
      std::vector<int64_t> of_slots;
      for (const auto& slot : group->slots()) of_slots.push_back(slot.index);
      const auto left = InitialShard::left_by_engine(std::move(group), reduce_group_);
      for (size_t i = 0; i < left.size(); ++i) shards[of_slots[i]] = left[i];
    }
  }
  units_.clear();
  // What stays with the user may keep the shared memory mapped: the rest of it goes back now.
  arena_->trim();
  if (permanent_arena_ != nullptr) permanent_arena_->trim();
  gather_group_ = comm::Group();
  reduce_group_ = comm::Group();
  memory::trim_host_allocator();
  ownership_.reset();
  parameters_.clear();
  index_.clear();
  unit_of_storage_.clear();
  return shards;
}

}  // namespace hydrofoil::zero
