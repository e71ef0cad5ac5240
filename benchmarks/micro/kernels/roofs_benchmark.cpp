#include "benchmarks/micro/kernels/memory_benchmark.h"
#include "benchmarks/micro/kernels/roofs.h"
#include "benchmarks/micro/kernels/workspace.h"

namespace hydrofoil::bench {
namespace {

// Calls part(begin, numel) on at::get_num_threads() threads, each with one contiguous part.
void on_threads(int64_t numel, const std::function<void(int64_t, int64_t)>& part) {
  at::parallel_for(0, numel, 1, [&](int64_t begin, int64_t end) { part(begin, end - begin); });
}

void register_compute(const std::string& name, double (*work)(int64_t)) {
  constexpr int64_t kRounds = 1 << 17;
  for (const int threads : {1, 2}) {
    benchmark::RegisterBenchmark((name + "/threads:" + std::to_string(threads)).c_str(),
                                 [=](benchmark::State& state) {
                                   at::set_num_threads(threads);
                                   for (auto _ : state) {
                                     on_threads(threads, [&](int64_t, int64_t) { (void)work(kRounds); });
                                   }
                                   state.counters["flop"] = threads * work(kRounds);
                                 })
        ->UseRealTime()
        ->Unit(benchmark::kMillisecond);
  }
}

}  // namespace

void register_roofs(Workspace& workspace) {
  const int64_t numel = workspace.numel, bytes = 4 * numel;
  float* const a = workspace.master.data_ptr<float>();
  float* const b = workspace.gradient.data_ptr<float>();
  const auto ones = [&workspace] {
    workspace.master.fill_(1.0);
    workspace.gradient.fill_(1.0);
  };
  register_memory_benchmark("roof/read", numel, {.read_bytes = bytes}, ones, [=] {
    on_threads(numel, [=](int64_t begin, int64_t count) { benchmark::DoNotOptimize(read_floats(a + begin, count)); });
  });
  register_memory_benchmark("roof/write", numel, {.written_bytes = bytes}, ones, [=] {
    on_threads(numel, [=](int64_t begin, int64_t count) { write_floats(a + begin, count); });
  });
  register_memory_benchmark("roof/update", numel, {.updated_bytes = 2 * bytes}, ones, [=] {
    on_threads(numel, [=](int64_t begin, int64_t count) { update_floats(a + begin, count); });
  });
  register_memory_benchmark("roof/memcpy", numel, {.read_bytes = bytes, .written_bytes = bytes}, ones, [=] {
    on_threads(numel, [=](int64_t begin, int64_t count) { copy_floats(b + begin, a + begin, count); });
  });
  register_compute("roof/fma_fp32", &multiply_add_fp32);
  if (has_bf16_dot()) register_compute("roof/fma_bf16", &multiply_add_bf16);
}

}  // namespace hydrofoil::bench
