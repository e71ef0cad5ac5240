#include <pybind11/stl.h>

#include "bindings.h"
#include "hydrofoil/engine/plan_settings.h"
#include "hydrofoil/plan/advise.h"
#include "hydrofoil/plan/byte_size.h"
#include "hydrofoil/plan/page.h"
#include "hydrofoil/plan/report.h"

namespace hydrofoil::python {
namespace {

using plan::Plan;

// (name, numel, dtype, trainable) a parameter.
using Parameter = std::tuple<std::string, int64_t, std::string, bool>;

plan::ModelSpec make_spec(std::vector<zero::ModuleNode> modules, const std::vector<Parameter>& parameters,
                          std::vector<plan::ModuleCost> costs) {
  plan::ModelSpec spec;
  spec.modules = std::move(modules);
  for (const auto& [name, numel, dtype, trainable] : parameters) {
    spec.parameters.push_back({name, numel, plan::parse_dtype(dtype), trainable});
  }
  spec.costs = std::move(costs);
  return spec;
}

std::optional<std::string> misfit(const plan::ModelSpec& spec, const Plan& made, const plan::Roofs& roofs,
                                  int64_t memory_bytes) {
  if (made.peak.bytes <= memory_bytes) return std::nullopt;
  plan::Question question;
  question.spec = [&](const plan::BatchShape&) { return spec; };
  question.has_costs = false;  // they are of one batch
  question.settings = made.settings;
  question.roofs = roofs;
  question.memory_bytes = memory_bytes;
  return plan::explain_misfit(question, made);
}

}  // namespace

void bind_plan(py::module_& module) {
  py::class_<plan::ComputeWork>(module, "ComputeWork")
      .def(py::init<>())
      .def_readwrite("product_flops", &plan::ComputeWork::product_flops)
      .def_readwrite("attention_flops", &plan::ComputeWork::attention_flops)
      .def_readwrite("traffic_bytes", &plan::ComputeWork::traffic_bytes)
      .def_readwrite("num_calls", &plan::ComputeWork::num_calls);
  py::class_<plan::ModuleCost>(module, "ModuleCost")
      .def(py::init<>())
      .def_readwrite("saved_bytes", &plan::ModuleCost::saved_bytes)
      .def_readwrite("forward_workspace_bytes", &plan::ModuleCost::forward_workspace_bytes)
      .def_readwrite("backward_workspace_bytes", &plan::ModuleCost::backward_workspace_bytes)
      .def_readwrite("left_by_backward_bytes", &plan::ModuleCost::left_by_backward_bytes)
      .def_readwrite("forward", &plan::ModuleCost::forward)
      .def_readwrite("backward", &plan::ModuleCost::backward);
  py::class_<plan::Roofs>(module, "Roofs")
      .def(py::init<>())
      .def_readwrite("fp32_flops", &plan::Roofs::fp32_flops)
      .def_readwrite("bf16_flops", &plan::Roofs::bf16_flops)
      .def_readwrite("fp32_attention_flops", &plan::Roofs::fp32_attention_flops)
      .def_readwrite("bf16_attention_flops", &plan::Roofs::bf16_attention_flops)
      .def_readwrite("memory_bytes_per_s", &plan::Roofs::memory_bytes_per_s)
      .def_readwrite("fp32_operator_bytes_per_s", &plan::Roofs::fp32_operator_bytes_per_s)
      .def_readwrite("bf16_operator_bytes_per_s", &plan::Roofs::bf16_operator_bytes_per_s)
      .def_readwrite("call_s", &plan::Roofs::call_s)
      .def_readwrite("host_latency_s", &plan::Roofs::host_latency_s)
      .def_readwrite("host_bytes_per_s", &plan::Roofs::host_bytes_per_s)
      .def_readwrite("network_latency_s", &plan::Roofs::network_latency_s)
      .def_readwrite("network_bytes_per_s", &plan::Roofs::network_bytes_per_s)
      .def_readwrite("overlaps", &plan::Roofs::overlaps);
  py::class_<Plan>(module, "Plan", "What one rank keeps, does and takes at a steady optimizer step.")
      .def_readonly("num_parameters", &Plan::num_parameters)
      .def_readonly("num_trainable", &Plan::num_trainable)
      .def_property_readonly("parameter_bytes", [](const Plan& p) { return p.states.parameters; })
      .def_property_readonly("gradient_bytes", [](const Plan& p) { return p.states.gradients; })
      .def_property_readonly("master_bytes", [](const Plan& p) { return p.states.masters; })
      .def_property_readonly("optimizer_state_bytes", [](const Plan& p) { return p.states.optimizer_states; })
      .def_property_readonly("state_bytes", [](const Plan& p) { return p.states.total(); })
      .def_readonly("peak_slot_bytes", &Plan::peak_slot_bytes)
      .def_readonly("peak_activation_bytes", &Plan::peak_activation_bytes)
      .def_readonly("largest_unit_bytes", &Plan::largest_unit_bytes)
      .def_property_readonly("peak_bytes", [](const Plan& p) { return p.peak.bytes; })
      .def_property_readonly("peak_phase", [](const Plan& p) { return plan::phase_name(p.peak.phase); })
      .def_property_readonly("peak_where", [](const Plan& p) { return p.peak.where; })
      .def_readonly("step_seconds", &Plan::step_seconds)
      .def(
          "to_html", [](const Plan& p, std::optional<int64_t> memory_bytes) { return plan::to_html(p, memory_bytes); },
          py::arg("memory_bytes") = py::none())
      .def(
          "to_json", [](const Plan& p, bool with_timeline) { return plan::to_json(p, with_timeline); },
          py::arg("with_timeline") = false)
      .def("__str__", [](const Plan& p) { return plan::to_text(p); });
  module.def(
      "make_plan",
      [](const engine::EngineOptions& options, int world_size, int num_nodes, bool cpu_device, bool training,
         std::vector<zero::ModuleNode> modules, const std::vector<Parameter>& parameters,
         std::vector<plan::ModuleCost> costs, const plan::Roofs& roofs, std::optional<int64_t> memory_bytes) {
        const plan::ModelSpec spec = make_spec(std::move(modules), parameters, std::move(costs));
        plan::Settings settings = engine::plan_settings(options, {world_size, cpu_device});
        settings.num_nodes = num_nodes;
        const auto backend = options.hydrofoil.backend;
        const bool shm = backend == engine::CommBackend::kAuto || backend == engine::CommBackend::kShm;
        if (cpu_device && num_nodes == 1 && shm) engine::assume_one_host(options, settings);
        settings.training = training;
        Plan made = memory_bytes && !options.hydrofoil.keep_gathered_bytes
                        ? plan::make_plan_within(spec, settings, roofs, *memory_bytes)
                        : plan::make_plan(spec, settings, roofs);
        std::optional<std::string> why_not;
        if (memory_bytes) why_not = misfit(spec, made, roofs, *memory_bytes);
        return std::make_pair(std::move(made), std::move(why_not));
      },
      py::arg("options"), py::arg("world_size"), py::arg("num_nodes"), py::arg("cpu_device"), py::arg("training"),
      py::arg("modules"), py::arg("parameters"), py::arg("costs"), py::arg("roofs"), py::arg("memory_bytes"),
      "The plan, and why it does not fit in the memory (None where it does).");
  module.def(
      "parse_byte_size",
      [](const std::string& what, const std::string& text) { return plan::parse_byte_size(what, text); },
      py::arg("what"), py::arg("text"));
}

}  // namespace hydrofoil::python
