#pragma once

#include <ATen/core/Tensor.h>

#include <memory>
#include <string>
#include <vector>

#include "hydrofoil/comm/group.h"
#include "hydrofoil/comm/shared_slices.h"
#include "hydrofoil/memory/arena.h"
#include "hydrofoil/memory/flat_buffer.h"
#include "hydrofoil/optim/optimizer.h"
#include "hydrofoil/zero/sharding.h"

namespace hydrofoil::zero {

// Parameters of one unit with one dtype, all trainable or all frozen, in one flat buffer of which rank r owns the r-th
// slice. Where all ranks map each other's memory (shared()), the buffer exists once for all of them: see
// NOTE [Shared slices] in comm/shared_slices.cpp. See NOTE [One storage for life] in memory/flat_buffer.cpp: each
// parameter has a storage of its own that points into the buffer while that is gathered, so errors name the parameter
// and a saved parameter is just its own bytes.
class FlatGroup {
 public:
  enum class State { kReleased, kGathering, kGathered };

  // `slots` bring parameter, name and optimizer group; offsets are laid out here. Parameters are adopted one by one
  // with adopt(); then finish() seals the group. Collective over `group`. `slice_arena`: of kSlices, or null.
  FlatGroup(std::string unit_name, std::vector<ParameterSlot> slots, at::ScalarType dtype, bool trainable,
            const Sharding& sharding, const comm::Group& group, std::shared_ptr<memory::Arena> arena,
            memory::Arena* slice_arena = nullptr);
  ~FlatGroup();
  FlatGroup(const FlatGroup&) = delete;
  FlatGroup& operator=(const FlatGroup&) = delete;

  // Takes over slot i: copies `values` (1-D, numel elements in the parameter's memory order, any floating dtype), and
  // makes the parameter a view of its new storage.
  void adopt(size_t i, const at::Tensor& values);
  // Equal values on every rank from rank 0's (where whole(); others get equal values in adopt). Makes the fp32 master
  // copy. Collective.
  void finish(const comm::Group& group, bool broadcast);

  [[nodiscard]] const std::string& unit_name() const { return unit_name_; }
  [[nodiscard]] const std::vector<ParameterSlot>& slots() const { return slots_; }
  [[nodiscard]] bool trainable() const { return trainable_; }
  [[nodiscard]] at::ScalarType dtype() const { return dtype_; }
  [[nodiscard]] bool sharded() const { return sharded_; }
  // Whether the ranks map one buffer for all of them. Then an owned slice may be written only while no rank reads it.
  [[nodiscard]] bool shared() const { return slices_ != nullptr; }
  // Whether this rank keeps the whole buffer in memory of its own.
  [[nodiscard]] bool whole() const { return flat_.defined(); }
  [[nodiscard]] State state() const { return state_; }
  [[nodiscard]] int64_t padded_numel() const { return padded_numel_; }
  [[nodiscard]] const c10::Device& device() const { return device_; }
  [[nodiscard]] int64_t full_bytes() const;
  // Of what this rank keeps of it all the time, in the model dtype.
  [[nodiscard]] int64_t permanent_bytes() const;

  // Sharded groups only. start_gather: kReleased -> kGathering; finish_gather waits: -> kGathered; release -> kReleased
  // (idempotent; throws nothing, also where a gather failed).
  void start_gather(const comm::Group& group, const comm::OpInfo& info);
  void finish_gather();
  void release();
  // Name of a sharded parameter that was written since note_versions(), or "": its release loses the write. The next
  // call returns "".
  [[nodiscard]] std::string take_lost_write();

  // Elements of the flat buffer whose optimizer states this rank keeps, and tensors over them (1-D).
  [[nodiscard]] Range owned() const { return owned_; }
  [[nodiscard]] const at::Tensor& owned_model() const { return owned_model_; }  // model dtype
  [[nodiscard]] const at::Tensor& owned_master() const {
    return owned_master_;
  }  // fp32; the same tensor for fp32 models
  [[nodiscard]] bool has_master_copy() const;
  // Runs of owned() by optimizer group, offsets relative to owned().begin.
  [[nodiscard]] const std::vector<optim::Segment>& segments() const { return segments_; }
  // ParameterSlot::missed_steps of each segment.
  [[nodiscard]] const std::vector<int64_t>& missed_steps() const { return missed_steps_; }
  // Sets ParameterSlot::missed_steps of every slot.
  void set_missed_steps(const std::vector<int64_t>& missed_steps);
  // The whole buffer, raw; only while gathered.
  [[nodiscard]] at::Tensor full() const;

  // After the owned slices changed: makes the full buffer (of a group that is not sharded) current.
  comm::Work start_publish(const comm::Group& group, const comm::OpInfo& info);
  // Marks parameters as changed for autograd: a backward through an older graph raises.
  void bump_versions();

  // Copies what was written into gathered parameters back to what this rank keeps: shard and, where the value has
  // changed, master (the others keep the precision that the model dtype lacks).
  void write_back();
  // Whether a parameter was written in place (load_state_dict, an optimizer of the user's) since note_versions().
  [[nodiscard]] bool modified_outside() const;
  void note_versions();
  // The master becomes exactly the model's value.
  void refresh_master();
  void drop_master() { owned_master_.reset(); }
  // From here on the parameters are the program's to free: of each only its storage and its version counter are kept.
  void forget_parameters();
  // shared(): what was written into the parameters here shows the owners' values again. Else nothing.
  void discard_writes();

  // Name of a parameter that no longer is a view of its storage (module.to(), load_state_dict(assign=True)), or "".
  [[nodiscard]] std::string lost_parameter() const;

  // Leaves the parameters with ordinary memory of their own; only while gathered.
  void dissolve();
  // Leaves what is sharded released for good; an access says that the engine is gone.
  void abandon();

 private:
  void move_to(State next);
  void attach_parameters(char* base, const std::shared_ptr<void>& owner);
  void build_segments();
  [[nodiscard]] bool in_its_storage(size_t i) const;
  void follow_model();

  const std::string unit_name_;
  std::vector<ParameterSlot> slots_;
  const at::ScalarType dtype_;
  const bool trainable_;
  const bool sharded_;
  const bool log_states_;
  const int shard_rank_;
  const c10::Device device_;
  std::shared_ptr<memory::Arena> arena_;
  int64_t padded_numel_ = 0;
  int64_t shard_numel_ = 0;
  Range owned_;

  std::vector<memory::FlatBuffer> storages_;  // one a parameter
  std::vector<std::string> messages_;         // what an access to it says while released
  std::vector<int64_t> versions_;
  std::shared_ptr<comm::SharedSlices> slices_;
  at::Tensor flat_;    // permanent buffer of a group that is neither sharded nor shared
  c10::DataPtr slot_;  // arena memory while gathered
  at::Tensor owned_model_;
  at::Tensor owned_master_;
  std::vector<optim::Segment> segments_;
  std::vector<int64_t> missed_steps_;
  State state_ = State::kReleased;
  comm::Work gather_;
};

// 1-D tensor of the parameter's values in memory order (a view where its memory is dense).
[[nodiscard]] at::Tensor values_in_memory_order(const at::Tensor& parameter);

// "parameter 'x' is released ...", with the way out.
[[nodiscard]] std::string released_message(const std::string& name);

}  // namespace hydrofoil::zero
