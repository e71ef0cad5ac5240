#include "hydrofoil/optim/detail/typed_section.h"
#include "hydrofoil/optim/optim_options.h"

namespace hydrofoil::optim {
namespace {

using config::field;
using config::Field;
using config::Section;
using config::Value;

constexpr const char* kGroupLr = "each group's lr";

Section params_section(std::vector<Field> fields) {
  Section section;
  section.fields = std::move(fields);
  section.fields.push_back(
      field("last_batch_iteration", &SchedulerParams::last_batch_iteration, "number of the last step taken; -1: none")
          .at_least(-1));
  return section;
}

Field total_steps_field() {
  return field("total_num_steps", &SchedulerParams::total_num_steps, "steps of the whole run")
      .at_least(1)
      .needed("give the number of optimizer steps of the whole run");
}

Field warmup_steps_field() {
  return field("warmup_num_steps", &SchedulerParams::warmup_num_steps, "steps of the warm-up").at_least(1);
}

Field warmup_type_field() {
  Field type = field("warmup_type", &SchedulerParams::warmup_type, "shape of the warm-up");
  type.choices = {"log", "linear"};
  return type;
}

Field min_lr_field() {
  return field("warmup_min_lr", &SchedulerParams::warmup_min_lr,
               "learning rate at the start; a list: one a parameter group")
      .at_least(0);
}

Field max_lr_field() {
  return field("warmup_max_lr", &SchedulerParams::warmup_max_lr,
               "learning rate after the warm-up; a list: one a parameter group")
      .at_least(0);
}

Section lr_range_test_section() {
  return params_section({
      field("lr_range_test_min_lr", &SchedulerParams::lr_range_test_min_lr,
            "learning rate at the start; a list: one a parameter group")
          .at_least(0),
      field("lr_range_test_step_size", &SchedulerParams::lr_range_test_step_size, "steps of an interval").at_least(1),
      field("lr_range_test_step_rate", &SchedulerParams::lr_range_test_step_rate, "growth an interval"),
      field("lr_range_test_staircase", &SchedulerParams::lr_range_test_staircase, "grow by whole intervals only"),
  });
}

Section one_cycle_section() {
  const std::string give = "give the learning rate of the cycle";
  return params_section({
      field("cycle_min_lr", &SchedulerParams::cycle_min_lr, "lowest learning rate of the cycle")
          .at_least(0)
          .needed(give),
      field("cycle_max_lr", &SchedulerParams::cycle_max_lr, "highest learning rate of the cycle")
          .at_least(0)
          .needed(give),
      field("decay_lr_rate", &SchedulerParams::decay_lr_rate, "decay after the cycle").at_least(0),
      field("cycle_first_step_size", &SchedulerParams::cycle_first_step_size, "steps of the rising half").at_least(1),
      field("cycle_second_step_size", &SchedulerParams::cycle_second_step_size, "steps of the falling half")
          .at_least(1)
          .derived("as the first"),
      field("cycle_first_stair_count", &SchedulerParams::cycle_first_stair_count, "stairs of the rising half; 0: none")
          .at_least(0),
      field("cycle_second_stair_count", &SchedulerParams::cycle_second_stair_count, "stairs of the falling half")
          .at_least(0)
          .derived("as the first"),
      field("decay_step_size", &SchedulerParams::decay_step_size, "steps of a decay interval; 0: no decay").at_least(0),
      field("cycle_momentum", &SchedulerParams::cycle_momentum, "cycle the momentum against the learning rate"),
      field("cycle_min_mom", &SchedulerParams::cycle_min_mom, "lowest momentum").range(0, 1),
      field("cycle_max_mom", &SchedulerParams::cycle_max_mom, "highest momentum").range(0, 1),
      field("decay_mom_rate", &SchedulerParams::decay_mom_rate, "decay of the momentum after the cycle").at_least(0),
  });
}

Section warmup_section() {
  return params_section({min_lr_field(), max_lr_field().derived(kGroupLr), warmup_steps_field(), warmup_type_field()});
}

Section warmup_decay_section() {
  return params_section({total_steps_field(), min_lr_field(), max_lr_field().preset(std::vector<double>{0.001}),
                         warmup_steps_field(), warmup_type_field()});
}

Section warmup_cosine_section() {
  return params_section({
      total_steps_field(),
      field("warmup_min_ratio", &SchedulerParams::warmup_min_ratio, "share of the learning rate at the start")
          .range(0, 1),
      warmup_steps_field(),
      field("cos_min_ratio", &SchedulerParams::cos_min_ratio, "share of the learning rate at the end").range(0, 1),
      warmup_type_field(),
  });
}

// What torch.optim.lr_scheduler holds; those that take other schedulers or functions cannot be written in JSON.
const std::vector<std::string>& torch_types() {
  static const std::vector<std::string> names = {"ConstantLR",  "CosineAnnealingLR", "CosineAnnealingWarmRestarts",
                                                 "CyclicLR",    "ExponentialLR",     "LinearLR",
                                                 "MultiStepLR", "OneCycleLR",        "PolynomialLR",
                                                 "StepLR",      "ReduceLROnPlateau"};
  return names;
}

}  // namespace

const Section& scheduler_section() {
  static const Section section = detail::typed_section(
      "The learning-rate schedule; left out where the program passes its own", &SchedulerOptions::type,
      "LRRangeTest, OneCycle, WarmupLR, WarmupDecayLR, WarmupCosineLR, or a class of torch.optim.lr_scheduler; exact "
      "names",
      {});
  return section;
}

const std::vector<std::pair<std::string, Section>>& scheduler_params_sections() {
  static const std::vector<std::pair<std::string, Section>> sections = {{"LRRangeTest", lr_range_test_section()},
                                                                        {"OneCycle", one_cycle_section()},
                                                                        {"WarmupLR", warmup_section()},
                                                                        {"WarmupDecayLR", warmup_decay_section()},
                                                                        {"WarmupCosineLR", warmup_cosine_section()}};
  return sections;
}

SchedulerOptions resolve_scheduler(config::Resolver& resolver, const Value* section) {
  SchedulerOptions options;
  const Value* params = detail::resolve_type(resolver, scheduler_section(), section, &options, "scheduler");
  if (options.type.empty()) return options;
  static const std::vector<std::string> none;
  const detail::KnownTypes known{scheduler_params_sections(), none, torch_types(), false, "torch.optim.lr_scheduler"};
  const Section* native = detail::find_type(resolver, known, *section->find("type"), "scheduler.type", options.type);
  options.native = native != nullptr;
  if (native == nullptr) {
    options.params_json = detail::raw_params(resolver, params, "scheduler.params");
    return options;
  }
  resolver.resolve(*native, params, &options.params, "scheduler.params");
  if (options.type == "WarmupLR" && !options.params.warmup_max_lr) {
    resolver.table().derive("scheduler.params.warmup_max_lr", std::string(kGroupLr), "");
  }
  if (options.type == "WarmupDecayLR" && options.params.total_num_steps < options.params.warmup_num_steps) {
    resolver.warn("scheduler.params.total_num_steps " + std::to_string(options.params.total_num_steps) +
                  " is less than warmup_num_steps " + std::to_string(options.params.warmup_num_steps));
  }
  options.params_json = detail::members_json(*native, &options.params);
  return options;
}

}  // namespace hydrofoil::optim
