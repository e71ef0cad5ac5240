#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace hydrofoil::plan {

enum class Phase { kForward, kBackward, kStep };
enum class Lane { kCompute, kGather, kReduce };  // what runs side by side: the compute and the two channels
enum class Activity { kCompute, kGather, kReduce, kUpdate, kPublish };

[[nodiscard]] const char* phase_name(Phase phase);
[[nodiscard]] const char* lane_name(Lane lane);
[[nodiscard]] const char* activity_name(Activity activity);

// What happens on one lane, in the order of begin_s.
struct Event {
  Activity activity = Activity::kCompute;
  Lane lane = Lane::kCompute;
  Phase phase = Phase::kForward;
  int64_t micro_step = 0;
  int unit = -1;       // in Plan::units; -1: of no unit
  int module = -1;     // whose call it is (compute), else -1
  double begin_s = 0;  // from the start of the step
  double end_s = 0;
  int64_t bytes = 0;  // that the collective's tensor has, or that the update reads and writes
};

// What this rank holds beside its permanent state from `time_s` on, at a steady step.
struct MemoryPoint {
  double time_s = 0;
  int64_t slot_bytes = 0;        // gathered units and transient gradient buckets
  int64_t activation_bytes = 0;  // kept for backward
  int64_t gradient_bytes = 0;    // gradient shards, where they are no permanent state (Settings::passing_gradients)
  int64_t workspace_bytes = 0;   // temporaries of the running call, and casts of buckets for their reduction
  Phase phase = Phase::kForward;
  int64_t micro_step = 0;
  int unit = -1;    // whose arrival or call made the change
  int module = -1;  // the running call

  [[nodiscard]] int64_t transient_bytes() const {
    return slot_bytes + activation_bytes + gradient_bytes + workspace_bytes;
  }
};

// One optimizer step: micro step 0, where units stay gathered micro step 1 too, the last one, the step. Micro steps
// between them equal `repeated_micro_step` in memory and time; they are left out of the lists, and the last begins
// `left_out_micro_steps` times later.
struct Timeline {
  std::vector<Event> events;
  std::vector<MemoryPoint> memory;
  int64_t left_out_micro_steps = 0;
  int64_t repeated_micro_step = 0;
  double repeated_end_s = 0;  // of it, where those that are left out begin
  double micro_step_s = 0;    // of one that is left out
  double end_s = 0;
};

}  // namespace hydrofoil::plan
