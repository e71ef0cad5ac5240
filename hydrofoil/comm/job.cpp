#include "hydrofoil/comm/job.h"

#include <optional>
#include <torch/csrc/distributed/c10d/PrefixStore.hpp>
#include <torch/csrc/distributed/c10d/TCPStore.hpp>
#include <utility>

#include "hydrofoil/base/environment.h"
#include "hydrofoil/base/error.h"
#include "hydrofoil/comm/connect.h"

namespace hydrofoil::comm {
namespace {

using hydrofoil::detail::concat;

constexpr const char* kFunction = "Job";

struct MpiVariables {
  const char* rank;
  const char* size;
  const char* local_rank;
};
constexpr MpiVariables kMpiVariables[] = {
    {"OMPI_COMM_WORLD_RANK", "OMPI_COMM_WORLD_SIZE", "OMPI_COMM_WORLD_LOCAL_RANK"},
    {"PMI_RANK", "PMI_SIZE", "MPI_LOCALRANKID"},
    {"MV2_COMM_WORLD_RANK", "MV2_COMM_WORLD_SIZE", "MV2_COMM_WORLD_LOCAL_RANK"},
};

int required(const char* variable, const char* because) {
  const auto value = environment_int(variable);
  HYDROFOIL_CHECK_ARG(value.has_value(), kFunction, "environment variable ", variable, " is not set, but ", because,
                      " is; start the program with `hydrofoil run --no-python`, torchrun or mpirun");
  return static_cast<int>(*value);
}

}  // namespace

LaunchEnvironment LaunchEnvironment::read() {
  LaunchEnvironment result;
  MpiVariables names{"RANK", "WORLD_SIZE", "LOCAL_RANK"};
  if (!environment("RANK")) {
    for (const auto& mpi : kMpiVariables) {
      if (environment(mpi.rank)) {
        names = mpi;
        break;
      }
    }
  }
  if (environment(names.rank)) {
    result.rank = required(names.rank, names.rank);
    result.world_size = required(names.size, names.rank);
  } else {
    HYDROFOIL_CHECK_ARG(environment_int("WORLD_SIZE").value_or(1) == 1, kFunction,
                        "environment variable RANK is not set, but WORLD_SIZE is ", *environment_int("WORLD_SIZE"));
  }
  HYDROFOIL_CHECK_ARG(result.world_size >= 1, kFunction, names.size, ": got ", result.world_size,
                      ", expected at least 1");
  HYDROFOIL_CHECK_ARG(result.rank >= 0 && result.rank < result.world_size, kFunction, names.rank, ": got ", result.rank,
                      ", expected 0 to ", result.world_size - 1);
  result.local_rank = static_cast<int>(environment_int(names.local_rank).value_or(result.rank));
  result.master_addr = environment("MASTER_ADDR").value_or(result.master_addr);
  const int64_t port = environment_int("MASTER_PORT").value_or(result.master_port);
  HYDROFOIL_CHECK_ARG(port >= 0 && port <= 65535, kFunction, "MASTER_PORT: got ", port, ", expected 0 to 65535");
  result.master_port = static_cast<int>(port);
  if (environment("TORCHELASTIC_USE_AGENT_STORE").value_or("") == "True") {
    result.agent_store = true;
    result.store_prefix = concat("attempt_", environment("TORCHELASTIC_RESTART_COUNT").value_or("0"), "/");
  }
  return result;
}

struct Job::Rendezvous {
  c10::intrusive_ptr<c10d::Store> store;
};

Job::Job(LaunchEnvironment environment, std::chrono::milliseconds timeout)
    : environment_(std::move(environment)), rendezvous_(std::make_unique<Rendezvous>()) {
  if (world_size() == 1) return;
  c10d::TCPStoreOptions options;
  options.port = static_cast<uint16_t>(environment_.master_port);
  options.isServer = is_first() && !environment_.agent_store;
  if (!environment_.agent_store) options.numWorkers = static_cast<size_t>(world_size());
  options.timeout = timeout;
  options.multiTenant = true;
  try {
    rendezvous_->store =
        c10::make_intrusive<c10d::PrefixStore>("hydrofoil/" + environment_.store_prefix,
                                               c10::make_intrusive<c10d::TCPStore>(environment_.master_addr, options));
  } catch (const std::exception& error) {
    throw CommError(concat("[Job] rank ", rank(), " of ", world_size(), ": the ranks did not meet at MASTER_ADDR ",
                           environment_.master_addr, ", MASTER_PORT ", environment_.master_port, ": ", error.what()));
  }
}

Job::~Job() = default;

std::vector<Group> Job::connect(const JobGroupOptions& options) {
  ConnectOptions connect_options;
  connect_options.rank = rank();
  connect_options.size = world_size();
  connect_options.store = rendezvous_->store;
  connect_options.backend = options.backend;
  connect_options.device = options.device;
  connect_options.num_channels = options.num_channels;
  connect_options.group = options.group;
  return comm::connect(connect_options);
}

}  // namespace hydrofoil::comm
