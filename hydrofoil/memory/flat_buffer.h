#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <string>

namespace hydrofoil::memory {

// One storage for life under a 1-D tensor, whose memory comes and goes.
//
// Views of it (parameters, what autograd saved) stay valid tensors all the time; while no memory is attached, any
// access to their data raises RuntimeError with the message given to detach(). See NOTE [One storage for life].
class FlatBuffer {
 public:
  FlatBuffer() = default;
  // Starts detached with `message`.
  FlatBuffer(int64_t numel, at::ScalarType dtype, const c10::Device& device, const std::string& message);

  [[nodiscard]] bool defined() const { return flat_.defined(); }
  [[nodiscard]] bool attached() const { return attached_; }
  [[nodiscard]] int64_t numel() const { return flat_.numel(); }
  [[nodiscard]] int64_t num_bytes() const;

  // Points the storage at `memory` (at least num_bytes()); the storage owns it until detach().
  void attach(c10::DataPtr memory);
  // Drops the memory and guards every access with `message`. Idempotent.
  void detach(const std::string& message);
  // Detaches where that is not done yet; every access from now on says `message`.
  void guard(const std::string& message);

  // The whole buffer, 1-D; its data may be touched only while attached.
  [[nodiscard]] const at::Tensor& flat() const { return flat_; }
  // A view at `offset` elements with the given shape and strides.
  [[nodiscard]] at::Tensor view(int64_t offset, at::IntArrayRef sizes, at::IntArrayRef strides) const;
  // A 1-D tensor over elements [offset, offset + numel) in a storage of its own: writing it bumps no version counter
  // and it ignores the guard. Only while attached; it must not outlive the attachment.
  [[nodiscard]] at::Tensor raw_slice(int64_t offset, int64_t numel) const;

 private:
  at::Tensor flat_;
  bool attached_ = false;
};

}  // namespace hydrofoil::memory
