#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "hydrofoil/comm/group.h"
#include "hydrofoil/memory/arena.h"
#include "hydrofoil/optim/optimizer.h"
#include "hydrofoil/trace/recorder.h"
#include "hydrofoil/zero/gradient_reducer.h"
#include "hydrofoil/zero/initial_shard.h"
#include "hydrofoil/zero/parameter_gatherer.h"
#include "hydrofoil/zero/unit.h"
#include "hydrofoil/zero/unit_planner.h"
#include "hydrofoil/zero/wait_times.h"

namespace hydrofoil::zero {

struct RuntimeParameter {
  std::string name;
  at::Tensor parameter;
  int optimizer_group = 0;                      // -1: in none, the parameter cannot be trained
  std::shared_ptr<InitialShard> initial_shard;  // the parameter is sharded already; else null
};

struct RuntimeOptions {
  Sharding sharding;
  ReductionOptions reduction;
  int64_t unit_min_bytes = 0;
  // Of parameters that stay gathered until the step, where they are sharded; none: chosen while the job runs, by what
  // is left of `memory_bytes`, this rank's part of a host that `ranks_of_host` share.
  std::optional<int64_t> keep_gathered_bytes = 0;
  int64_t memory_bytes = 0;
  int ranks_of_host = 1;
  std::shared_ptr<trace::Recorder> recorder;  // of what this rank does; null: no trace is ever taken
  bool training = true;                  // false: no gradients and no masters are kept, whatever requires_grad says
  ErrorTranslator translate_hook_error;  // for what is thrown inside of backward
};

// Bytes that this rank keeps or kept, by kind of state.
struct MemoryReport {
  int64_t parameter_bytes = 0;  // permanent copies in the model dtype
  int64_t gradient_bytes = 0;   // permanent buckets and shards
  int64_t master_bytes = 0;     // fp32 copies of 16-bit parameters
  int64_t optimizer_state_bytes = 0;
  int64_t slot_bytes = 0;          // gathered units and transient buckets now
  int64_t peak_slot_bytes = 0;     // the most they ever were at a time
  int64_t largest_unit_bytes = 0;  // gathered size of the largest unit, model dtype
  int64_t host_tensor_bytes = 0;   // of the process: what torch's large host tensors keep resident (HostAllocator)
};

// The sharding runtime: one model's parameters in units, their gradients and optimizer states, under one Sharding.
//
// Takes over the parameters: each becomes a view of storage that the runtime manages. `gather_group` and `reduce_group`
// are two channels over the same ranks. All methods are called by all ranks in the same order, from one thread at a
// time.
class Runtime {
 public:
  Runtime(std::vector<RuntimeParameter> parameters, std::vector<ModuleNode> modules, const RuntimeOptions& options,
          comm::Group gather_group, comm::Group reduce_group);
  ~Runtime();
  Runtime(const Runtime&) = delete;
  Runtime& operator=(const Runtime&) = delete;

  [[nodiscard]] const std::vector<ScopePlan>& scopes() const { return layout_.scopes; }
  [[nodiscard]] const std::vector<ModuleNode>& modules() const { return modules_; }
  [[nodiscard]] const std::vector<RuntimeParameter>& parameters() const { return parameters_; }
  [[nodiscard]] std::vector<std::unique_ptr<Unit>>& units() { return units_; }
  [[nodiscard]] ParameterGatherer& gatherer() { return *gatherer_; }
  [[nodiscard]] GradientReducer& reducer() { return *reducer_; }
  [[nodiscard]] const comm::Group& gather_group() const { return gather_group_; }
  [[nodiscard]] WaitTimes& waits() { return waits_; }
  [[nodiscard]] const Sharding& sharding() const { return options_.sharding; }
  [[nodiscard]] trace::Recorder* recorder() const { return options_.recorder.get(); }
  // Whether the calls of all scopes are to be boundaries. Else those that hold no sharded parameter, but for the
  // root's, which tells when a backward begins, may go without.
  [[nodiscard]] bool watches_all_scopes() const { return options_.sharding.parameters || options_.recorder != nullptr; }

  // A scope's way in: recovers from a failed backward first, and regroups where requires_grad has changed.
  std::shared_ptr<Invocation> enter(int scope);
  // Makes sure that the end of the running backward is noticed. Called in every backward.
  void notice_backward();
  // Notices the backward of this loss from its very start. Idempotent in effect.
  void watch_loss(const at::Tensor& loss);
  // Drops what a backward that ended with an exception left behind, and the gradients of its window.
  void recover();
  // Whether recover() has dropped a window since the last call.
  [[nodiscard]] bool take_aborted_window() { return std::exchange(window_aborted_, false); }

