#pragma once

#include <cstdint>
#include <string>

namespace hydrofoil::bench {

// MPI's own collectives, without Hydrofoil. Defined by mpi_peer.cpp, or by no_mpi_peer.cpp where the build has no MPI.

// Whether mpirun has started this process and the build has MPI; starts MPI then.
[[nodiscard]] bool start_mpi_peer();
void stop_mpi_peer();

// One collective over `numel` floats in `buffer`, in place, as comm::Group defines it; each rank's slice of
// reduce_scatter is written to `part`.
void mpi_collective(const std::string& collective, float* buffer, float* part, int64_t numel);

}  // namespace hydrofoil::bench
