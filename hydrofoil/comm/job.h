#pragma once

#include <c10/core/DeviceType.h>

#include <chrono>
#include <memory>
#include <string>
#include <vector>

#include "hydrofoil/comm/group.h"

namespace hydrofoil::comm {

// Where a rank stands among those that a launcher started, from its environment.
struct LaunchEnvironment {
  int rank = 0;
  int world_size = 1;
  int local_rank = 0;
  std::string master_addr = "127.0.0.1";
  int master_port = 29500;
  bool agent_store = false;  // torchrun: the store is in the launcher's process already
  std::string store_prefix;  // torchrun: each restart of the ranks has its own

  // Reads RANK, WORLD_SIZE, LOCAL_RANK, MASTER_ADDR and MASTER_PORT, as `hydrofoil run` and torchrun set them; without
  // RANK what mpirun sets (OpenMPI, MPICH, MVAPICH); without any a world of one. Throws InvalidArgument that names the
  // variable where one is missing or wrong.
  [[nodiscard]] static LaunchEnvironment read();
};

// How a Job's groups travel; see ConnectOptions.
struct JobGroupOptions {
  std::string backend = "auto";
  c10::DeviceType device = c10::DeviceType::CPU;  // of the buffers
  int num_channels = 2;
  GroupOptions group;
};

// The ranks of one run, met through a c10d::TCPStore at MASTER_ADDR:MASTER_PORT, which rank 0 serves. Keep it for the
// life of everything that was connected through it. No Python is involved.
class Job {
 public:
  // Rendezvous of all ranks; a world of one needs no network. Throws CommError where they do not meet in `timeout`.
  explicit Job(LaunchEnvironment environment = LaunchEnvironment::read(),
               std::chrono::milliseconds timeout = std::chrono::minutes(10));
  ~Job();
  Job(const Job&) = delete;
  Job& operator=(const Job&) = delete;

  [[nodiscard]] int rank() const { return environment_.rank; }
  [[nodiscard]] int world_size() const { return environment_.world_size; }
  [[nodiscard]] int local_rank() const { return environment_.local_rank; }
  [[nodiscard]] bool is_first() const { return rank() == 0; }

  // New channels over all ranks; every rank makes the same calls in the same order. Throws as connect().
  [[nodiscard]] std::vector<Group> connect(const JobGroupOptions& options = {});

 private:
  struct Rendezvous;

  LaunchEnvironment environment_;
  std::unique_ptr<Rendezvous> rendezvous_;
};

}  // namespace hydrofoil::comm
