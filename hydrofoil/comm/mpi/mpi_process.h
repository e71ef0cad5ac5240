#pragma once

#include <ATen/core/Tensor.h>

#include <atomic>
#include <mutex>
#include <vector>

namespace hydrofoil::comm::detail {

// MPI in this process. The one singleton of comm, because MPI is one: it starts once, ends once, and a process has one
// MPI_COMM_WORLD.
class MpiProcess {
 public:
  static MpiProcess& instance();

  // Initialises MPI at the first call, unless the program has; then it is finalised when the process exits with 0 and
  // nothing has failed. Otherwise it is not: mpirun then ends the other ranks, which may wait for this one. Throws
  // CommError where the MPI cannot be used from several threads.
  void start();

  // Held around each call of MPI, all of which return at once: MPI_THREAD_SERIALIZED is enough.
  [[nodiscard]] std::unique_lock<std::mutex> lock() { return std::unique_lock(mutex_); }

  // An operation has failed: MPI may write to its buffers for ever.
  void abandon(std::vector<at::Tensor> buffers);

  // MPI has not been finalised: by this object or by the program.
  [[nodiscard]] static bool is_alive();

 private:
  MpiProcess() = default;
  static void end(int status, void* self);

  std::mutex mutex_;
  std::vector<at::Tensor> abandoned_;
  std::atomic<bool> failed_{false};
  bool started_ = false;
};

}  // namespace hydrofoil::comm::detail
