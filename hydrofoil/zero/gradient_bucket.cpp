#include "hydrofoil/zero/gradient_bucket.h"

#include <ATen/core/grad_mode.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/empty_like.h>
#include <ATen/ops/empty_strided.h>
#include <ATen/ops/from_blob.h>
#include <ATen/ops/isfinite.h>

#include <algorithm>

#include "hydrofoil/base/error.h"
#include "hydrofoil/kernels/cast.h"
#include "hydrofoil/kernels/torch_types.h"
#include "hydrofoil/memory/allocation.h"

namespace hydrofoil::zero {
namespace {
constexpr const char* kSharded =
    "this gradient was reduced: under ZeRO stages 1 to 3 each rank keeps only its slice of it. Read it with "
    "hydrofoil.utils.safe_get_full_grad(parameter); clip with the config's gradient_clipping; or use stage 0";
}  // namespace

// NOTE [Gradient windows]
// The first gradient of a window is copied into the bucket and later ones are added, so no bucket is ever zeroed; only
// what no gradient reached is zeroed, just before a reduction. Stages 2-3 reduce in every backward: the bucket lives in
// the arena from the unit's first gradient to the end of its reduction, and results add up in owned_gradient_. So does
// stage 1 where each window has one backward. Else stages 0-1 reduce once, at the boundary: the bucket is permanent and
// owned_gradient_ is its own slice (stage 0: all of it). If another backward follows in the same window, the reduced
// part is set aside in earlier_ and added back.

GradientBucket::GradientBucket(FlatGroup& group, const Sharding& sharding, std::shared_ptr<memory::Arena> arena,
                               memory::Arena* permanent_arena)
    : group_(group), sharding_(sharding), arena_(std::move(arena)), filled_(group.slots().size(), false) {
  const auto dtype = sharding_.accumulation_dtype;
  if (sharding_.gradients && sharding_.passing_gradients) {
    // Made by start_reduce.
  } else if (sharding_.gradients) {
    owned_gradient_ = memory::make_flat_tensor(group_.owned().numel(), dtype, group_.device());
  } else {
    bucket_ = permanent_arena != nullptr ? memory::make_flat_tensor(group_.padded_numel(), dtype, *permanent_arena)
                                         : memory::make_flat_tensor(group_.padded_numel(), dtype, group_.device());
    owned_gradient_ = bucket_.narrow(0, group_.owned().begin, group_.owned().numel());
  }
  if (sharding_.optimizer_states) {
    show_as(dtype);
  } else {
    for (size_t i = 0; i < group_.slots().size(); ++i) views_.push_back(slot_view(bucket_, i));
  }
}

// Only while no parameter shows a gradient of this bucket, or what it shows is guarded.
void GradientBucket::show_as(at::ScalarType dtype) {
  if (shown_.defined() && shown_.flat().scalar_type() == dtype) return;
  drop_views();
  shown_ = memory::FlatBuffer(group_.padded_numel(), dtype, group_.device(), kSharded);
  views_.clear();
  for (size_t i = 0; i < group_.slots().size(); ++i) views_.push_back(slot_view(shown_.flat(), i));
}

GradientBucket::~GradientBucket() {
  try {
    work_.wait();
  } catch (const std::exception&) {  // NOLINT(bugprone-empty-catch): reported to the caller of finish_reduce
  }
  drop_views();
}

int64_t GradientBucket::permanent_bytes() const {
  if (!sharding_.gradients) return static_cast<int64_t>(bucket_.nbytes());
  return group_.owned().numel() * static_cast<int64_t>(c10::elementSize(sharding_.accumulation_dtype));
}

void GradientBucket::make_owned_gradient() {
  if (owned_gradient_.defined()) return;
  owned_gradient_ = at::empty({group_.owned().numel()},
                              at::TensorOptions().dtype(sharding_.accumulation_dtype).device(group_.device()));
}

at::Tensor GradientBucket::slot_view(const at::Tensor& flat, size_t i) const {
  const auto& slot = group_.slots()[i];
  return flat.as_strided(slot.parameter.sizes(), slot.parameter.strides(), flat.storage_offset() + slot.offset);
}

void GradientBucket::drop_views() {
  for (size_t i = 0; i < views_.size(); ++i) {
    auto& gradient = group_.slots()[i].parameter.mutable_grad();
    if (gradient.defined() && gradient.is_alias_of(views_[i])) gradient.reset();
  }
}

void GradientBucket::begin_filling() {
  if (sharding_.gradients) {
    // A gradient assigned since the last reduction goes into this one.
    for (size_t i = 0; i < views_.size() && state_ == State::kReduced; ++i) {
      const at::Tensor& shown = group_.slots()[i].parameter.grad();
      if (!shown.defined() || !shown.is_same(views_[i])) replace_owned_part(i, {});
    }
    const bool narrow = sharding_.narrow_buckets && narrow_ && at::isReducedFloatingType(group_.dtype());
    show_as(narrow ? group_.dtype() : sharding_.accumulation_dtype);
    shown_.attach(arena_->allocate(shown_.num_bytes()));
    bucket_ = shown_.flat();
  } else {
    if (shown_.defined() && !shown_.attached()) {
      shown_.attach(c10::DataPtr(
          bucket_.data_ptr(), new at::Tensor(bucket_), [](void* context) { delete static_cast<at::Tensor*>(context); },
          group_.device()));
    }
    if (reduced_before_) {
      take_user_changes();
      earlier_ = owned_gradient_.clone();
    }
  }
  if (sharding_.num_shards > 1) {  // the memory between the parameters travels too
    int64_t end = 0;
    for (const auto& slot : group_.slots()) {
      if (slot.offset > end) bucket_.narrow(0, end, slot.offset - end).zero_();
      end = slot.offset + slot.numel;
    }
    if (end < bucket_.numel()) bucket_.narrow(0, end, bucket_.numel() - end).zero_();
  }
  state_ = State::kFilling;
}

namespace {

bool has_kernel(const at::Tensor& tensor) {
  const auto type = tensor.scalar_type();
  return tensor.is_cpu() && (type == at::kFloat || type == at::kBFloat16 || type == at::kHalf);
}

// view = gradient * scale, or view += gradient * scale. Returns whether the result is finite where that costs no wait
// for a device (true there: the summary of the step finds it).
bool accumulate_into(const at::Tensor& view, const at::Tensor& gradient, double scale, bool add) {
  const bool same_order = view.strides() == gradient.strides() && view.is_non_overlapping_and_dense();
  if (same_order && has_kernel(view) && has_kernel(gradient)) {
    return kernels::accumulate({view.data_ptr(), kernels::element_type(view.scalar_type())},
                               {gradient.const_data_ptr(), kernels::element_type(gradient.scalar_type())}, view.numel(),
                               static_cast<float>(scale),
                               add ? kernels::AccumulateMode::kAdd : kernels::AccumulateMode::kAssign);
  }
  if (add) {
    view.add_(gradient, scale);
  } else {
    view.copy_(gradient);
    if (scale != 1.0) view.mul_(scale);
  }
  return !view.is_cpu() || at::isfinite(view).all().item<bool>();
}

}  // namespace

void GradientBucket::accumulate_with_graph(size_t i, const at::Tensor& gradient, double scale) {
  at::Tensor& shown = group_.slots()[i].parameter.mutable_grad();
  const at::Tensor scaled = gradient.to(bucket_.scalar_type()).mul(scale);
  const bool accumulated = shown.defined() && (filled_[i] || !shown.is_same(views_[i]));
  if (accumulated) {
    shown = (shown.is_same(views_[i]) ? shown.clone() : shown).add(scaled);
  } else {
    shown = scaled;
  }
  filled_[i] = true;
}

bool GradientBucket::accumulate(size_t i, const at::Tensor& gradient, double scale) {
  const bool with_graph = at::GradMode::is_enabled();
  const at::AutoGradMode grad_mode(with_graph);
  HYDROFOIL_ASSERT(state_ != State::kReducing, group_.slots()[i].name);
  if (state_ != State::kFilling) begin_filling();
  if (with_graph) {
    accumulate_with_graph(i, gradient, scale);
    return true;
  }
  const at::Tensor dense = gradient.is_sparse() ? gradient.detach().to_dense() : gradient.detach();
  at::Tensor& shown = group_.slots()[i].parameter.mutable_grad();
  at::Tensor& view = views_[i];
  const bool assigned = shown.defined() && !shown.is_same(view);
  if (assigned) view.copy_(shown);
  const bool add = assigned || (shown.defined() && filled_[i]);
  shown = view;
  filled_[i] = true;
  return accumulate_into(view, dense, scale, add);
}

bool GradientBucket::would_round(size_t i) const {
  return state_ == State::kFilling && filled_[i] && bucket_.scalar_type() != sharding_.accumulation_dtype;
}

at::Tensor GradientBucket::owned_part(size_t i) const {
  const auto& slot = group_.slots()[i];
  const Range part = intersect({slot.offset, slot.offset + slot.numel}, group_.owned());
  return owned_gradient_.narrow(0, part.numel() > 0 ? part.begin - group_.owned().begin : 0,
                                std::max<int64_t>(part.numel(), 0));
}

void GradientBucket::replace_owned_part(size_t i, const at::Tensor& gradient) {
  const auto& slot = group_.slots()[i];
  const Range part = intersect({slot.offset, slot.offset + slot.numel}, group_.owned());
  if (part.numel() == 0) return;
  at::Tensor target = owned_part(i);
  if (!gradient.defined()) {
    target.zero_();
    return;
  }
  at::Tensor ordered = at::empty_strided(slot.parameter.sizes(), slot.parameter.strides(), target.options());
  ordered.copy_(gradient);
  target.copy_(ordered.as_strided({slot.numel}, {1}).narrow(0, part.begin - slot.offset, part.numel()));
}

void GradientBucket::take_user_changes() {
  const at::NoGradGuard no_grad;
  if (state_ != State::kReduced) return;
  for (size_t i = 0; i < views_.size(); ++i) {
    at::Tensor& shown = group_.slots()[i].parameter.mutable_grad();
    if (shown.defined() && shown.is_same(views_[i])) continue;
    replace_owned_part(i, shown);
    if (shown.defined()) shown = views_[i];
  }
}

void GradientBucket::close_filling() {
  if (state_ != State::kFilling) begin_filling();
  for (size_t i = 0; i < views_.size(); ++i) {
    at::Tensor& shown = group_.slots()[i].parameter.mutable_grad();
    if (shown.defined() && !shown.is_same(views_[i])) {
      views_[i].copy_(shown);
      shown = views_[i];
    } else if (!filled_[i] || !shown.defined()) {
      views_[i].zero_();
      shown = views_[i];
    }
  }
}

void GradientBucket::start_reduce(const comm::Group& group, const comm::OpInfo& info, const ReductionOptions& options) {
  const at::NoGradGuard no_grad;
  HYDROFOIL_ASSERT(state_ != State::kReducing);
  close_filling();
  make_owned_gradient();
  state_ = State::kReducing;
  if (group.size() == 1) return;
  auto op = options.average ? comm::ReduceOp::kAvg : comm::ReduceOp::kSum;
  postscale_ = 1.0;
  if (options.prescale) {
    bucket_.mul_(1.0 / options.predivide_factor);
    op = comm::ReduceOp::kSum;
    if (options.average) postscale_ = options.predivide_factor / group.size();
  }
  const bool cast = sharding_.communication_dtype && *sharding_.communication_dtype != sharding_.accumulation_dtype;
  communicated_ = cast ? bucket_.to(*sharding_.communication_dtype) : bucket_;
  if (!sharding_.optimizer_states) {
    work_ = group.all_reduce(communicated_, op, info);
    return;
  }
  const Range owned = group_.owned();
  const bool direct = sharding_.gradients && !cast && !reduced_before_;
  at::Tensor output = direct ? owned_gradient_ : communicated_.narrow(0, owned.begin, owned.numel());
  if (!direct && output.scalar_type() != owned_gradient_.scalar_type() && !cast) {
    output = reduced_ = at::empty_like(owned_gradient_);
  }
  work_ = group.reduce_scatter(communicated_, output, op, info);
}

void GradientBucket::finish_reduce() {
  const at::NoGradGuard no_grad;
  if (state_ != State::kReducing) return;
  work_.wait();
  work_ = comm::Work();
  const Range owned = group_.owned();
  if (communicated_.defined()) {
    const at::Tensor part = reduced_.defined() ? reduced_ : communicated_.narrow(0, owned.begin, owned.numel());
    if (sharding_.gradients && reduced_before_) {
      if (postscale_ != 1.0) part.mul_(postscale_);
      owned_gradient_.add_(part);
    } else {
      const bool cast =
          sharding_.communication_dtype.value_or(sharding_.accumulation_dtype) != sharding_.accumulation_dtype;
      if (cast) owned_gradient_.copy_(part);
      if (postscale_ != 1.0) owned_gradient_.mul_(postscale_);
    }
    communicated_.reset();
    reduced_.reset();
  }
  if (earlier_.defined()) {
    owned_gradient_.add_(earlier_);
    earlier_.reset();
  }
  if (sharding_.gradients) {
    bucket_.reset();
  }
  if (shown_.defined()) shown_.detach(kSharded);
  filled_.assign(filled_.size(), false);
  reduced_before_ = true;
  state_ = State::kReduced;
}

void GradientBucket::reset() {
  try {
    work_.wait();
  } catch (const std::exception&) {  // NOLINT(bugprone-empty-catch): the window is dropped, whatever became of it
  }
  work_ = comm::Work();
  for (const auto& slot : group_.slots()) slot.parameter.mutable_grad().reset();
  if (sharding_.gradients) {
    bucket_.reset();
    shown_.detach(kSharded);
    if (sharding_.passing_gradients) owned_gradient_.reset();
  }
  communicated_.reset();
  reduced_.reset();
  earlier_.reset();
  filled_.assign(filled_.size(), false);
  reduced_before_ = false;
  state_ = State::kEmpty;
}

}  // namespace hydrofoil::zero
