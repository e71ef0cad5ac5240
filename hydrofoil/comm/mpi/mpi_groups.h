#pragma once

#include <memory>
#include <string>
#include <vector>

#include "hydrofoil/comm/group.h"

namespace hydrofoil::comm {

class StoreBoard;

struct MpiOptions {
  int rank = 0;  // by the environment: must be those of MPI_COMM_WORLD
  int size = 1;
  int num_channels = 2;
  GroupOptions group;
  std::shared_ptr<StoreBoard> board;      // null: errors cannot say what the other ranks do
  int64_t max_message_bytes = 1LL << 30;  // larger slices go in pieces; MPI counts are 32 bits
};

// Why make_mpi_groups cannot work in this process: it was built without MPI (the text names HYDROFOIL_WITH_MPI), or
// nothing like mpirun has started it. Empty where it can. Initialises nothing.
[[nodiscard]] std::string mpi_problem();

// One Group per channel over all ranks of MPI_COMM_WORLD, each with a communicator of its own. All ranks call it
// together.
//
// The first call initialises MPI, unless the program has, and then finalises it at exit (not after a failure, so that
// mpirun ends the other ranks). CPU tensors only. Sums are taken in rank order, in fp32 for 16-bit floats: the bits of
// comm/shm. Polls with sleeps of up to 0.1 ms. What is under way when an operation fails keeps its buffers for ever.
//
// Throws InvalidArgument for ranks and sizes that are not MPI's and where mpi_problem() is not empty, CommError where
// ranks do not come in time.
[[nodiscard]] std::vector<Group> make_mpi_groups(const MpiOptions& options);

}  // namespace hydrofoil::comm
