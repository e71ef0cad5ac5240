#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <memory>

namespace hydrofoil::comm {

class Backend;
class Group;

// The slices of all ranks of one host as one flat buffer, each slice in the memory of the rank that owns it: there is
// one copy of the whole on the host, and a gather of it is a synchronisation. See NOTE [Shared slices].
class SharedSlices {
 public:
  ~SharedSlices();
  SharedSlices(const SharedSlices&) = delete;
  SharedSlices& operator=(const SharedSlices&) = delete;

  // See Group::share_slices.
  [[nodiscard]] static std::shared_ptr<SharedSlices> map(const Group& group, Backend& backend, const at::Tensor& slice);

  // All slices in rank order. What is written here only this process sees, until discard_writes().
  [[nodiscard]] char* data() const { return data_; }
  [[nodiscard]] int64_t num_bytes() const { return num_bytes_; }

  // Shows the owners' values everywhere again. Costs a look at the page table where nothing was written.
  void discard_writes() const;

 private:
  SharedSlices(char* data, int64_t num_bytes, at::Tensor own);

  char* data_;
  int64_t num_bytes_;
  at::Tensor own_;  // its memory must not become another tensor's while peers may read it
};

}  // namespace hydrofoil::comm
