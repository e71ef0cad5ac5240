#include "hydrofoil/plan/collective_time.h"

#include <bit>

namespace hydrofoil::plan {
namespace {

double num_messages(CollectiveAlgorithm algorithm, int world_size) {
  if (algorithm == CollectiveAlgorithm::kRing) return world_size - 1;
  return std::bit_width(static_cast<unsigned>(world_size - 1));  // the logarithm, rounded up
}

double passes(Collective collective) { return collective == Collective::kAllReduce ? 2.0 : 1.0; }

}  // namespace

const char* collective_name(Collective collective) {
  switch (collective) {
    case Collective::kAllGather:
      return "all_gather";
    case Collective::kReduceScatter:
      return "reduce_scatter";
    case Collective::kAllReduce:
      return "all_reduce";
  }
  return "?";
}

double moved_bytes(Collective collective, int64_t num_bytes, int world_size) {
  return passes(collective) * static_cast<double>(num_bytes) * (world_size - 1) / world_size;
}

double collective_seconds(Collective collective, int64_t num_bytes, const Settings& settings, const Roofs& roofs) {
  if (settings.world_size == 1) return 0.0;
  const bool crosses_hosts = settings.num_nodes > 1;
  const double latency = crosses_hosts ? roofs.network_latency_s : roofs.host_latency_s;
  const double rate = crosses_hosts ? roofs.network_bytes_per_s : roofs.host_bytes_per_s;
  return passes(collective) * num_messages(roofs.algorithm, settings.world_size) * latency +
         moved_bytes(collective, num_bytes, settings.world_size) / rate;
}

}  // namespace hydrofoil::plan
