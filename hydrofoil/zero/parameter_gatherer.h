#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "hydrofoil/comm/group.h"
#include "hydrofoil/trace/recorder.h"
#include "hydrofoil/zero/autograd_hooks.h"
#include "hydrofoil/zero/unit.h"
#include "hydrofoil/zero/unit_planner.h"
#include "hydrofoil/zero/unit_record.h"
#include "hydrofoil/zero/wait_times.h"

namespace hydrofoil::zero {

// One call of a scope's module, from its forward to the end of its backward(s).
struct Invocation {
  int scope = -1;
  std::vector<int> forward_units;   // held by the forward
  std::vector<int> backward_units;  // held by the backward
  bool in_forward = false;
  bool in_backward = false;
  bool keeps_units = false;  // its backward made a graph, which needs the parameters once more
  int num_inputs = 0;        // inputs whose gradients end the backward
  int num_inputs_done = 0;
  bool closes_by_inputs = true;  // else the end of the backward (a nested one, in a checkpoint) closes it
  bool end_queued = false;
  int64_t forward_begin_ns = 0;  // where a trace is taken, else 0
  int64_t backward_begin_ns = 0;
};

// Gathers units around the calls of modules, and releases them. See NOTE [Boundaries].
class ParameterGatherer {
 public:
  ParameterGatherer(std::vector<std::unique_ptr<Unit>>& units, std::vector<ScopePlan> scopes,
                    std::vector<std::string> scope_names, comm::Group group, const ReductionOptions& options,
                    ErrorTranslator translate_hook_error, WaitTimes& waits,
                    std::shared_ptr<trace::Recorder> recorder = nullptr);
  ~ParameterGatherer();

  // A module's way in and out. `failed`: its forward threw. The way out, the end of the backward and the step throw
  // InvalidArgument where a sharded parameter was written in place while it was gathered: that write is lost.
  std::shared_ptr<Invocation> enter(int scope);
  void exit(const std::shared_ptr<Invocation>& invocation, bool failed);
  // Tensors that go in (after enter) and come out (after exit), with grad mode on.
  void watch_input(const std::shared_ptr<Invocation>& invocation, const at::Tensor& tensor);
  void watch_output(const std::shared_ptr<Invocation>& invocation, const at::Tensor& tensor);

  // A parameter of unit `u` is about to be read inside a forward or backward: gathers it for the running module, now
  // and in all its later calls. Returns false outside both, where nothing is gathered.
  bool access(int u);

  // Holds unit `u` gathered until the matching drop(); collective.
  void hold(int u);
  void drop(int u);
  // The unit was laid out anew: nothing of it is held or gathered.
  void forget(int u) { states_[u] = {}; }

  // The backward has ended, well or not: closes what is open.
  void end_backward();
  // The same after a backward that ended well; throws as exit() does.
  void finish_backward();
  // Releases what a backward with create_graph=True left gathered for the backward through its own graph.
  void release_kept();
  void release_lingering();
  // Releases what only waits to be used (prefetched, lingering, retained); throws InvalidArgument if a unit is held.
  void release_idle();
  // Units that stay gathered from their first use to the step: as units_to_keep() chooses for the budget. The same on
  // every rank. Nothing where ranks may part ways.
  void retain(int64_t budget_bytes);
  // Before owned slices change outside of a step.
  void release_retained();
  // Whether another forward comes before the step: else what is retained goes with its backward.
  void expect_forward(bool expected) { forward_expected_ = expected; }
  // Of the units that retain() has chosen.
  [[nodiscard]] int64_t retained_bytes() const { return retained_bytes_; }
  // Called in every backward before anything else; set by the runtime to queue the end of the round.
  void on_backward(std::function<void()> callback) { on_backward_ = std::move(callback); }

  // Whether units are gathered at all, each rank the same.
  [[nodiscard]] bool gathers() const { return sharded_ && !join_; }
  [[nodiscard]] bool in_forward() const { return !active_.empty(); }
  // What this rank has run since the last step, to compare across ranks. Nothing where ranks may part ways.
  [[nodiscard]] const std::shared_ptr<UnitRecord>& record() const { return record_; }
  // Joins the gathers of ranks that still run units, until all are here ("the end of backward"). Collective; does
  // nothing but where ranks may part ways.
  void meet(const char* where);
  // This rank's part of a gather that others run without it; `id` is their OpInfo::joinable's.
  [[nodiscard]] static at::Tensor contribution(const std::vector<std::unique_ptr<Unit>>& units, int64_t id);
  // Whether ranks may part ways, so that a way out waits for the other ranks.
  [[nodiscard]] bool joins() const { return join_; }
  [[nodiscard]] bool held(int u) const { return states_[u].holds > 0; }

 private:
  // Why a unit is gathered, or being gathered, though nobody holds it.
  enum class Idle { kNo, kPrefetched, kLingering, kRetained };
  struct UnitState {
    int holds = 0;
    Idle idle = Idle::kNo;
    bool retain = false;
  };
  struct Plan {
    std::vector<int> order;
  };

  [[nodiscard]] comm::OpInfo gather_info(int u, size_t g) const;
  void begin_pass();
  void acquire(int u);
  void release(int u);
  void release_now(int u);
  void release_all(Idle idle);
  [[nodiscard]] bool stays(int u) const;
  void raise_if_written();
  // The time where a trace is taken, else 0; and the event from then to now.
  [[nodiscard]] int64_t trace_time() const;
  void trace_call(const char* what, int scope, int64_t begin_ns) const;
  void start(int u);
  void follow_plan(int u);
  void open_backward(const std::shared_ptr<Invocation>& invocation, bool from_forward);
  void keep_or_release(int u, bool keep);
  void close_backward(std::shared_ptr<Invocation> invocation);
  std::vector<int> units_of(int scope) const;

  std::vector<std::unique_ptr<Unit>>& units_;
  std::vector<ScopePlan> scopes_;
  std::vector<std::string> scope_names_;
  comm::Group group_;
  const bool overlap_;
  const bool join_;  // ranks may part ways: each gathers on demand, and joins the others' gathers
  const std::shared_ptr<UnitRecord> record_;
  const ErrorTranslator translate_hook_error_;
  const std::shared_ptr<trace::Recorder> recorder_;  // null: no trace is ever taken
  WaitTimes& waits_;
  bool sharded_ = false;  // some parameters are: else there is nothing to gather, and no order that ranks must share
  std::vector<UnitState> states_;
  int64_t retained_bytes_ = 0;
  bool forward_expected_ = false;
  std::vector<std::shared_ptr<Invocation>> active_;  // forwards that run, innermost last
  std::vector<std::shared_ptr<Invocation>> open_backwards_;
  std::vector<int> kept_;               // units held for the backward through a backward's graph
  std::vector<int> backward_accesses_;  // units held until the backward ends
  std::function<void()> on_backward_;
  std::string written_;         // a parameter that was released with a write in it
  std::map<bool, Plan> plans_;  // by grad mode
  std::vector<int> trace_;
  bool trace_grad_mode_ = false;
  size_t cursor_ = 0;
  std::shared_ptr<int> alive_ = std::make_shared<int>(0);  // hooks in graphs that outlive the gatherer hold it weakly
};

}  // namespace hydrofoil::zero
