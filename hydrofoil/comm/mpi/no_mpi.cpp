#include "hydrofoil/base/error.h"
#include "hydrofoil/comm/mpi/mpi_groups.h"

namespace hydrofoil::comm {

std::string mpi_problem() {
  return "this build has no MPI: install it (Debian: libopenmpi-dev) and configure with -DHYDROFOIL_WITH_MPI=ON";
}

std::vector<Group> make_mpi_groups(const MpiOptions& /*options*/) {
  HYDROFOIL_CHECK_ARG(false, "comm::make_mpi_groups", mpi_problem());
}

}  // namespace hydrofoil::comm
