// Linked with comm/mpi/no_mpi.cpp in place of MPI, as a build without MPI is.
#include <gtest/gtest.h>

#include <string>
#include <torch/csrc/distributed/c10d/HashStore.hpp>
#include <vector>

#include "hydrofoil/base/error.h"
#include "hydrofoil/comm/connect.h"
#include "hydrofoil/comm/mpi/mpi_groups.h"
#include "tests/support/run_ranks.h"

namespace hydrofoil::comm {
namespace {

using testing::error_of;

TEST(NoMpi, IsAnErrorThatNamesTheOption) {
  EXPECT_NE(mpi_problem().find("-DHYDROFOIL_WITH_MPI=ON"), std::string::npos);
  EXPECT_NE(error_of<InvalidArgument>([] { static_cast<void>(make_mpi_groups({})); }).find("HYDROFOIL_WITH_MPI"),
            std::string::npos);
}

TEST(NoMpi, IsToldOnEveryRankThatWantsIt) {
  const auto store = c10::make_intrusive<c10d::HashStore>();
  std::vector<std::string> errors(2);
  testing::run_ranks(2, [&](int rank) {
    errors[static_cast<size_t>(rank)] = error_of<InvalidArgument>(
        [&] { static_cast<void>(connect({.rank = rank, .size = 2, .store = store, .backend = "mpi"})); });
  });
  for (const auto& error : errors) {
    EXPECT_NE(error.find("backend mpi is not possible for group world: rank 0: this build has no MPI"),
              std::string::npos)
        << error;
  }
}

}  // namespace
}  // namespace hydrofoil::comm
