#include <pybind11/stl.h>

#include "bindings.h"
#include "hydrofoil/comm/comm_log.h"
#include "hydrofoil/config/load.h"
#include "hydrofoil/engine/build_engine.h"
#include "hydrofoil/engine/engine_options.h"

namespace hydrofoil::python {

void bind_config(py::module_& module) {
  using engine::EngineOptions;
  const auto no_gil = py::call_guard<py::gil_scoped_release>();
  py::class_<optim::OptimizerParams>(module, "OptimizerParams")
      .def_readonly("lr", &optim::OptimizerParams::lr)
      .def_readonly("betas", &optim::OptimizerParams::betas)
      .def_readonly("eps", &optim::OptimizerParams::eps)
      .def_readonly("weight_decay", &optim::OptimizerParams::weight_decay)
      .def_readonly("momentum", &optim::OptimizerParams::momentum)
      .def_readonly("dampening", &optim::OptimizerParams::dampening)
      .def_readonly("nesterov", &optim::OptimizerParams::nesterov)
      .def_readonly("bias_correction", &optim::OptimizerParams::bias_correction)
      .def_readonly("adam_w_mode", &optim::OptimizerParams::adam_w_mode);
  py::class_<optim::OptimizerOptions>(module, "OptimizerOptions")
      .def_readonly("type", &optim::OptimizerOptions::type)
      .def_readonly("native", &optim::OptimizerOptions::native)
      .def_readonly("params", &optim::OptimizerOptions::params)
      .def_readonly("params_json", &optim::OptimizerOptions::params_json);
  py::class_<optim::SchedulerOptions>(module, "SchedulerOptions")
      .def_readonly("type", &optim::SchedulerOptions::type)
      .def_readonly("native", &optim::SchedulerOptions::native)
      .def_readonly("params_json", &optim::SchedulerOptions::params_json);
  using engine::FlopsProfilerOptions;
  py::class_<FlopsProfilerOptions>(module, "FlopsProfilerOptions")
      .def_readonly("enabled", &FlopsProfilerOptions::enabled)
      .def_readonly("profile_step", &FlopsProfilerOptions::profile_step)
      .def_readonly("module_depth", &FlopsProfilerOptions::module_depth)
      .def_readonly("top_modules", &FlopsProfilerOptions::top_modules)
      .def_readonly("detailed", &FlopsProfilerOptions::detailed)
      .def_readonly("output_file", &FlopsProfilerOptions::output_file);
  py::class_<engine::FileMonitorOptions>(module, "FileMonitorOptions")
      .def_readonly("enabled", &engine::FileMonitorOptions::enabled)
      .def_readonly("output_path", &engine::FileMonitorOptions::output_path)
      .def_readonly("job_name", &engine::FileMonitorOptions::job_name);
  py::class_<engine::WandbOptions>(module, "WandbOptions")
      .def_readonly("enabled", &engine::WandbOptions::enabled)
      .def_readonly("group", &engine::WandbOptions::group)
      .def_readonly("team", &engine::WandbOptions::team)
      .def_readonly("project", &engine::WandbOptions::project);
  py::class_<engine::CometOptions>(module, "CometOptions")
      .def_readonly("enabled", &engine::CometOptions::enabled)
      .def_readonly("samples_log_interval", &engine::CometOptions::samples_log_interval)
      .def_readonly("project", &engine::CometOptions::project)
      .def_readonly("workspace", &engine::CometOptions::workspace)
      .def_readonly("api_key", &engine::CometOptions::api_key)
      .def_readonly("experiment_name", &engine::CometOptions::experiment_name)
      .def_readonly("experiment_key", &engine::CometOptions::experiment_key)
      .def_readonly("online", &engine::CometOptions::online)
      .def_readonly("mode", &engine::CometOptions::mode);
  using zero::LeafModuleOptions;
  py::class_<LeafModuleOptions>(module, "LeafModuleOptions")
      .def(py::init<>())
      .def_readonly("classes", &LeafModuleOptions::classes)
      .def_readonly("names", &LeafModuleOptions::names)
      .def_readonly("name_suffixes", &LeafModuleOptions::name_suffixes);
  py::class_<EngineOptions>(module, "EngineOptions")
      .def_readonly("train_batch_size", &EngineOptions::train_batch_size)
      .def_readonly("train_micro_batch_size_per_gpu", &EngineOptions::train_micro_batch_size_per_gpu)
      .def_readonly("gradient_accumulation_steps", &EngineOptions::gradient_accumulation_steps)
      .def_readonly("gradient_clipping", &EngineOptions::gradient_clipping)
      .def_readonly("prescale_gradients", &EngineOptions::prescale_gradients)
      .def_readonly("gradient_predivide_factor", &EngineOptions::gradient_predivide_factor)
      .def_readonly("steps_per_print", &EngineOptions::steps_per_print)
      .def_readonly("wall_clock_breakdown", &EngineOptions::wall_clock_breakdown)
      .def_property_readonly("throughput_enabled", [](const EngineOptions& o) { return o.timers.throughput.enabled; })
      .def_readonly("memory_breakdown", &EngineOptions::memory_breakdown)
      .def_readonly("tensorboard", &EngineOptions::tensorboard)
      .def_readonly("csv_monitor", &EngineOptions::csv_monitor)
      .def_readonly("wandb", &EngineOptions::wandb)
      .def_readonly("comet", &EngineOptions::comet)
      .def_property_readonly(
          "json_monitor", [](const EngineOptions& o) { return &o.hydrofoil.json_monitor; },
          py::return_value_policy::reference_internal)
      .def_readonly("dump_state", &EngineOptions::dump_state)
      .def_readonly("log_level", &EngineOptions::log_level)
      .def_readonly("dataloader_drop_last", &EngineOptions::dataloader_drop_last)
      .def_readonly("flops_profiler", &EngineOptions::flops_profiler)
      .def_readonly("optimizer", &EngineOptions::optimizer)
      .def_readonly("scheduler", &EngineOptions::scheduler)
      .def_property_readonly("zero_stage", [](const EngineOptions& o) { return o.zero.stage; })
      .def_property_readonly("gather_16bit_weights_on_model_save",
                             [](const EngineOptions& o) { return o.zero.gather_16bit_weights_on_model_save; })
      .def_property_readonly("fp16_enabled", [](const EngineOptions& o) { return o.fp16.enabled; })
      .def_property_readonly("fp16_auto_cast", [](const EngineOptions& o) { return o.fp16.auto_cast; })
      .def_property_readonly("bf16_enabled", [](const EngineOptions& o) { return o.bf16.enabled; })
      .def_property_readonly("model_dtype",
                             [](const EngineOptions& o) { return std::string(config::dtype_name(o.model_dtype())); })
      .def_property_readonly(
          "grad_accum_dtype",
          [](const EngineOptions& o) { return std::string(config::dtype_name(o.data_types.grad_accum_dtype)); })
      .def_property_readonly("autocast_enabled", [](const EngineOptions& o) { return o.torch_autocast.enabled; })
      .def_property_readonly("autocast_dtype",
                             [](const EngineOptions& o) -> std::optional<std::string> {
                               if (!o.torch_autocast.dtype) return std::nullopt;
                               return std::string(config::dtype_name(*o.torch_autocast.dtype));
                             })
      .def_property_readonly("unit_names", [](const EngineOptions& o) { return o.hydrofoil.unit_names; })
      .def_property_readonly(
          "leaf_module", [](const EngineOptions& o) { return &o.zero.leaf_module; },
          py::return_value_policy::reference_internal)
      .def_property_readonly("collective_timeout_s",
                             [](const EngineOptions& o) { return o.hydrofoil.collective_timeout_s; })
      .def_property_readonly("comm_backend",
                             [](const EngineOptions& o) { return engine::comm_backend_name(o.hydrofoil.backend); })
      .def("make_comm_log", [](const EngineOptions& o) { return engine::make_comm_log(o.comms_logger); });
  module.def(
      "resolve_config",
      [](const std::string& text_or_path, int world_size, bool cpu_device) {
        return engine::resolve_engine_options(text_or_path, {world_size, cpu_device}).options;
      },
      py::arg("text_or_path"), py::arg("world_size"), py::arg("cpu_device"), no_gil,
      "Resolves JSON text, the path of a file, or base64 of JSON text for `world_size` ranks. Raises ValueError.");
  module.def(
      "config_json",
      [](const std::string& text_or_path) { return config::to_json(config::load_config(text_or_path).root); },
      py::arg("text_or_path"), no_gil, "What resolve_config() reads, comments and all, as strict JSON text.");
  module.def(
      "explain_config",
      [](const std::string& text_or_path, int world_size, bool cpu_device) {
        return engine::explain_config(text_or_path, {world_size, cpu_device});
      },
      py::arg("text_or_path"), py::arg("world_size"), py::arg("cpu_device"), no_gil);
}

}  // namespace hydrofoil::python
