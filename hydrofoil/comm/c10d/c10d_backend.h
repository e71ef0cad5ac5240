#pragma once

#include <c10/util/intrusive_ptr.h>

#include <memory>
#include <string>

#include "hydrofoil/comm/backend.h"
#include "hydrofoil/comm/c10d/c10d_group.h"

namespace c10d {
class Backend;
class Work;
}  // namespace c10d

namespace hydrofoil::comm {

namespace detail {
struct Whereabouts;
}

// One channel over a c10d::ProcessGroup. See make_c10d_group.
class C10dBackend : public Backend {
 public:
  C10dBackend(c10::intrusive_ptr<c10d::ProcessGroup> process_group, C10dOptions options);
  ~C10dBackend() override;

  int rank() const override { return rank_; }
  int size() const override { return size_; }
  std::string name() const override;
  bool supports(c10::DeviceType device) const override;
  void run(const Operation& operation, const CallControl& control) override;
  void leave(const std::string& reason) override;
  std::shared_ptr<StatusBoard> board() const override;
  int channel() const override { return options_.channel; }

 private:
  // An operation on the backend that serves its device.
  struct Call {
    const Operation& operation;
    const CallControl& control;
    c10d::Backend& backend;
    bool nccl;
  };

  void dispatch(const Call& call);
  void all_reduce(const Call& call);
  void all_reduce_native(const Call& call);
  void all_reduce_locally(const Call& call, at::Tensor buffer);
  void reduce_scatter(const Call& call);
  void move(const Call& call);
  void gather(const Call& call, const at::Tensor& input, const at::Tensor& output);
  void exchange(const Call& call, const at::Tensor& input, const at::Tensor& output);
  void reduce_slices(const Call& call, const at::Tensor& slices, const at::Tensor& output) const;
  void check_agreement(const Call& call);
  void finish(const Call& call, const c10::intrusive_ptr<c10d::Work>& work);
  [[nodiscard]] detail::Whereabouts whereabouts(const Call& call) const;
  [[nodiscard]] bool reduces_natively(const Call& call) const;
  [[nodiscard]] std::chrono::milliseconds backend_timeout(const Call& call) const;
  c10d::Backend& backend_of(c10::DeviceType device) const;

  c10::intrusive_ptr<c10d::ProcessGroup> process_group_;
  C10dOptions options_;
  int rank_;
  int size_;
};

}  // namespace hydrofoil::comm
