#include <pybind11/stl.h>

#include "bindings.h"
#include "hydrofoil/optim/lr_schedule.h"

namespace hydrofoil::python {

void bind_optim(py::module_& module) {
  using optim::Hyperparameters;
  using optim::LrSchedule;
  using optim::ScheduleOptions;
  py::enum_<optim::OptimizerKind>(module, "OptimizerKind")
      .value("ADAM", optim::OptimizerKind::kAdam)
      .value("ADAMW", optim::OptimizerKind::kAdamW)
      .value("SGD", optim::OptimizerKind::kSgd)
      .value("ADAGRAD", optim::OptimizerKind::kAdagrad)
      .value("LION", optim::OptimizerKind::kLion);
  module.def("parse_optimizer_kind", &optim::parse_optimizer_kind, py::arg("name"), py::arg("adam_w_mode"));
  py::class_<Hyperparameters>(module, "Hyperparameters")
      .def(py::init<>())
      .def_readwrite("lr", &Hyperparameters::lr)
      .def_readwrite("beta1", &Hyperparameters::beta1)
      .def_readwrite("beta2", &Hyperparameters::beta2)
      .def_readwrite("eps", &Hyperparameters::eps)
      .def_readwrite("weight_decay", &Hyperparameters::weight_decay)
      .def_readwrite("momentum", &Hyperparameters::momentum)
      .def_readwrite("dampening", &Hyperparameters::dampening)
      .def_readwrite("nesterov", &Hyperparameters::nesterov)
      .def_readwrite("bias_correction", &Hyperparameters::bias_correction);
  module.def("hyperparameter_names", &optim::hyperparameter_names, py::arg("kind"));
  module.def(
      "state_names",
      [](optim::OptimizerKind kind, const std::vector<Hyperparameters>& groups) {
        return optim::state_names(kind, groups);
      },
      py::arg("kind"), py::arg("groups"));
  py::class_<optim::ScheduleValues>(module, "ScheduleValues")
      .def_readonly("lr", &optim::ScheduleValues::lr)
      .def_readonly("momentum", &optim::ScheduleValues::momentum)
      .def_readonly("beta2", &optim::ScheduleValues::beta2);
  py::enum_<optim::ScheduleKind>(module, "ScheduleKind")
      .value("WarmupLR", optim::ScheduleKind::kWarmup)
      .value("WarmupDecayLR", optim::ScheduleKind::kWarmupDecay)
      .value("WarmupCosineLR", optim::ScheduleKind::kWarmupCosine)
      .value("OneCycle", optim::ScheduleKind::kOneCycle)
      .value("LRRangeTest", optim::ScheduleKind::kLrRangeTest);
  py::enum_<optim::WarmupType>(module, "WarmupType")
      .value("log", optim::WarmupType::kLog)
      .value("linear", optim::WarmupType::kLinear);
  module.def("parse_warmup_type", &optim::parse_warmup_type, py::arg("name"));
  py::class_<ScheduleOptions>(module, "ScheduleOptions")
      .def(py::init<>())
      .def_readwrite("kind", &ScheduleOptions::kind)
      .def_readwrite("last_batch_iteration", &ScheduleOptions::last_batch_iteration)
      .def_readwrite("warmup_min_lr", &ScheduleOptions::warmup_min_lr)
      .def_readwrite("warmup_max_lr", &ScheduleOptions::warmup_max_lr)
      .def_readwrite("warmup_num_steps", &ScheduleOptions::warmup_num_steps)
      .def_readwrite("warmup_type", &ScheduleOptions::warmup_type)
      .def_readwrite("total_num_steps", &ScheduleOptions::total_num_steps)
      .def_readwrite("warmup_min_ratio", &ScheduleOptions::warmup_min_ratio)
      .def_readwrite("cos_min_ratio", &ScheduleOptions::cos_min_ratio)
      .def_readwrite("cycle_min_lr", &ScheduleOptions::cycle_min_lr)
      .def_readwrite("cycle_max_lr", &ScheduleOptions::cycle_max_lr)
      .def_readwrite("decay_lr_rate", &ScheduleOptions::decay_lr_rate)
      .def_readwrite("cycle_first_step_size", &ScheduleOptions::cycle_first_step_size)
      .def_readwrite("cycle_second_step_size", &ScheduleOptions::cycle_second_step_size)
      .def_readwrite("cycle_first_stair_count", &ScheduleOptions::cycle_first_stair_count)
      .def_readwrite("cycle_second_stair_count", &ScheduleOptions::cycle_second_stair_count)
      .def_readwrite("decay_step_size", &ScheduleOptions::decay_step_size)
      .def_readwrite("cycle_momentum", &ScheduleOptions::cycle_momentum)
      .def_readwrite("cycle_min_mom", &ScheduleOptions::cycle_min_mom)
      .def_readwrite("cycle_max_mom", &ScheduleOptions::cycle_max_mom)
      .def_readwrite("decay_mom_rate", &ScheduleOptions::decay_mom_rate)
      .def_readwrite("lr_range_test_min_lr", &ScheduleOptions::lr_range_test_min_lr)
      .def_readwrite("lr_range_test_step_size", &ScheduleOptions::lr_range_test_step_size)
      .def_readwrite("lr_range_test_step_rate", &ScheduleOptions::lr_range_test_step_rate)
      .def_readwrite("lr_range_test_staircase", &ScheduleOptions::lr_range_test_staircase);
  py::class_<LrSchedule>(module, "LrSchedule")
      .def(py::init<ScheduleOptions, std::vector<double>>(), py::arg("options"), py::arg("base_lrs"))
      .def("values", &LrSchedule::values)
      .def("values_at", &LrSchedule::values_at, py::arg("iteration"))
      .def("step", &LrSchedule::step, py::arg("iteration") = std::nullopt)
      .def_property("last_batch_iteration", &LrSchedule::last_batch_iteration, &LrSchedule::set_last_batch_iteration);
}

}  // namespace hydrofoil::python
