#include "hydrofoil/comm/mpi/mpi_process.h"

#include <mpi.h>

#include <cstdlib>
#include <utility>

#include "hydrofoil/base/error.h"
#include "hydrofoil/comm/detail/text.h"

namespace hydrofoil::comm::detail {

MpiProcess& MpiProcess::instance() {
  static MpiProcess* process = new MpiProcess;  // never destroyed: abandoned buffers stay
  return *process;
}

bool MpiProcess::is_alive() {
  int initialized = 0;
  int finalized = 0;
  MPI_Initialized(&initialized);
  MPI_Finalized(&finalized);
  return initialized != 0 && finalized == 0;
}

void MpiProcess::start() {
  const auto guard = lock();
  if (started_) return;
  int initialized = 0;
  int provided = MPI_THREAD_SINGLE;
  MPI_Initialized(&initialized);
  if (initialized != 0) {
    // The program may call MPI at any time, without the lock.
    MPI_Query_thread(&provided);
    if (provided < MPI_THREAD_MULTIPLE) {
      throw CommError(
          "[comm] the program has initialised MPI with less than MPI_THREAD_MULTIPLE: ask for it in "
          "MPI_Init_thread, or leave the initialisation to hydrofoil");
    }
  } else {
    if (MPI_Init_thread(nullptr, nullptr, MPI_THREAD_MULTIPLE, &provided) != MPI_SUCCESS) {
      throw CommError("[comm] MPI_Init_thread has failed");
    }
    ::on_exit(&MpiProcess::end, this);
    if (provided < MPI_THREAD_SERIALIZED) {
      throw CommError(concat("[comm] this MPI serves one thread only (level ", provided, "), expected at least ",
                             "MPI_THREAD_SERIALIZED"));
    }
  }
  started_ = true;
}

void MpiProcess::abandon(std::vector<at::Tensor> buffers) {
  failed_ = true;
  const auto guard = lock();
  for (auto& buffer : buffers) abandoned_.push_back(std::move(buffer));
}

void MpiProcess::end(int status, void* self) {
  auto* process = static_cast<MpiProcess*>(self);
  if (status != 0 || process->failed_) return;
  const auto guard = process->lock();
  if (is_alive()) MPI_Finalize();
}

}  // namespace hydrofoil::comm::detail