  // The parameter is about to be read: see ParameterGatherer::access. Cheap where the running module holds it.
  bool access(int64_t parameter);
  // A module hands on `tensor`: where it is a sharded parameter or a view of one, its unit stays gathered for the
  // module around it, and for that one's backward.
  void keep_for_caller(const at::Tensor& tensor);
  // Index of a parameter by identity, or -1.
  [[nodiscard]] int64_t find(const at::Tensor& parameter) const;

  // Gathers the units of the given parameters for the user until leave_access, and returns their version counters.
  // `modifier_rank`: what that rank wrote into them is every rank's from then on. Without one, a parameter that was
  // written since `versions` raises InvalidArgument where it is sharded. Collective; calls nest.
  [[nodiscard]] std::vector<int64_t> enter_access(const std::vector<int64_t>& parameters);
  void leave_access(const std::vector<int64_t>& parameters, const std::vector<int64_t>& versions,
                    std::optional<int> modifier_rank);

  // Before an optimizer step: every unit released, parameters written from outside taken into the masters.
  void prepare_step();
  // Whether this step chooses anew which units stay gathered: the same steps on every rank.
  [[nodiscard]] bool chooses_retained() const;
  // What this rank has free for them; and the choice, from what the leanest rank has.
  [[nodiscard]] int64_t free_bytes() const;
  void choose_retained(int64_t free_bytes);
  // After it: full parameters current everywhere, versions bumped, gradients dropped.
  void publish_step();
  // After the owned slices of all parameters changed (a checkpoint): full parameters current, versions bumped.
  // Collective.
  void publish_parameters();
  // Before owned slices change outside of a step, and after it where nothing is published: waits for ranks that may
  // read them, if they are shared. Collective. See NOTE [Shared slices].
  void synchronize_parameters();
  // Called once an optimizer step: frozen parameters miss it.
  void count_missed_steps();
  // Optimizer steps that each of parameters() has missed while it was frozen. The setter throws InvalidArgument unless
  // it gets one count, not negative, for each.
  [[nodiscard]] const std::vector<int64_t>& missed_steps() const { return missed_steps_; }
  void set_missed_steps(std::vector<int64_t> missed_steps);

  // What a frozen parameter keeps of its training before, for when it thaws. Each rank keeps a run of its elements.
  struct Aside {
    int64_t parameter = 0;
    int64_t offset = 0;               // of the run, in the parameter's elements
    std::vector<at::Tensor> tensors;  // master (fp32) and states, 1-D
  };
  [[nodiscard]] std::vector<Aside> aside() const;
  [[nodiscard]] Range aside_range(int64_t parameter) const;
  // Replaces it: `tensors` over aside_range(), or none where it keeps nothing. The same number on every rank.
  void set_aside(int64_t parameter, const std::vector<at::Tensor>& tensors);

  // Releases the units that stay gathered between passes; they are gathered again when they are used.
  void release_retained();

  // Reads the parameters into the fp32 masters again (after .data writes). Collective.
  void refresh_masters();

  // Allocates the states of an optimizer, zero-filled, `num_states` a trainable element. Idempotent.
  void allocate_optimizer_states(int num_states);

  [[nodiscard]] MemoryReport memory() const;

  // Whether the parameter has a master, gradient and states: as it was trainable when its unit was last laid out.
  [[nodiscard]] bool has_master(int64_t parameter) const { return places_.at(parameter).bucket >= 0; }

  // Full fp32 value of what is kept by owner: collective. `select` picks an owned 1-D tensor of a bucket's group
  // (master, gradient or state); the result has the parameter's shape. Throws InvalidArgument for a frozen parameter.
  using OwnedTensor = std::function<at::Tensor(Unit& unit, size_t bucket)>;
  [[nodiscard]] at::Tensor assemble(int64_t parameter, const OwnedTensor& select);
  // The other way: writes a full value into the owned slice of every rank.
  void scatter(int64_t parameter, const OwnedTensor& select, const at::Tensor& value);

