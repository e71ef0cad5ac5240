#pragma once

#include <gtest/gtest.h>

#include <atomic>
#include <string>
#include <torch/csrc/distributed/c10d/HashStore.hpp>
#include <torch/csrc/distributed/c10d/PrefixStore.hpp>
#include <vector>

#include "hydrofoil/comm/connect.h"
#include "hydrofoil/comm/local/local_group.h"
#include "tests/support/run_ranks.h"
#include "tests/support/store_backend.h"

namespace hydrofoil::testing {

inline void expect_contains(const std::string& text, const std::vector<std::string>& parts) {
  for (const auto& part : parts) EXPECT_NE(text.find(part), std::string::npos) << part << "\nin: " << text;
}

// Groups [rank][channel] of a backend whose ranks can be threads: local, shm, c10d.
inline std::vector<std::vector<comm::Group>> connect_threads(const std::string& backend, int size, int num_channels,
                                                             comm::GroupOptions options = {}) {
  if (backend == "local") return comm::make_local_channels(size, num_channels, std::move(options));
  static std::atomic<int> count{0};
  const std::string id = "test" + std::to_string(count++);
  const auto store = c10::make_intrusive<c10d::HashStore>();
  std::vector<std::vector<comm::Group>> groups(static_cast<size_t>(size));
  run_ranks(size, [&](int rank) {
    comm::ConnectOptions connect{
        .rank = rank, .size = size, .store = store, .backend = backend, .num_channels = num_channels, .group = options};
    std::vector<c10::intrusive_ptr<c10d::ProcessGroup>> kept;  // the registry does not hold them
    for (int channel = 0; channel < num_channels && backend == "c10d"; ++channel) {
      const std::string name = id + "-" + std::to_string(channel) + "-" + std::to_string(rank);
      kept.push_back(register_store_group(
          name, c10::make_intrusive<c10d::PrefixStore>(id + std::to_string(channel), store), rank, size));
      connect.process_group_names.push_back(name);
    }
    groups[static_cast<size_t>(rank)] = comm::connect(connect);
    for (const auto& name : connect.process_group_names) c10d::unregister_process_group(name);
  });
  return groups;
}

}  // namespace hydrofoil::testing
