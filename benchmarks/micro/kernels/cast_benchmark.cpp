#include "hydrofoil/kernels/cast.h"

#include "benchmarks/micro/kernels/memory_benchmark.h"
#include "benchmarks/micro/kernels/workspace.h"

namespace hydrofoil::bench {
namespace {

using kernels::AccumulateMode;
using kernels::ElementType;

struct Array {
  at::Tensor tensor;
  ElementType type;
  const char* name;
};

void prepare(const Array& dst, const Array& src) {
  dst.tensor.zero_();
  src.tensor.fill_(1e-3);
}

}  // namespace

void register_cast(Workspace& w) {
  const Array fp32{w.master, ElementType::kFloat32, "fp32"}, fp32_too{w.gradient, ElementType::kFloat32, "fp32"};
  const Array bf16{w.low, ElementType::kBFloat16, "bf16"}, bf16_too{w.low_too, ElementType::kBFloat16, "bf16"};
  const std::pair<Array, Array> pairs[] = {{bf16, fp32}, {fp32, bf16}, {fp32_too, fp32}, {bf16_too, bf16}};
  for (const auto& [dst, src] : pairs) {
    const int64_t read_bytes = w.numel * kernels::element_bytes(src.type);
    const int64_t written_bytes = w.numel * kernels::element_bytes(dst.type);
    const std::string types = std::string(src.name) + "_to_" + dst.name;
    const kernels::FlatOutput output{dst.tensor.data_ptr(), dst.type};
    const kernels::FlatInput input{src.tensor.data_ptr(), src.type};
    const auto prepare_pair = [dst = dst, src = src] { prepare(dst, src); };
    register_memory_benchmark("cast/" + types, w.numel, {.read_bytes = read_bytes, .written_bytes = written_bytes},
                              prepare_pair, [=, numel = w.numel] { kernels::cast(output, input, numel); });
    // The first micro step copies and looks for what is not finite, the later ones add.
    register_memory_benchmark(
        "accumulate/assign/" + types, w.numel, {.read_bytes = read_bytes, .written_bytes = written_bytes}, prepare_pair,
        [=, numel = w.numel] {
          benchmark::DoNotOptimize(kernels::accumulate(output, input, numel, 1.0F, AccumulateMode::kAssign));
        });
    register_memory_benchmark(
        "accumulate/add/" + types, w.numel, {.read_bytes = read_bytes, .updated_bytes = 2 * written_bytes},
        prepare_pair, [=, numel = w.numel] {
          benchmark::DoNotOptimize(kernels::accumulate(output, input, numel, 1.0F, AccumulateMode::kAdd));
        });
  }
}

}  // namespace hydrofoil::bench
