#pragma once

#include <ATen/core/Tensor.h>

#include <chrono>
#include <memory>
#include <vector>

#include "hydrofoil/comm/group.h"
#include "hydrofoil/memory/arena.h"
#include "hydrofoil/zero/flat_group.h"
#include "hydrofoil/zero/sharding.h"

namespace hydrofoil::zero {

// The gradients of one trainable flat group: a flat bucket in the accumulation dtype that backward fills, and what this
// rank keeps of its reduction. A window is what lies between two optimizer steps. See NOTE [Gradient windows].
class GradientBucket {
 public:
  enum class State { kEmpty, kFilling, kReducing, kReduced };

  GradientBucket(FlatGroup& group, const Sharding& sharding, std::shared_ptr<memory::Arena> arena,
                 memory::Arena* permanent_arena = nullptr);
  ~GradientBucket();
  GradientBucket(const GradientBucket&) = delete;
  GradientBucket& operator=(const GradientBucket&) = delete;

  // Takes the gradient of slot i times `scale` (sparse ones too). Follows what the user did to `.grad` in between:
  // None drops what was accumulated, another tensor replaces it. With grad mode on (create_graph=True) `.grad` carries
  // the graph. Returns false where what is accumulated is not finite.
  bool accumulate(size_t i, const at::Tensor& gradient, double scale);
  // Whether what fills the bucket next may be narrow (Sharding::narrow_buckets); the same on every rank.
  void set_narrow(bool narrow) { narrow_ = narrow; }
  // Whether another gradient of slot i would be rounded: it has to wait for the end of the reduction.
  [[nodiscard]] bool would_round(size_t i) const;

  // Starts the reduction over `group`; parameters without a gradient contribute zeros. kEmpty, kFilling, kReduced ->
  // kReducing.
  void start_reduce(const comm::Group& group, const comm::OpInfo& info, const ReductionOptions& options);
  // Waits for it and adds the result to what this window has reduced: -> kReduced. Idempotent.
  void finish_reduce();

  // kReduced: what the user did to `.grad` since the reduction is done to the reduced gradient: None drops it, another
  // tensor replaces it.
  void take_user_changes();

  // Ends the window: drops everything and sets the parameters' `.grad` to None: -> kEmpty.
  void reset();

  [[nodiscard]] State state() const { return state_; }
  // Whether the running reduction (if any) ends within `limit`.
  [[nodiscard]] bool reduction_ends_within(std::chrono::milliseconds limit) const { return work_.wait_for(limit); }
  // Reduced gradient of the elements that this rank owns (FlatGroup::owned), 1-D, accumulation dtype. Undefined before
  // the window's first reduction where gradients pass (Sharding::passing_gradients).
  [[nodiscard]] const at::Tensor& owned_gradient() const { return owned_gradient_; }
  // Whether slot i has received a gradient since the window began or, if gradients are sharded, since the last
  // reduction.
  [[nodiscard]] bool has_gradient(size_t i) const { return filled_[i]; }
  // Of the bucket or shard that this rank keeps, the most there is between two steps.
  [[nodiscard]] int64_t permanent_bytes() const;
  FlatGroup& group() { return group_; }

 private:
  void make_owned_gradient();
  void begin_filling();
  void show_as(at::ScalarType dtype);
  void replace_owned_part(size_t i, const at::Tensor& gradient);
  void accumulate_with_graph(size_t i, const at::Tensor& gradient, double scale);
  [[nodiscard]] at::Tensor slot_view(const at::Tensor& flat, size_t i) const;
  void close_filling();
  // The part of owned_gradient_ that belongs to slot i; empty where this rank owns none of it.
  [[nodiscard]] at::Tensor owned_part(size_t i) const;
  void drop_views();

  FlatGroup& group_;
  const Sharding sharding_;
  std::shared_ptr<memory::Arena> arena_;
  // What `.grad` shows where optimizer states are sharded: the bucket while it fills, then a guard, since only this
  // rank's slice of the reduced bucket is meaningful.
  memory::FlatBuffer shown_;
  bool narrow_ = false;
  at::Tensor bucket_;              // the bucket, 1-D
  at::Tensor reduced_;             // fp32 sum of a narrow bucket, where owned_gradient_ holds an earlier one
  std::vector<at::Tensor> views_;  // one a slot, in the parameter's shape
  std::vector<bool> filled_;
  at::Tensor owned_gradient_;
  at::Tensor earlier_;       // what this window had reduced before the running reduction
  at::Tensor communicated_;  // the bucket in the communication dtype, where that differs
  comm::Work work_;
  double postscale_ = 1.0;
  bool reduced_before_ = false;  // this window has a reduced part
  State state_ = State::kEmpty;
};

}  // namespace hydrofoil::zero
