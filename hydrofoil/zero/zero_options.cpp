#include "hydrofoil/zero/zero_options.h"

#include "hydrofoil/base/error.h"

namespace hydrofoil::zero {
namespace {

using config::accepted;
using config::choice;
using config::field;
using config::Field;
using config::later;
using config::nested;
using config::Section;
using config::Value;
using config::ValueKind;

constexpr const char* kPath = "zero_optimization";

const std::vector<std::pair<std::string, OffloadDevice>>& device_names() {
  static const std::vector<std::pair<std::string, OffloadDevice>> names = {
      {"none", OffloadDevice::kNone}, {"cpu", OffloadDevice::kCpu}, {"nvme", OffloadDevice::kNvme}};
  return names;
}

const std::vector<std::pair<std::string, DivergentUnits>>& divergence_names() {
  static const std::vector<std::pair<std::string, DivergentUnits>> names = {{"error", DivergentUnits::kError},
                                                                            {"join", DivergentUnits::kJoin}};
  return names;
}

Field device_field() {
  return choice("device", &OffloadOptions::device, device_names(),
                "where this state lives; none: the device; cpu on a CPU device is the device itself; nvme, and cpu on "
                "another device, "
                "are not yet supported");
}

Field swap_size(std::string key, int64_t value) {
  return accepted(std::move(key), value, "sizes DeepSpeed's swap buffers").at_least(0);
}

Section offload_param_section() {
  Section section;
  section.doc = "Tier of the sharded parameters (stage 3)";
  section.lax = true;
  section.fields = {
      device_field(),
      field("nvme_path", &OffloadOptions::nvme_path, "directory of the swap files on NVMe")
          .with_note("read with device nvme only"),
      swap_size("buffer_count", 5),
      swap_size("buffer_size", 100'000'000),
      swap_size("max_in_cpu", 1'000'000'000),
      accepted("pin_memory", true, "the tier is the device, nothing is copied"),
  };
  return section;
}

Section offload_optimizer_section() {
  Section section;
  section.doc = "Tier of the optimizer states";
  section.lax = true;
  section.fields = {
      device_field(),
      field("nvme_path", &OffloadOptions::nvme_path, "directory of the swap files on NVMe")
          .with_note("read with device nvme only"),
      swap_size("buffer_count", 4),
      accepted("pin_memory", true, "the tier is the device, nothing is copied"),
      accepted("pipeline_read", false, "tunes DeepSpeed's NVMe swapping"),
      accepted("pipeline_write", false, "tunes DeepSpeed's NVMe swapping"),
      accepted("fast_init", false, "tunes DeepSpeed's NVMe swapping"),
      field("ratio", &OffloadOptions::ratio, "share of the states that is offloaded; below 1 with stage 3 only")
          .accepted("with the tier equal to the device every share is the same")
          .range(0, 1),
      later("super_offload", false, "optimizer steps on a Grace CPU"),
      accepted("cpuadam_cores_perc", 0.8, "tunes super_offload").range(0, 1),
  };
  return section;
}

Section zenflow_section() {
  Section section;
  section.doc = "ZenFlow: importance-aware offloaded updates";
  section.lax = true;
  section.activity = config::Activity::kByPresence;
  section.fields = {
      later("topk_ratio", 0.1).range(0, 1),
      later("select_strategy", "auto"),
      later("select_interval", {}),
      later("update_interval", {}),
      later("overlap_step", false),
      later("offload", false),
      later("auto_ratio", 0.99).range(0, 1),
      later("full_warm_up_rounds", int64_t{0}).at_least(0),
      later("pt_reserved_cores_perc", 0.5).range(0, 1),
  };
  return section;
}

Section leaf_module_section() {
  Section section;
  section.doc = "Modules that stay one unit whatever they contain";
  section.lax = true;
  section.fields = {
      field("classes", &LeafModuleOptions::classes,
            "their classes: names, or paths with the module (package.file.Moe)"),
      field("names", &LeafModuleOptions::names, "their names, as named_modules() has them"),
      field("name_suffixes", &LeafModuleOptions::name_suffixes, "ends of such names"),
  };
  for (auto& each : section.fields) {
    each.allows_one_string = true;
    each.with_note("what matches nothing is a warning");
  }
  return section;
}

// Keys of DeepSpeed's buckets, prefetching and fetching: units, flat buffers and the recorded order replace them all.
std::vector<Field> tuning_fields() {
  constexpr int64_t kMaxInt = 9223372036854775807;
  return {
      accepted("contiguous_gradients", true, "gradients always live in flat buckets"),
      accepted("reduce_scatter", true, "stages 2 and 3 always reduce-scatter"),
      accepted("reduce_bucket_size", int64_t{500'000'000},
               "a unit is a bucket; hydrofoil.unit_min_bytes is the least size")
          .at_least(0),
      accepted("use_multi_rank_bucket_allreduce", true, "one reduce-scatter a unit"),
      accepted("allgather_partitions", true, "always one all-gather a unit"),
      accepted("allgather_bucket_size", int64_t{500'000'000}, "one all-gather a unit").at_least(0),
      accepted("overlap_comm", false, "see hydrofoil.overlap; either way the bits are the same").derived("stage == 3"),
      accepted("sub_group_size", int64_t{1'000'000'000}, "one fused pass over each shard").at_least(0),
      accepted("stage3_prefetch_bucket_size", int64_t{50'000'000}, "the recorded order is prefetched by whole units")
          .at_least(0)
          .alias("prefetch_bucket_size"),
      accepted("stage3_param_persistence_threshold", int64_t{100'000},
               "small parameters travel with their unit; see hydrofoil.keep_gathered_bytes")
          .at_least(0)
          .alias("param_persistence_threshold"),
      accepted("stage3_model_persistence_threshold", kMaxInt, "small parameters travel with their unit")
          .at_least(0)
          .alias("model_persistence_threshold"),
      accepted("stage3_max_live_parameters", int64_t{1'000'000'000}, "see hydrofoil.keep_gathered_bytes")
          .at_least(0)
          .alias("max_live_parameters"),
      accepted("stage3_max_reuse_distance", int64_t{1'000'000'000}, "a unit is released when its pass ends")
          .at_least(0)
          .alias("max_reuse_distance"),
      accepted("stage3_module_granularity_threshold", int64_t{0}, "units replace it; see hydrofoil.unit_min_bytes")
          .alias("module_granularity_threshold"),
      accepted("stage3_use_all_reduce_for_fetch_params", false, "always one all-gather a unit")
          .alias("use_all_reduce_for_fetch_params"),
      accepted("stage3_allgather_sequential", false, "always one all-gather a unit").alias("allgather_sequential"),
      accepted("round_robin_gradients", false, "every rank owns an equal slice of each unit"),
      accepted("memory_efficient_linear", true, "no layer needs a special linear"),
      accepted("override_module_apply", true, "module.apply is left alone; use zero.GatheredParameters"),
      accepted("log_trace_cache_warnings", false, "there is no trace cache"),
      accepted("save_muon_momentum_buffer_in_memory", false, "tunes DeepSpeed's Muon"),
  };
}

std::vector<Field> later_fields() {
  Field mics = later("mics_shard_size", int64_t{-1}, "MiCS: ranks of a shard group");
  mics.inactive_values = {int64_t{0}};
  Field hpz = later("zero_hpz_partition_size", int64_t{1}, "hpZ: ranks of a secondary shard group").at_least(0);
  hpz.inactive_values = {int64_t{0}};
  return {
      later("load_from_fp32_weights", true, "rebuild the model's weights from the fp32 masters on load"),
      later("elastic_checkpoint", false, "legacy checkpoints at any world size"),
      later("ignore_unused_parameters", true, "false: an unused parameter is an error"),
      later("legacy_stage1", false, "removed from DeepSpeed too"),
      hpz,
      later("zero_quantized_weights", false, "ZeRO++ qwZ"),
      later("zero_quantized_nontrainable_weights", false, "ZeRO++ qwZ of frozen weights"),
      later("zero_quantized_gradients", false, "ZeRO++ qgZ"),
      later("zeropp_loco_param", {}, "LoCo error feedback of qgZ"),
      mics,
      later("mics_hierarchical_params_gather", false, "MiCS: gather in two levels"),
      later("pipeline_loading_checkpoint", false, "stage 3: load one rank after the other"),
  };
}

Section make_section() {
  Section section;
  section.doc = "ZeRO: what is sharded over the ranks, and where it lives";
  section.lax = true;
  section.fields = {
      field("stage", &ZeroOptions::stage,
            "0: nothing is sharded, 1: optimizer states, 2: gradients too, 3: parameters too")
          .range(0, 3),
      nested("offload_param", &ZeroOptions::offload_param, offload_param_section()),
      nested("offload_optimizer", &ZeroOptions::offload_optimizer, offload_optimizer_section()),
      nested("leaf_module", &ZeroOptions::leaf_module, leaf_module_section()),
      choice("divergent_units", &ZeroOptions::divergent_units, divergence_names(),
             "stage 3: a unit that some ranks run and others do not is an error that names it on each rank, or the "
             "others join its collectives, which costs an exchange a unit and the prefetching"),
      field("stage3_gather_16bit_weights_on_model_save", &ZeroOptions::gather_16bit_weights_on_model_save,
            "stage 3: save_16bit_model may gather the full weights")
          .alias("gather_16bit_weights_on_model_save")
          .old_name("stage3_gather_fp16_weights_on_model_save"),
      field("enable_sanity_checks", &ZeroOptions::enable_sanity_checks, "turns hydrofoil.debug_checks on"),
  };
  for (auto& more : {tuning_fields(), later_fields()})
    section.fields.insert(section.fields.end(), more.begin(), more.end());
  section.fields.push_back(nested("zenflow", zenflow_section()).later());
  return section;
}

// The boolean behind a deprecated key; nullopt where it is absent or null.
std::optional<bool> old_flag(const Value& section, const char* key, const config::Resolver& resolver) {
  const Value* value = section.find(key);
  if (value == nullptr || value->is(ValueKind::kNull) || value->is_auto()) return std::nullopt;
  if (!value->is(ValueKind::kBool)) {
    resolver.fail(value, std::string(kPath) + "." + key, "got " + describe(*value) + ", expected true or false");
  }
  return value->boolean;
}

}  // namespace

const Section& zero_section() {
  static const Section section = make_section();
  return section;
}

Value upgrade_zero_section(const Value& section, config::Resolver& resolver) {
  if (section.is(ValueKind::kBool)) {
    const int stage = section.boolean ? 1 : 0;
    resolver.warn(std::string(kPath) + " as a boolean is deprecated, use {\"stage\": " + std::to_string(stage) + "}");
    Value object = Value::object(section.position);
    object.members.emplace_back("stage", Value::from_integer(stage, section.position));
    return object;
  }
  if (!section.is(ValueKind::kObject)) return section;
  Value upgraded = section;
  std::erase_if(upgraded.members, [](const Value::Member& member) {
    return member.key == "cpu_offload" || member.key == "cpu_offload_param" ||
           member.key == "cpu_offload_use_pin_memory";
  });
  const auto replace = [&](const char* old_key, const char* new_key) {
    const auto flag = old_flag(section, old_key, resolver);
    if (!flag) return;
    const Value* place = section.find(old_key);
    const std::string path = std::string(kPath) + "." + old_key;
    resolver.warn(path + " is deprecated, use " + kPath + "." + new_key + " {\"device\": \"cpu\"}");
    const Value* present = section.find(new_key);
    if (present != nullptr && !present->is(ValueKind::kNull)) {
      resolver.fail(place, path, std::string("given together with ") + new_key + ", which replaces it; keep one");
    }
    Value offload = Value::object(place->position);
    offload.members.emplace_back("device", Value::from_string(*flag ? "cpu" : "none", place->position));
    std::erase_if(upgraded.members, [&](const Value::Member& member) { return member.key == new_key; });
    upgraded.members.emplace_back(new_key, std::move(offload));
  };
  replace("cpu_offload", "offload_optimizer");
  replace("cpu_offload_param", "offload_param");
  if (old_flag(section, "cpu_offload_use_pin_memory", resolver)) {
    resolver.warn(std::string(kPath) + ".cpu_offload_use_pin_memory is deprecated and has no effect");
  }
  return upgraded;
}

void check_offload(const ZeroOptions& options, bool cpu_device, config::Resolver& resolver, const Value* section) {
  const auto check = [&](const char* key, const OffloadOptions& offload, const char* needs, bool useful) {
    if (offload.device == OffloadDevice::kNone) return;
    const std::string path = std::string(kPath) + "." + key + ".device";
    const Value* object = section != nullptr ? section->find(key) : nullptr;
    const Value* place = object != nullptr ? object->find("device") : nullptr;
    if (offload.device == OffloadDevice::kNvme) {
      resolver.fail(place, path, "nvme is not yet supported; use none" + std::string(cpu_device ? " or cpu" : ""));
    }
    if (!cpu_device) resolver.fail(place, path, "cpu is not yet supported on a device other than the CPU; use none");
    resolver.table().annotate(path, "the device is the CPU: the tier is the device, nothing moves");
    if (!useful) resolver.table().annotate(path, needs);
  };
  check("offload_param", options.offload_param, "parameters are sharded from stage 3 on", options.stage >= 3);
  check("offload_optimizer", options.offload_optimizer, "optimizer states are sharded from stage 1 on",
        options.stage >= 1);
}

void ZeroOptions::validate() const {
  ZeroOptions copy = *this;
  config::check_ranges(zero_section(), &copy, kPath);
  HYDROFOIL_CHECK_ARG(stage == 3 || offload_optimizer.ratio == 1.0, "config", kPath, ".offload_optimizer.ratio: got ",
                      offload_optimizer.ratio, " with stage ", stage, ", expected 1 (a part needs stage 3)");
}

}  // namespace hydrofoil::zero
