#include <pybind11/stl.h>

#include "bindings.h"
#include "hydrofoil/base/log.h"
#include "hydrofoil/engine/step_report.h"

namespace hydrofoil::python {

void bind_report(py::module_& module) {
  using engine::Phase;
  using engine::PhaseTimes;
  using engine::StepReport;
  using engine::Throughput;
  const auto inside = py::return_value_policy::reference_internal;
  py::enum_<Phase>(module, "Phase")
      .value("FORWARD", Phase::kForward)
      .value("BACKWARD", Phase::kBackward)
      .value("STEP", Phase::kStep);
  py::enum_<LogLevel>(module, "LogLevel")
      .value("DEBUG", LogLevel::kDebug)
      .value("INFO", LogLevel::kInfo)
      .value("WARNING", LogLevel::kWarning)
      .value("ERROR", LogLevel::kError)
      .value("CRITICAL", LogLevel::kCritical);
  module.def("set_log_level", &set_log_level, py::arg("level"));
  py::class_<Stopwatch>(module, "Stopwatch")
      .def(py::init<>())
      .def("start", &Stopwatch::start)
      .def("stop", &Stopwatch::stop, py::arg("alone") = false)
      .def("reset", &Stopwatch::reset)
      .def_property_readonly("running", &Stopwatch::running)
      .def_property_readonly("elapsed_ms", &Stopwatch::elapsed_ms)
      .def_property_readonly("mean_ms", &Stopwatch::mean_ms);
  py::class_<PhaseTimes>(module, "PhaseTimes")
      .def_readonly("forward_ms", &PhaseTimes::forward_ms)
      .def_readonly("backward_ms", &PhaseTimes::backward_ms)
      .def_readonly("step_ms", &PhaseTimes::step_ms)
      .def_readonly("reduce_wait_ms", &PhaseTimes::reduce_wait_ms)
      .def_readonly("gather_wait_ms", &PhaseTimes::gather_wait_ms);
  py::class_<Throughput>(module, "Throughput")
      .def_readonly_static("warm_up_steps", &Throughput::kWarmUpSteps)
      .def_property_readonly("num_steps", &Throughput::num_steps)
      .def_property_readonly("seconds", &Throughput::seconds)
      .def_property_readonly("average", &Throughput::average)
      .def("take_recent", &Throughput::take_recent);
  py::class_<StepReport>(module, "StepReport")
      .def("is_due", &StepReport::is_due, py::arg("step"), py::arg("otherwise"))
      .def("end_step", &StepReport::end_step)
      .def("take_mean", &StepReport::take_mean)
      .def_property_readonly("measures_phases", &StepReport::measures_phases)
      .def_property_readonly("last_step", &StepReport::last_step)
      .def_property_readonly("throughput", &StepReport::throughput, inside)
      .def("watch", &StepReport::watch, py::arg("phase"), inside)
      .def_property_readonly("gather_wait", &StepReport::gather_wait, inside)
      .def_property_readonly("reduce_wait", &StepReport::reduce_wait, inside);
  module.def(
      "progress_line",
      [](int64_t step, int64_t skipped, std::vector<double> lr, std::vector<std::vector<double>> momentum,
         double grad_norm, std::optional<double> loss_scale, std::optional<double> samples_per_second, int num_ranks) {
        return engine::progress_line(
            {step, skipped, std::move(lr), std::move(momentum), grad_norm, loss_scale, samples_per_second, num_ranks});
      },
      py::arg("step"), py::arg("skipped"), py::arg("lr"), py::arg("momentum"), py::arg("grad_norm"),
      py::arg("loss_scale"), py::arg("samples_per_second"), py::arg("num_ranks"));
  module.def("breakdown_line", &engine::breakdown_line, py::arg("step"), py::arg("times"));
}

}  // namespace hydrofoil::python
