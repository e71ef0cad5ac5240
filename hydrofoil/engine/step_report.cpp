#include "hydrofoil/engine/step_report.h"

#include <c10/core/impl/VirtualGuardImpl.h>

#include <algorithm>
#include <cstdio>

#include "hydrofoil/base/clock.h"
#include "hydrofoil/base/error.h"
#include "hydrofoil/memory/process_memory.h"

namespace hydrofoil::engine {
namespace {

constexpr double kMib = 1024.0 * 1024.0;

std::string format(const char* pattern, double value) {
  char text[64];
  std::snprintf(text, sizeof(text), pattern, value);
  return text;
}

std::string join(const std::vector<std::string>& parts) {
  std::string text;
  for (const auto& part : parts) text += (text.empty() ? "" : ", ") + part;
  return text;
}

std::string momentum_text(const std::vector<double>& values) {
  std::vector<std::string> parts;
  for (const double value : values) parts.push_back(format("%.6g", value));
  if (parts.empty()) return "none";
  return parts.size() == 1 ? parts[0] : "(" + join(parts) + ")";
}

PhaseTimes per_step(const std::array<int64_t, kNumPhases + 2>& from, const std::array<int64_t, kNumPhases + 2>& to,
                    int64_t num_steps) {
  const auto ms = [&](size_t i) {
    return 1e-6 * static_cast<double>(to[i] - from[i]) / static_cast<double>(num_steps);
  };
  return {
      .forward_ms = ms(0), .backward_ms = ms(1), .step_ms = ms(2), .reduce_wait_ms = ms(3), .gather_wait_ms = ms(4)};
}

}  // namespace

void Throughput::begin_micro_step(int64_t now_ns) {
  if (begin_ns_ == 0) begin_ns_ = now_ns;
}

void Throughput::end_micro_step(bool boundary, int64_t samples, int64_t now_ns) {
  const int64_t begin = begin_ns_ != 0 ? begin_ns_ : end_ns_;
  begin_ns_ = 0;
  end_ns_ = now_ns;
  if (num_steps_seen_ >= kWarmUpSteps) total_ns_ += now_ns - begin;
  if (!boundary || ++num_steps_seen_ <= kWarmUpSteps) return;
  ++num_steps_;
  total_samples_ += samples;
}

std::optional<double> Throughput::average() const {
  if (num_steps_ == 0 || total_ns_ == 0) return std::nullopt;
  return static_cast<double>(total_samples_) / seconds();
}

std::optional<double> Throughput::take_recent() {
  const int64_t samples = total_samples_ - reported_samples_;
  const int64_t ns = total_ns_ - reported_ns_;
  if (samples == 0 || ns == 0) return std::nullopt;
  reported_samples_ = total_samples_;
  reported_ns_ = total_ns_;
  return 1e9 * static_cast<double>(samples) / static_cast<double>(ns);
}

StepReport::StepReport(const EngineOptions& options, zero::Runtime& runtime)
    : steps_per_print_(options.steps_per_print),
      enabled_(options.wall_clock_breakdown),
      measures_throughput_(options.timers.throughput.enabled),
      device_(runtime.parameters().front().parameter.device()),
      waits_(runtime.waits()) {
  waits_.counted = enabled_;
}

void StepReport::wait_for_device() const {
  if (device_.is_cpu()) return;
  c10::impl::VirtualGuardImpl(device_.type()).synchronizeDevice(device_.index());
}

const char* phase_name(Phase phase) {
  static constexpr const char* kNames[] = {"forward", "backward", "step"};
  return kNames[static_cast<size_t>(phase)];
}

void StepReport::begin(Phase phase) {
  if (depths_[static_cast<size_t>(phase)]++ > 0 || !enabled_) return;
  wait_for_device();
  if (!watch(phase).running()) watch(phase).start();
}

bool StepReport::end(Phase phase) {
  int& depth = depths_[static_cast<size_t>(phase)];
  HYDROFOIL_CHECK_ARG(depth > 0, "end_phase", "phase ", phase_name(phase), " has not begun");
  if (--depth > 0) return false;
  if (!enabled_) return true;
  wait_for_device();
  if (watch(phase).running()) watch(phase).stop();
  return true;
}

void StepReport::begin_micro_step() {
  if (measures_throughput_) throughput_.begin_micro_step(monotonic_ns());
}

void StepReport::end_micro_step(bool boundary, int64_t samples) {
  if (measures_throughput_) throughput_.end_micro_step(boundary, samples, monotonic_ns());
}

StepReport::Totals StepReport::totals() const {
  Totals result{};
  for (size_t phase = 0; phase < kNumPhases; ++phase) result[phase] = watches_[phase].total_ns();
  result[kNumPhases] = waits_.reduce.total_ns();
  result[kNumPhases + 1] = waits_.gather.total_ns();
  return result;
}

PhaseTimes StepReport::take_mean() {
  const Totals now = totals();
  const PhaseTimes mean = per_step(at_report_, now, std::max<int64_t>(num_steps_, 1));
  at_report_ = now;
  num_steps_ = 0;
  return mean;
}

void StepReport::end_step() {
  if (!enabled_) return;
  const Totals now = totals();
  last_step_ = per_step(at_step_, now, 1);
  at_step_ = now;
  ++num_steps_;
}

bool StepReport::is_due(int64_t step, bool otherwise) const {
  return steps_per_print_ ? step % *steps_per_print_ == 0 : otherwise;
}

std::string progress_line(const Progress& progress) {
  std::vector<std::string> lrs;
  for (const double lr : progress.lr) lrs.push_back(format("%.6g", lr));
  std::vector<std::string> momenta;
  for (const auto& momentum : progress.momentum) momenta.push_back(momentum_text(momentum));
  std::string text = detail::concat("step=", progress.step, ", skipped=", progress.skipped, ", lr=[", join(lrs),
                                    "], mom=[", join(momenta), "], grad_norm=", format("%.4g", progress.grad_norm));
  if (progress.loss_scale) text += ", loss_scale=" + format("%.6g", *progress.loss_scale);
  if (progress.samples_per_second) {
    text += ", samples/s=" + format("%.1f", *progress.samples_per_second);
    if (progress.num_ranks > 1) text += format(" (%.1f a rank)", *progress.samples_per_second / progress.num_ranks);
  }
  return text;
}

std::string breakdown_line(int64_t step, const PhaseTimes& times) {
  return detail::concat("step=", step, ", time (ms) | forward: ", format("%.2f", times.forward_ms),
                        " | backward: ", format("%.2f", times.backward_ms), " | step: ", format("%.2f", times.step_ms),
                        " | reduce wait: ", format("%.2f", times.reduce_wait_ms),
                        " | gather wait: ", format("%.2f", times.gather_wait_ms));
}

std::string memory_line(const std::string& when, const zero::MemoryReport& memory, const c10::Device& device) {
  const auto mib = [](int64_t bytes) { return format("%.1f", static_cast<double>(bytes) / kMib); };
  const memory::ProcessMemory process = memory::process_memory();
  return detail::concat(
      "memory ", when, " (MiB) | ", device.is_cpu() ? "host" : device.str(), ": parameters ",
      mib(memory.parameter_bytes), ", gradients ", mib(memory.gradient_bytes), ", masters ", mib(memory.master_bytes),
      ", optimizer states ", mib(memory.optimizer_state_bytes), ", gathered units and buckets ", mib(memory.slot_bytes),
      " (peak ", mib(memory.peak_slot_bytes), ") | process: large host tensors ", mib(memory.host_tensor_bytes),
      ", RSS ", mib(process.rss_bytes), ", PSS ", mib(process.pss_bytes), ", peak RSS ", mib(process.peak_rss_bytes));
}

}  // namespace hydrofoil::engine
