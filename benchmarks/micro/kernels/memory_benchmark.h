#pragma once

#include <ATen/Parallel.h>
#include <benchmark/benchmark.h>

#include <cstdint>
#include <functional>
#include <string>

namespace hydrofoil::bench {

// Bytes that one run has to move, by what happens to them.
struct Traffic {
  int64_t read_bytes = 0;
  int64_t updated_bytes = 0;  // read and written: counted twice
  int64_t written_bytes = 0;
};

// Registers "<name>/threads:1" and "/threads:2". `prepare` runs before each series, `body` is what is timed.
inline void register_memory_benchmark(const std::string& name, int64_t numel, const Traffic& traffic,
                                      const std::function<void()>& prepare, const std::function<void()>& body) {
  for (const int threads : {1, 2}) {
    const auto run = [=](benchmark::State& state) {
      at::set_num_threads(threads);
      prepare();
      for (auto _ : state) {
        body();
        benchmark::ClobberMemory();
      }
      state.counters["read_bytes"] = static_cast<double>(traffic.read_bytes);
      state.counters["updated_bytes"] = static_cast<double>(traffic.updated_bytes);
      state.counters["written_bytes"] = static_cast<double>(traffic.written_bytes);
      state.counters["num_elements"] = static_cast<double>(numel);
      const int64_t total = traffic.read_bytes + traffic.updated_bytes + traffic.written_bytes;
      state.SetBytesProcessed(state.iterations() * total);
    };
    benchmark::RegisterBenchmark((name + "/threads:" + std::to_string(threads)).c_str(), run)
        ->UseRealTime()
        ->Unit(benchmark::kMillisecond);
  }
}

}  // namespace hydrofoil::bench
