#include <ATen/core/grad_mode.h>
#include <pybind11/stl.h>

#include "bindings.h"
#include "hydrofoil/base/error.h"
#include "hydrofoil/checkpoint/agreement.h"
#include "hydrofoil/engine/build_engine.h"

namespace hydrofoil::python {
namespace {

using engine::Counters;
using engine::Engine;
using zero::Unit;

at::Tensor owned_master(Unit& unit, size_t bucket) { return unit.buckets[bucket]->group().owned_master(); }
int num_states(Engine& e) { return static_cast<int>(optim::state_names(e.native_optimizer().value()).size()); }
std::vector<at::Tensor> defined_or_empty(const std::vector<std::optional<at::Tensor>>& tensors) {
  std::vector<at::Tensor> result;
  for (const auto& tensor : tensors) result.push_back(tensor.value_or(at::Tensor()));
  return result;
}
zero::Runtime::OwnedTensor owned_state(int state) {
  return [state](Unit& unit, size_t bucket) { return unit.optimizer_states[bucket].at(state); };
}

}  // namespace

void bind_engine(py::module_& module) {
  const auto no_gil = py::call_guard<py::gil_scoped_release>();
  py::class_<Counters>(module, "Counters")
      .def(py::init<>())
      .def_readwrite("micro_steps", &Counters::micro_steps)
      .def_readwrite("global_steps", &Counters::global_steps)
      .def_readwrite("global_samples", &Counters::global_samples)
      .def_readwrite("skipped_steps", &Counters::skipped_steps)
      .def_readwrite("optimizer_steps", &Counters::optimizer_steps);
  py::class_<engine::StepResult>(module, "StepResult")
      .def_readonly("boundary", &engine::StepResult::boundary)
      .def_readonly("applied", &engine::StepResult::applied)
      .def_readonly("overflow", &engine::StepResult::overflow)
      .def_readonly("grad_norm", &engine::StepResult::grad_norm);
  py::class_<Engine, EnginePointer>(module, "Engine", py::dynamic_attr())
      .def(py::init([](const engine::EngineOptions& options, std::vector<zero::RuntimeParameter> parameters,
                       std::vector<zero::ModuleNode> modules, const comm::Group& gather_group,
                       const comm::Group& reduce_group, std::optional<optim::OptimizerKind> optimizer,
                       const std::string& optimizer_text, bool training) {
             auto engine =
                 engine::build_engine(options, {std::move(parameters), std::move(modules), gather_group, reduce_group,
                                                optimizer, optimizer_text, training, &throw_python_error});
             return EnginePointer(engine.release(), DeleteWithoutGil());
           }),
           py::arg("options"), py::arg("parameters"), py::arg("modules"), py::arg("gather_group"),
           py::arg("reduce_group"), py::arg("optimizer"), py::arg("optimizer_text"), py::arg("training"), no_gil)
      .def_property_readonly("scopes", [](Engine& e) { return e.runtime().scopes(); })
      .def_property_readonly("zero_stage", [](Engine& e) { return e.options().zero.stage; })
      .def_property_readonly("shards_parameters", [](Engine& e) { return e.runtime().sharding().parameters; })
      .def_property_readonly("watches_all_scopes", [](Engine& e) { return e.runtime().watches_all_scopes(); })
      .def_property_readonly("comm_log", &Engine::comm_log)
      .def(
          "comm_log_with_stragglers",
          [](Engine& e) {
            e.runtime().require_alive("log_summary");
            return e.comm_log()->rows_with_stragglers(e.runtime().gather_group());
          },
          no_gil)
      .def_property_readonly("native_optimizer", &Engine::native_optimizer)
      .def_property_readonly("alive", [](Engine& e) { return e.runtime().alive(); })
      .def_property_readonly("counters", [](Engine& e) { return e.counters(); })
      // Parameters carry their engine: a pickled one has none.
      .def("__reduce__",
           [](const Engine& /*self*/) {
             return py::make_tuple(py::module_::import("operator").attr("itemgetter")(0),
                                   py::make_tuple(py::make_tuple(py::none())));
           })
      .def("load_counters", &Engine::load_counters)
      .def("begin_backward", &Engine::begin_backward, py::arg("scale_wrt_gas"))
      .def("scale_loss", &Engine::scale_loss, py::arg("loss"), py::arg("scale_wrt_gas"))
      .def("is_boundary", &Engine::is_boundary)
      .def("set_batch_sizes", &Engine::set_batch_sizes, py::arg("micro_batch_size"), py::arg("accumulation_steps"))
      .def_property_readonly("batch_sizes",
                             [](Engine& e) {
                               const auto& options = e.options();
                               return py::make_tuple(options.train_batch_size, options.train_micro_batch_size_per_gpu,
                                                     options.gradient_accumulation_steps);
                             })
      .def(
          "release_retained", [](Engine& e) { e.runtime().release_retained(); }, no_gil)
      .def("set_boundary", &Engine::set_boundary, py::arg("is_boundary"))
      .def("set_no_sync", &Engine::set_no_sync, py::arg("no_sync"))
      .def("begin_step", &Engine::begin_step, no_gil)
      .def(
          "update_native",
          [](Engine& e, const std::vector<optim::Hyperparameters>& groups) { e.update_native(groups); }, no_gil)
      .def("begin_client_update", &Engine::begin_client_update, no_gil)
      .def("client_shards", [](Engine& e) { return zero::client_shards(e.runtime()); })
      .def("owned_tensors",
           [](Engine& e) {
             std::vector<std::vector<at::Tensor>> all;
             for (const auto& unit : e.runtime().units()) {
               for (size_t b = 0; b < unit->buckets.size(); ++b) {
                 all.push_back({unit->buckets[b]->group().owned_master()});
                 all.back().insert(all.back().end(), unit->optimizer_states[b].begin(),
                                   unit->optimizer_states[b].end());
               }
             }
             return all;
           })
      .def(
          "publish_masters",
          [](Engine& e) {
            const at::NoGradGuard no_grad;
            e.runtime().synchronize_parameters();
            zero::apply_masters(e.runtime());
            e.runtime().publish_parameters();
          },
          no_gil)
      .def(
          "allocate_states", [](Engine& e) { e.runtime().allocate_optimizer_states(num_states(e)); }, no_gil)
      .def("finish_step", &Engine::finish_step, no_gil)
      .def("zero_grad", &Engine::zero_grad, no_gil)
      .def_property_readonly("grad_norm", &Engine::grad_norm)
      .def_property_readonly("overflow", &Engine::overflow)
      .def_property_readonly("overflow_report", &Engine::overflow_report)
      .def_property(
          "loss_scale", [](Engine& e) { return e.loss_scaler().scale(); }, &Engine::set_loss_scale)
      .def_property_readonly("loss_scaler",
                             [](Engine& e) {
                               const auto& state = e.loss_scaler().state();
                               return std::map<std::string, int64_t>{
                                   {"iteration", state.iteration},
                                   {"last_overflow_iteration", state.last_overflow_iteration},
                                   {"hysteresis_left", state.hysteresis_left}};
                             })
      .def(
          "load_loss_scaler",
          [](Engine& e, double scale, int64_t iteration, int64_t last_overflow_iteration, int64_t hysteresis_left) {
            e.load_loss_scaler({scale, iteration, last_overflow_iteration, hysteresis_left});
          },
          py::arg("scale"), py::arg("iteration"), py::arg("last_overflow_iteration"), py::arg("hysteresis_left"))
      .def_property(
          "missed_steps", [](Engine& e) { return e.runtime().missed_steps(); },
          [](Engine& e, std::vector<int64_t> counts) { e.runtime().set_missed_steps(std::move(counts)); })
      .def_property_readonly("dynamic_loss_scale", [](Engine& e) { return e.loss_scaler().is_dynamic(); })
      .def("begin_phase", &Engine::begin_phase, py::arg("phase"), no_gil)
      .def("end_phase", &Engine::end_phase, py::arg("phase"), no_gil)
      .def("begin_micro_step", [](Engine& e) { e.report().begin_micro_step(); })
      .def_property_readonly(
          "report", [](Engine& e) { return &e.report(); }, py::return_value_policy::reference_internal)
      .def("memory_report", [](Engine& e) { return e.runtime().memory(); })
      .def(
          "refresh_masters", [](Engine& e) { e.runtime().refresh_masters(); }, no_gil)
      .def("find_parameter", [](Engine& e, const at::Tensor& parameter) { return e.runtime().find(parameter); })
      .def(
          "enter_access",
          [](Engine& e, const std::vector<int64_t>& parameters) { return e.runtime().enter_access(parameters); },
          no_gil)
      .def(
          "leave_access",
          [](Engine& e, const std::vector<int64_t>& parameters, const std::vector<int64_t>& versions,
             std::optional<int> modifier_rank) { e.runtime().leave_access(parameters, versions, modifier_rank); },
          no_gil)
      .def("has_master", [](Engine& e, int64_t parameter) { return e.runtime().has_master(parameter); })
      .def(
          "full_master", [](Engine& e, int64_t parameter) { return e.runtime().assemble(parameter, owned_master); },
          no_gil)
      .def(
          "full_gradient",
          [](Engine& e, int64_t parameter) {
            auto gradient = e.runtime().reduced_gradient(parameter);
            if (gradient) gradient->div_(e.loss_scaler().scale());
            return gradient;
          },
          no_gil)
      .def(
          "full_state",
          [](Engine& e, int64_t parameter, int state) {
            e.runtime().allocate_optimizer_states(num_states(e));
            return e.runtime().assemble(parameter, owned_state(state));
          },
          no_gil)
      .def(
          "set_full_master",
          [](Engine& e, int64_t parameter, const at::Tensor& value) { e.runtime().set_master(parameter, value); },
          no_gil)
      .def(
          "set_full_gradient",
          [](Engine& e, int64_t parameter, const at::Tensor& value) {
            e.runtime().set_reduced_gradient(parameter, value.mul(e.loss_scaler().scale()));
          },
          no_gil)
      .def(
          "set_full_state",
          [](Engine& e, int64_t parameter, int state, const at::Tensor& value) {
            e.runtime().allocate_optimizer_states(num_states(e));
            e.runtime().scatter(parameter, owned_state(state), value);
          },
          no_gil)
      .def("local_parameter", [](Engine& e, int64_t parameter) { return e.runtime().local_parameter(parameter); })
      .def("parameter_state",
           [](Engine& e, int64_t parameter) {
             switch (e.runtime().state_of(parameter)) {
               case zero::FlatGroup::State::kReleased:
                 return "NOT_AVAILABLE";
               case zero::FlatGroup::State::kGathering:
                 return "INFLIGHT";
               case zero::FlatGroup::State::kGathered:
                 break;
             }
             return "AVAILABLE";
           })
      .def("local_master",
           [](Engine& e, int64_t parameter) { return e.runtime().local(parameter, owned_master).clone(); })
      .def("local_gradient",
           [](Engine& e, int64_t parameter) -> std::optional<at::Tensor> {
             const at::Tensor gradient = e.runtime().local_reduced_gradient(parameter);
             if (!gradient.defined()) return std::nullopt;
             return gradient.to(at::kFloat, /*non_blocking=*/false, /*copy=*/true).div_(e.loss_scaler().scale());
           })
      .def("local_state",
           [](Engine& e, int64_t parameter, int state) {
             e.runtime().allocate_optimizer_states(num_states(e));
             return e.runtime().local(parameter, owned_state(state)).to(at::kFloat, false, /*copy=*/true);
           })
      .def(
          "set_local_master",
          [](Engine& e, int64_t parameter, const at::Tensor& value) { e.runtime().set_local_master(parameter, value); },
          no_gil)
      .def("set_local_gradient",
           [](Engine& e, int64_t parameter, const at::Tensor& value) {
             const at::NoGradGuard no_grad;
             at::Tensor gradient = e.runtime().local_reduced_gradient(parameter);
             HYDROFOIL_CHECK_ARG(gradient.defined(), "safe_set_local_grad", "no reduced gradient to replace; call it ",
                                 "between the backward of an accumulation boundary and step");
             gradient.copy_(value.reshape({-1}).mul(e.loss_scaler().scale()));
           })
      .def("set_local_state",
           [](Engine& e, int64_t parameter, int state, const at::Tensor& value) {
             const at::NoGradGuard no_grad;
             e.runtime().allocate_optimizer_states(num_states(e));
             e.runtime().local(parameter, owned_state(state)).copy_(value.reshape({-1}));
           })
      .def(
          "agree",
          [](Engine& e, const std::string& what, const std::string& problem) {
            checkpoint::agree(e.runtime().gather_group(),
                              problem.empty() ? nullptr : std::make_exception_ptr(InvalidArgument(problem)), what);
          },
          no_gil)
      .def(
          "full_client_state",
          [](Engine& e, int64_t parameter, const std::vector<std::optional<at::Tensor>>& pieces) {
            return e.runtime().assemble(parameter, zero::client_state(e.runtime(), defined_or_empty(pieces)));
          },
          no_gil)
      .def(
          "set_full_client_state",
          [](Engine& e, int64_t parameter, const std::vector<std::optional<at::Tensor>>& pieces,
             const at::Tensor& value) {
            zero::set_client_state(e.runtime(), parameter, defined_or_empty(pieces), value);
          },
          no_gil)
      .def(
          "destroy",
          [](Engine& e, bool gather) {
            auto shards = e.destroy(gather);
            for (auto& shard : shards) {
              // The last one ends a channel's thread.
              if (shard != nullptr)
                shard.reset(shard.get(), [held = shard](auto*) mutable { reset_without_gil(held); });
            }
            return shards;
          },
          py::arg("gather"), no_gil)
      .def("boundary", [](EnginePointer e, int scope,
                          py::object forward) { return make_boundary(std::move(e), scope, std::move(forward)); })
      .def("parameter_dict",
           [](EnginePointer e, const py::dict& parameters) { return make_parameter_dict(std::move(e), parameters); });
}

}  // namespace hydrofoil::python