  // This rank's part of the same, 1-D in the parameter's memory order and possibly empty: a view, and not collective.
  [[nodiscard]] at::Tensor local(int64_t parameter, const OwnedTensor& select);
  // This rank's part of the parameter itself, in the model's dtype, frozen or not.
  [[nodiscard]] at::Tensor local_parameter(int64_t parameter) const;
  [[nodiscard]] FlatGroup::State state_of(int64_t parameter) const;

  // Full reduced gradient in fp32, as reduced; nullopt where this window has not reduced it. Collective.
  [[nodiscard]] std::optional<at::Tensor> reduced_gradient(int64_t parameter);
  // Replaces it. Throws InvalidArgument where this window has not reduced it yet: the reduction would overwrite it.
  void set_reduced_gradient(int64_t parameter, const at::Tensor& value);
  // This rank's part of it, a view; undefined where this window has not reduced it. Not collective.
  [[nodiscard]] at::Tensor local_reduced_gradient(int64_t parameter);
  // Sets this rank's part of the master; each rank brings its own. Collective.
  void set_local_master(int64_t parameter, const at::Tensor& value);
  // Sets a parameter's full value on every rank: master, model copy and, where it is not sharded, the parameter itself.
  // Collective.
  void set_master(int64_t parameter, const at::Tensor& value);

  // Returns hooks and memory. `gather`: sharded parameters become ordinary again (collective). Else they stay released,
  // and their shards are what is returned, one for each of parameters(): for the next engine, or to be dropped.
  std::vector<std::shared_ptr<InitialShard>> destroy(bool gather);
  [[nodiscard]] bool alive() const { return alive_ != nullptr; }
  // Throws InvalidArgument "[function] ..." after destroy().
  void require_alive(const char* function) const;

 private:
  struct Place {
    int unit = -1;
    int group = -1;   // in Unit::groups
    int bucket = -1;  // in Unit::buckets, -1 if frozen
    int slot = -1;
  };

  void build_unit(size_t u);
  void make_buckets(size_t u);
  void install_hooks();
  void publish(bool trainable_only);
  void index_places(size_t u);
  [[nodiscard]] bool requires_grad_changed() const;
  void require_optimizer_groups() const;
  void regroup();
  void regroup_unit(size_t u);
  [[nodiscard]] int num_aside_slices() const {
    return options_.sharding.optimizer_states ? options_.sharding.num_shards : 1;
  }
  void put_aside(int64_t parameter, std::vector<at::Tensor> tensors);
  void restore(int64_t parameter, const std::vector<at::Tensor>& tensors);
  [[nodiscard]] std::vector<at::Tensor> take_back(int64_t parameter);
  // Which of the parameters the modifier rank has written since `versions`, on every rank.
  [[nodiscard]] std::vector<bool> share_written(const std::vector<int64_t>& parameters,
                                                const std::vector<int64_t>& versions, int modifier_rank);
  std::vector<int> units_of(const std::vector<int64_t>& parameters) const;
  Place place_with_states(int64_t parameter, const char* function) const;

  std::vector<RuntimeParameter> parameters_;
  std::vector<ModuleNode> modules_;
  RuntimeOptions options_;
  comm::Group gather_group_;
  comm::Group reduce_group_;
  std::shared_ptr<memory::Arena> arena_;
  // Where peers can read what lies there, else null: buckets that stay, owned slices of parameters.
  std::shared_ptr<memory::Arena> permanent_arena_;
  std::shared_ptr<memory::Arena> slice_arena_;
  UnitLayout layout_;
  std::vector<std::unique_ptr<Unit>> units_;
  std::vector<Place> places_;
  // See Aside; slices of one size on every rank, padded.
  std::map<int64_t, std::vector<at::Tensor>> aside_;
  std::vector<int64_t> missed_steps_;     // a parameter
  std::map<const void*, int64_t> index_;  // TensorImpl -> parameter
  WaitTimes waits_;
  std::map<const void*, int> unit_of_storage_;  // StorageImpl of a sharded parameter -> unit
  std::unique_ptr<ParameterGatherer> gatherer_;
  std::unique_ptr<GradientReducer> reducer_;
  std::vector<std::unique_ptr<GradientHook>> hooks_;
  class Ownership;
  std::unique_ptr<Ownership> ownership_;
  std::shared_ptr<int> alive_ = std::make_shared<int>(0);  // callbacks hold it weakly
  bool backward_noticed_ = false;
  bool window_aborted_ = false;
  int64_t num_steps_ = 0;
  int64_t retained_budget_ = 0;  // bytes
  int num_states_ = 0;
};

}  // namespace hydrofoil::zero
