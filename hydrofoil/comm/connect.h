#pragma once

#include <c10/core/DeviceType.h>
#include <c10/util/intrusive_ptr.h>

#include <functional>
#include <string>
#include <vector>

#include "hydrofoil/comm/group.h"

namespace c10d {
class Store;
}

namespace hydrofoil::comm {

struct ConnectOptions {
  int rank = 0;
  int size = 1;
  c10::intrusive_ptr<c10d::Store> store;         // shared by the ranks; not needed for one rank
  std::vector<std::string> process_group_names;  // one a channel, registered with torch.distributed; for c10d
  // Makes them when c10d is really used (a Gloo group costs threads); called where process_group_names is empty.
  std::function<std::vector<std::string>()> make_process_groups;
  std::string backend = "auto";                   // auto, shm, c10d, mpi
  c10::DeviceType device = c10::DeviceType::CPU;  // of the buffers; shm serves the CPU only
  int num_channels = 2;
  GroupOptions group;
};

// Connects the ranks and returns one Group per channel. Every rank calls it the same number of times with the same
// options.
//
// auto takes shm where all ranks can map each other's memory, which they try and vote on through the store, else c10d
// where process groups are given, else mpi where mpirun has started the ranks, with one line of log that says why. One
// rank gets groups of one. HYDROFOIL_DEBUG=comm sets GroupOptions::debug. Throws InvalidArgument for options that
// cannot be or that differ between the ranks, CommError where ranks do not come in time or backend "shm" is not
// possible (with the reason of every rank).
[[nodiscard]] std::vector<Group> connect(const ConnectOptions& options);

}  // namespace hydrofoil::comm
