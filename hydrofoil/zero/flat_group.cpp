#include "hydrofoil/zero/flat_group.h"

#include <ATen/ops/empty.h>
#include <ATen/ops/from_blob.h>
#include <ATen/ops/where.h>

#include <algorithm>

#include "hydrofoil/base/error.h"
#include "hydrofoil/base/transitions.h"
#include "hydrofoil/memory/allocation.h"
#include "hydrofoil/zero/flat_layout.h"

namespace hydrofoil::zero {
namespace {

std::vector<int64_t> row_major_strides(at::IntArrayRef sizes) {
  std::vector<int64_t> strides(sizes.size(), 1);
  for (size_t d = sizes.size(); d-- > 1;) strides[d - 1] = strides[d] * std::max<int64_t>(sizes[d], 1);
  return strides;
}

}  // namespace

at::Tensor values_in_memory_order(const at::Tensor& parameter) {
  const at::Tensor detached = parameter.detach();
  if (detached.is_non_overlapping_and_dense()) {
    return detached.as_strided({detached.numel()}, {1}, detached.storage_offset());
  }
  return detached.contiguous().view({-1});
}

std::string released_message(const std::string& name) {
  return detail::concat("parameter '", name,
                        "' is released: ZeRO stage 3 keeps only this rank's shard of it outside forward "
                        "and backward. To read or change it: with hydrofoil.zero.GatheredParameters([parameter], "
                        "modifier_rank=0): ..., in C++ Engine::with_gathered. Inside forward read it as an attribute "
                        "of its module (not through "
                        "parameters()); where a module hands it, or what needs it in backward, to others in an unusual "
                        "way, name the module around both in the config's hydrofoil.unit_names");
}

FlatGroup::FlatGroup(std::string unit_name, std::vector<ParameterSlot> slots, at::ScalarType dtype, bool trainable,
                     const Sharding& sharding, const comm::Group& group, std::shared_ptr<memory::Arena> arena,
                     memory::Arena* slice_arena)
    : unit_name_(std::move(unit_name)),
      slots_(std::move(slots)),
      dtype_(dtype),
      trainable_(trainable),
      sharded_(sharding.parameters),
      log_states_(sharding.log_states),
      shard_rank_(sharding.shard_rank),
      device_(slots_.at(0).parameter.device()),
      arena_(std::move(arena)) {
  std::vector<int64_t> numels;
  for (const auto& slot : slots_) numels.push_back(slot.parameter.numel());
  const auto element_bytes = static_cast<int64_t>(c10::elementSize(dtype));
  const bool owns_slice = sharding.optimizer_states || sharding.parameters;
  // Poison needs memory that nobody else reads.
  const bool share = slice_arena != nullptr && owns_slice && !sharding.poison_released;
  const FlatLayout layout = layout_flat(numels, sharding.num_shards, memory::alignment_bytes(device_) / element_bytes,
                                        share ? memory::kPageBytes / element_bytes : 0);
  padded_numel_ = layout.padded_numel;
  shard_numel_ = layout.shard_numel;
  storages_.reserve(slots_.size());
  for (size_t i = 0; i < slots_.size(); ++i) {
    slots_[i].offset = layout.offsets[i];
    slots_[i].numel = numels[i];
    messages_.push_back(released_message(slots_[i].name));
    storages_.emplace_back(numels[i], dtype, device_, messages_.back());
  }
  versions_.assign(slots_.size(), 0);
  owned_ = owns_slice ? Range{shard_rank_ * shard_numel_, (shard_rank_ + 1) * shard_numel_} : Range{0, padded_numel_};
  if (share) {
    owned_model_ = memory::make_flat_tensor(shard_numel_, dtype_, *slice_arena, /*at_page=*/true);
    slices_ = group.share_slices(owned_model_);
  }
  if (sharded_ && !owned_model_.defined()) owned_model_ = memory::make_flat_tensor(shard_numel_, dtype_, device_);
  if (!sharded_) {
    if (shared()) {
      attach_parameters(slices_->data(), slices_);
    } else {
      flat_ = memory::make_flat_tensor(padded_numel_, dtype_, device_);
      owned_model_ = flat_.narrow(0, owned_.begin, owned_.numel());
      attach_parameters(static_cast<char*>(flat_.data_ptr()), std::make_shared<at::Tensor>(flat_));
    }
    state_ = State::kGathered;
  }
  build_segments();
}

FlatGroup::~FlatGroup() {
  if (sharded_) release();
}

void FlatGroup::attach_parameters(char* base, const std::shared_ptr<void>& owner) {
  const auto element_bytes = static_cast<int64_t>(c10::elementSize(dtype_));
  for (size_t i = 0; i < slots_.size(); ++i) {
    char* address = base + slots_[i].offset * element_bytes;
    if (owner == nullptr) {
      storages_[i].attach(c10::DataPtr(address, device_));
    } else {
      storages_[i].attach(c10::DataPtr(
          address, new std::shared_ptr<void>(owner),
          [](void* context) { delete static_cast<std::shared_ptr<void>*>(context); }, device_));
    }
  }
}

void FlatGroup::build_segments() {
  segments_.clear();
  missed_steps_.clear();
  for (const auto& slot : slots_) {
    const Range part = intersect({slot.offset, slot.offset + slot.numel}, owned_);
    if (part.numel() == 0) continue;
    const int64_t begin = part.begin - owned_.begin;
    const int64_t end = part.end - owned_.begin;
    // Padding between neighbours holds zeros in gradient and value, and every update leaves zeros there: one run.
    if (!segments_.empty() && segments_.back().group == slot.optimizer_group &&
        missed_steps_.back() == slot.missed_steps) {
      segments_.back().numel = end - segments_.back().offset;
    } else {
      segments_.push_back({begin, end - begin, slot.optimizer_group});
      missed_steps_.push_back(slot.missed_steps);
    }
  }
}

void FlatGroup::set_missed_steps(const std::vector<int64_t>& missed_steps) {
  for (size_t i = 0; i < slots_.size(); ++i) slots_[i].missed_steps = missed_steps.at(i);
  segments_.clear();
  missed_steps_.clear();
  build_segments();
}

int64_t FlatGroup::permanent_bytes() const {
  return whole() ? full_bytes() : static_cast<int64_t>(owned_model_.nbytes());
}

int64_t FlatGroup::full_bytes() const { return padded_numel_ * static_cast<int64_t>(c10::elementSize(dtype_)); }

bool FlatGroup::has_master_copy() const { return owned_master_.defined() && !owned_master_.is_same(owned_model_); }

void FlatGroup::adopt(size_t i, const at::Tensor& values) {
  auto& slot = slots_.at(i);
  HYDROFOIL_ASSERT(values.dim() == 1 && values.numel() == slot.numel, slot.name);
  const at::Tensor detached = slot.parameter.detach();
  const bool dense = detached.is_non_overlapping_and_dense();
  const std::vector<int64_t> sizes = detached.sizes().vec();
  const std::vector<int64_t> strides = dense ? detached.strides().vec() : row_major_strides(sizes);
  const Range part = intersect({slot.offset, slot.offset + slot.numel}, owned_);
  if (whole()) {
    flat_.narrow(0, slot.offset, slot.numel).copy_(values);
  } else if (part.numel() > 0) {
    owned_model_.narrow(0, part.begin - owned_.begin, part.numel())
        .copy_(values.narrow(0, part.begin - slot.offset, part.numel()));
  }
  slot.parameter.set_data(storages_[i].view(0, sizes, strides));
}

void FlatGroup::finish(const comm::Group& group, bool broadcast) {
  if (whole() && broadcast && group.size() > 1) group.broadcast(flat_, 0, {unit_name_, 0}).wait();
  if (trainable_) {
    if (dtype_ == at::kFloat) {
      owned_master_ = owned_model_;
    } else {
      owned_master_ = memory::make_flat_tensor(owned_.numel(), at::kFloat, device_);
      refresh_master();
    }
  }
  if (shared()) group.barrier({unit_name_, 0});  // every owner has written its slice
  note_versions();
}

void FlatGroup::move_to(State next) {
  static constexpr Transitions<3> kTransitions = {
      .names = {"released", "gathering", "gathered"},
      .allowed = {{{false, true, false}, {true, false, true}, {true, false, false}}}};
  kTransitions.move(state_, next, "unit", unit_name_, log_states_);
}

void FlatGroup::start_gather(const comm::Group& group, const comm::OpInfo& info) {
  HYDROFOIL_ASSERT(sharded_ && state_ == State::kReleased, unit_name_);
  if (!shared()) {
    slot_ = arena_->allocate(full_bytes());
    const auto options = at::TensorOptions().dtype(dtype_).device(device_);
    gather_ = group.all_gather(owned_model_, at::from_blob(slot_.get(), {padded_numel_}, options), info);
  }
  move_to(State::kGathering);
}

void FlatGroup::finish_gather() {
  if (state_ != State::kGathering) return;
  gather_.wait();
  attach_parameters(shared() ? slices_->data() : static_cast<char*>(slot_.get()), nullptr);
  move_to(State::kGathered);
}

void FlatGroup::release() {
  if (!sharded_ || state_ == State::kReleased) return;
  if (state_ == State::kGathering) {
    // A gather that still runs writes into the slot: wait, whatever comes of it, before the slot goes.
    try {
      gather_.wait();
    } catch (const std::exception&) {  // NOLINT(bugprone-empty-catch): its channel has failed for good, the next call
                                       // says so
    }
  }
  for (size_t i = 0; i < slots_.size(); ++i) storages_[i].detach(messages_[i]);
  slot_.clear();
  gather_ = comm::Work();
  move_to(State::kReleased);
}

at::Tensor FlatGroup::full() const {
  HYDROFOIL_ASSERT(state_ == State::kGathered, unit_name_);
  if (whole()) return flat_;
  return at::from_blob(shared() ? slices_->data() : slot_.get(), {padded_numel_},
                       at::TensorOptions().dtype(dtype_).device(device_));
}

comm::Work FlatGroup::start_publish(const comm::Group& group, const comm::OpInfo& info) {
  if (!whole() || owned_.numel() == padded_numel_) return {};
  return group.all_gather(owned_model_, flat_, info);
}

void FlatGroup::bump_versions() {
  for (auto& slot : slots_) slot.parameter.unsafeGetTensorImpl()->bump_version();
  note_versions();
}

void FlatGroup::note_versions() {
  for (size_t i = 0; i < slots_.size(); ++i) versions_[i] = static_cast<int64_t>(slots_[i].parameter._version());
}

bool FlatGroup::modified_outside() const {
  for (size_t i = 0; i < slots_.size(); ++i) {
    if (versions_[i] != static_cast<int64_t>(slots_[i].parameter._version())) return true;
  }
  return false;
}

std::string FlatGroup::take_lost_write() {
  if (!sharded_ || state_ != State::kGathered || !modified_outside()) return "";
  std::string name;
  for (size_t i = 0; i < slots_.size() && name.empty(); ++i) {
    if (versions_[i] != static_cast<int64_t>(slots_[i].parameter._version())) name = slots_[i].name;
  }
  note_versions();
  if (!name.empty()) discard_writes();
  return name;
}

void FlatGroup::discard_writes() {
  if (shared()) slices_->discard_writes();
}

void FlatGroup::refresh_master() {
  if (has_master_copy()) owned_master_.copy_(owned_model_);
}

void FlatGroup::follow_model() {
  if (!has_master_copy()) return;
  constexpr int64_t kChunk = int64_t{1} << 20;  // keeps the temporaries small
  for (int64_t begin = 0; begin < owned_.numel(); begin += kChunk) {
    const int64_t numel = std::min(kChunk, owned_.numel() - begin);
    const at::Tensor master = owned_master_.narrow(0, begin, numel);
    const at::Tensor model = owned_model_.narrow(0, begin, numel);
    master.copy_(at::where(master.to(dtype_).eq(model), master, model.to(at::kFloat)));
  }
}

void FlatGroup::write_back() {
  if (!whole()) owned_model_.copy_(full().narrow(0, owned_.begin, owned_.numel()));
  follow_model();
  note_versions();
}

void FlatGroup::forget_parameters() {
  for (auto& slot : slots_) slot.parameter = slot.parameter.detach();  // which shares the version counter
}

bool FlatGroup::in_its_storage(size_t i) const {
  return slots_[i].parameter.storage().unsafeGetStorageImpl() == storages_[i].flat().storage().unsafeGetStorageImpl();
}

std::string FlatGroup::lost_parameter() const {
  for (size_t i = 0; i < slots_.size(); ++i) {
    if (!in_its_storage(i)) return slots_[i].name;
  }
  return "";
}

void FlatGroup::dissolve() {
  HYDROFOIL_ASSERT(state_ == State::kGathered, unit_name_);
  if (!sharded_) return;  // each storage owns its part of the flat buffer already
  for (size_t i = 0; i < slots_.size(); ++i) {
    if (in_its_storage(i)) slots_[i].parameter.set_data(slots_[i].parameter.detach().clone());
  }
}

void FlatGroup::abandon() {
  if (!sharded_) return;
  release();
  for (size_t i = 0; i < slots_.size(); ++i) {
    storages_[i].guard(detail::concat("parameter '", slots_[i].name,
                                      "' is released, and the engine that kept its shards was destroyed; "
                                      "engine.destroy(gather=True) leaves full parameters"));
  }
}

}  // namespace hydrofoil::zero
