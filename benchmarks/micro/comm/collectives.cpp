// Collectives of comm::Group over shared memory, on tensors that the peers read in place (arena) and on the processes'
// own (copied), against MPI's own in the same processes, in turns:
//   mpirun -np 2 bench_collectives --json FILE                          with MPI
//   hydrofoil run --no-python --nproc 2 bench_collectives --json FILE   without
// All ranks must make the same calls, so the counts are fixed and this is no Google Benchmark. A time is the slower
// rank's; medians over the rounds. Sizes are in bytes of the whole tensor. "hand over" is what the caches allow: each
// rank writes a tensor that its peer has read, and reads the peer's; an all_reduce of two ranks moves as much between
// them.
#include <ATen/Parallel.h>
#include <ATen/ops/empty.h>

#include <algorithm>
#include <cstring>
#include <fstream>
#include <functional>
#include <iostream>
#include <map>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "benchmarks/micro/comm/mpi_peer.h"
#include "hydrofoil/base/clock.h"
#include "hydrofoil/base/error.h"
#include "hydrofoil/comm/detail/reduce.h"
#include "hydrofoil/comm/job.h"
#include "hydrofoil/comm/shared_slices.h"
#include "hydrofoil/memory/allocation.h"
#include "hydrofoil/memory/arena.h"

namespace hydrofoil::bench {
namespace {

constexpr int kRounds = 9, kWarmups = 2;
constexpr const char* kCollectives[] = {"all_reduce", "all_gather", "reduce_scatter", "broadcast"};

// Bytes that a rank must read and write where it reads its peers' tensors in place: their parts in, its results out.
double must_move(const std::string& collective, double size, double world) {
  const double part = size / world;
  const double gather = 2 * part * (world - 1);  // read the others' parts, write them
  const double reduce = part * world + part;     // read every rank's part, write the sum
  if (collective == "all_gather") return gather;
  if (collective == "reduce_scatter") return reduce;
  if (collective == "all_reduce") return reduce + gather;
  return 2 * size;  // broadcast: a rank that is not the root
}

void run_collective(const comm::Group& group, const std::string& collective, const at::Tensor& buffer) {
  const int64_t part_numel = buffer.numel() / group.size();
  const at::Tensor part = buffer.narrow(0, group.rank() * part_numel, part_numel);
  if (collective == "all_reduce") {
    group.all_reduce(buffer, comm::ReduceOp::kSum, {.caller_waits = true}).wait();
  } else if (collective == "all_gather") {
    group.all_gather(part, buffer, {.caller_waits = true}).wait();
  } else if (collective == "reduce_scatter") {
    group.reduce_scatter(buffer, part, comm::ReduceOp::kSum, {.caller_waits = true}).wait();
  } else {
    group.broadcast(buffer, 0, {.caller_waits = true}).wait();
  }
}

class Ranks {
 public:
  explicit Ranks(comm::Job& job) : groups_(job.connect({.backend = "shm"})), has_mpi_(start_mpi_peer()) {}
  ~Ranks() {
    if (has_mpi_) stop_mpi_peer();
  }
  Ranks(const Ranks&) = delete;
  Ranks& operator=(const Ranks&) = delete;

