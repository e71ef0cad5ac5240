#include "benchmarks/micro/comm/mpi_peer.h"

#include <mpi.h>

#include <cstdlib>

#include "hydrofoil/base/error.h"

namespace hydrofoil::bench {

bool start_mpi_peer() {
  if (std::getenv("OMPI_COMM_WORLD_RANK") == nullptr) return false;
  return MPI_Init(nullptr, nullptr) == MPI_SUCCESS;
}

void stop_mpi_peer() { MPI_Finalize(); }

void mpi_collective(const std::string& collective, float* buffer, float* part, int64_t numel) {
  int size = 1;
  MPI_Comm_size(MPI_COMM_WORLD, &size);
  const int count = static_cast<int>(numel), part_count = count / size;
  int result = MPI_SUCCESS;
  if (collective == "all_reduce") {
    result = MPI_Allreduce(MPI_IN_PLACE, buffer, count, MPI_FLOAT, MPI_SUM, MPI_COMM_WORLD);
  } else if (collective == "all_gather") {
    result = MPI_Allgather(MPI_IN_PLACE, 0, MPI_DATATYPE_NULL, buffer, part_count, MPI_FLOAT, MPI_COMM_WORLD);
  } else if (collective == "reduce_scatter") {
    result = MPI_Reduce_scatter_block(buffer, part, part_count, MPI_FLOAT, MPI_SUM, MPI_COMM_WORLD);
  } else {
    result = MPI_Bcast(buffer, count, MPI_FLOAT, 0, MPI_COMM_WORLD);
  }
  HYDROFOIL_ASSERT(result == MPI_SUCCESS, collective, " failed with ", result);
}

}  // namespace hydrofoil::bench
