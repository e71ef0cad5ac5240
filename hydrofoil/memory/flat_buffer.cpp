#include "hydrofoil/memory/flat_buffer.h"

#include <ATen/ops/as_strided.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/from_blob.h>
#include <c10/core/StorageImpl.h>

#include "hydrofoil/base/error.h"
#include "hydrofoil/memory/allocation.h"

namespace hydrofoil::memory {
namespace {

// Torch before 2.13 has no way back from release_data_and_set_meta_custom_data_ptr_error_msg_: its flag is private. An
// explicit instantiation may name a private member.
template <bool c10::StorageImpl::*Flag>
struct AccessFlag {
  friend void clear_access_flag(c10::StorageImpl& storage) { storage.*Flag = false; }
};
template struct AccessFlag<&c10::StorageImpl::throw_on_immutable_data_ptr_>;
void clear_access_flag(c10::StorageImpl& storage);

template <typename Storage>
void allow_access(Storage& storage) {
  if constexpr (requires { storage.clear_data_ptr_access_error_msg_(); }) {
    storage.clear_data_ptr_access_error_msg_();
  } else {
    clear_access_flag(storage);
  }
}

}  // namespace

// NOTE [One storage for life]
// A parameter, its views and the tensors that autograd saved share one StorageImpl. Gather and release only move that
// storage's data pointer, so all of them are valid again after the next gather, wherever the memory then lies. The byte
// size stays real while released: with size 0 taking a view would fail with a message about bounds. The custom error
// message turns an access to the null pointer into a named error instead of a segmentation fault.

FlatBuffer::FlatBuffer(int64_t numel, at::ScalarType dtype, const c10::Device& device, const std::string& message) {
  const int64_t size = checked_multiply(numel, static_cast<int64_t>(c10::elementSize(dtype)), "FlatBuffer");
  auto storage = c10::make_intrusive<c10::StorageImpl>(c10::StorageImpl::use_byte_size_t(), c10::SymInt(size),
                                                       c10::DataPtr(nullptr, device), nullptr, false);
  flat_ = at::empty({0}, at::TensorOptions().dtype(dtype).device(device));
  flat_.set_(c10::Storage(std::move(storage)), 0, {numel}, {1});
  attached_ = true;
  detach(message);
}

int64_t FlatBuffer::num_bytes() const { return flat_.numel() * static_cast<int64_t>(flat_.element_size()); }

void FlatBuffer::attach(c10::DataPtr memory) {
  HYDROFOIL_ASSERT(!attached_, "buffer is attached already");
  auto* storage = flat_.storage().unsafeGetStorageImpl();
  allow_access(*storage);
  storage->set_data_ptr_noswap(std::move(memory));
  attached_ = true;
}

void FlatBuffer::detach(const std::string& message) {
  if (!attached_) return;
  auto* storage = flat_.storage().unsafeGetStorageImpl();
  storage->set_data_ptr_noswap(c10::DataPtr(nullptr, storage->device()));
  storage->release_data_and_set_meta_custom_data_ptr_error_msg_(message);
  attached_ = false;
}

void FlatBuffer::guard(const std::string& message) {
  detach(message);
  auto* storage = flat_.storage().unsafeGetStorageImpl();
  storage->release_data_and_set_meta_custom_data_ptr_error_msg_(message);
}

at::Tensor FlatBuffer::view(int64_t offset, at::IntArrayRef sizes, at::IntArrayRef strides) const {
  return flat_.as_strided(sizes, strides, offset);
}

at::Tensor FlatBuffer::raw_slice(int64_t offset, int64_t numel) const {
  HYDROFOIL_ASSERT(attached_ && offset >= 0 && numel >= 0 && offset + numel <= flat_.numel(),
                   "slice of a detached buffer");
  char* base = static_cast<char*>(flat_.storage().unsafeGetStorageImpl()->mutable_data());
  return at::from_blob(base + offset * static_cast<int64_t>(flat_.element_size()), {numel}, flat_.options());
}

}  // namespace hydrofoil::memory