  nlohmann::json measure(const std::string& collective, at::ScalarType dtype, int64_t size_bytes) {
    const comm::Group& group = groups_[0];
    const at::Tensor offered =
        memory::make_flat_tensor(size_bytes, at::kByte, *group.shared_arena(comm::SharedUse::kSlices), true);
    const auto all_offered = group.share_slices(offered);
    const char* peers = all_offered->data() + (group.rank() + 1) % group.size() * size_bytes;
    const int64_t numel = size_bytes / static_cast<int64_t>(at::elementSize(dtype));
    const at::Tensor arena = memory::make_flat_tensor(numel, dtype, *group.shared_arena(comm::SharedUse::kTransient));
    const at::Tensor copied = memory::make_flat_tensor(numel, dtype, at::kCPU);
    const at::Tensor other = memory::make_flat_tensor(numel, dtype, at::kCPU);
    std::map<std::string, std::function<void()>> competitors = {
        {"arena", [&] { run_collective(group, collective, arena); }},
        {"copied", [&] { run_collective(group, collective, copied); }},
        {"hand_over",
         [&] {
           std::memcpy(offered.data_ptr(), other.data_ptr(), size_bytes);
           group.barrier();
           std::memcpy(copied.data_ptr(), peers, size_bytes);
           group.barrier();
         }},
        {"memcpy", [&] { std::memcpy(copied.data_ptr(), other.data_ptr(), size_bytes); }},
    };
    const void* const parts[] = {other.data_ptr(), copied.data_ptr()};
    if (group.size() == 2 && (collective == "all_reduce" || collective == "reduce_scatter")) {
      competitors["sum"] = [&] {
        comm::detail::reduce_buffers(
            {.type = dtype == at::kFloat ? comm::detail::ElementType::kFloat32 : comm::detail::ElementType::kBFloat16,
             .sources = parts,
             .num_sources = 2,
             .out = copied.data_ptr(),
             .numel = numel / 2});
      };
    }
    if (has_mpi_ && dtype == at::kFloat) {  // MPI knows no bf16
      auto* buffer = other.data_ptr<float>();
      competitors["mpi"] = [=, part = copied.data_ptr<float>()] { mpi_collective(collective, buffer, part, numel); };
    }
    const int64_t repeats = std::clamp<int64_t>((int64_t{20} << 20) / size_bytes, 1, 100);
    std::map<std::string, std::vector<double>> times;
    for (int round = 0; round < kWarmups + kRounds; ++round) {
      for (const auto& [name, body] : competitors) {
        for (const at::Tensor& tensor : {arena, copied, other}) tensor.fill_(1.0);  // sums would grow without bound
        const double seconds = time_of(body, repeats);
        if (round >= kWarmups) times[name].push_back(seconds);
      }
    }
    nlohmann::json row = {{"collective", collective},
                          {"dtype", dtype == at::kFloat ? "fp32" : "bf16"},
                          {"bytes", size_bytes},
                          {"world", group.size()}};
    for (auto& [name, values] : times) row[name + "_s"] = median(values);
    const double roof = 2.0 * static_cast<double>(size_bytes) / row["memcpy_s"].get<double>();
    for (const char* name : {"arena", "copied"}) {
      const double moved = must_move(collective, static_cast<double>(size_bytes), group.size());
      row[std::string(name) + "_roof_share"] = moved / row[std::string(name) + "_s"].get<double>() / roof;
    }
    return row;
  }

 private:
  // Seconds of one call on the slower rank.
  double time_of(const std::function<void()>& body, int64_t repeats) {
    const comm::Group& control = groups_[1];
    control.barrier();
    const double start = monotonic_seconds();
    for (int64_t i = 0; i < repeats; ++i) body();
    const at::Tensor nanoseconds = at::empty({1}, at::kLong);
    *nanoseconds.data_ptr<int64_t>() =
        static_cast<int64_t>(1e9 * (monotonic_seconds() - start) / static_cast<double>(repeats));
    control.all_reduce(nanoseconds, comm::ReduceOp::kMax).wait();
    return 1e-9 * static_cast<double>(*nanoseconds.data_ptr<int64_t>());
  }

  static double median(std::vector<double>& values) {
    std::nth_element(values.begin(), values.begin() + kRounds / 2, values.end());
    return values[kRounds / 2];
  }

  std::vector<comm::Group> groups_;
  bool has_mpi_;
};

void print(const nlohmann::json& row) {
  std::cout << row["collective"].get<std::string>() << ' ' << row["dtype"].get<std::string>() << ' '
            << row["bytes"].get<int64_t>() / 1024 << " KiB:";
  for (const char* name : {"arena", "copied", "mpi", "hand_over", "sum", "memcpy"}) {
    const std::string key = std::string(name) + "_s";
    if (row.contains(key)) std::cout << "  " << name << ' ' << 1e6 * row[key].get<double>() << " us";
  }
  std::cout << "  arena at " << 100 * row["arena_roof_share"].get<double>() << " % of memcpy" << std::endl;
}

int run(int argc, char** argv) {
  const std::vector<std::string> arguments(argv + 1, argv + argc);
  if (arguments.size() != 2 || arguments[0] != "--json") {
    std::cerr << "usage: " << argv[0] << " --json FILE\n";
    return 2;
  }
  at::set_num_threads(1);
  comm::Job job;
  nlohmann::json rows = nlohmann::json::array();
  Ranks ranks(job);
  for (const at::ScalarType dtype : {at::kFloat, at::kBFloat16}) {
    for (const char* collective : kCollectives) {
      for (int64_t size_bytes = 64 << 10; size_bytes <= 64 << 20; size_bytes *= 4) {
        rows.push_back(ranks.measure(collective, dtype, size_bytes));
        if (job.is_first()) print(rows.back());
      }
    }
  }
  if (!job.is_first()) return 0;
  std::ofstream file(arguments[1]);
  file << rows.dump(1) << '\n';
  file.close();
  HYDROFOIL_CHECK_ARG(!file.fail(), "bench_collectives", "--json: cannot write ", arguments[1]);
  return 0;
}

}  // namespace
}  // namespace hydrofoil::bench

int main(int argc, char** argv) { return hydrofoil::bench::run(argc, argv); }
