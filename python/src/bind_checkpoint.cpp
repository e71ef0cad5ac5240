#include <pybind11/stl.h>

#include "bindings.h"
#include "hydrofoil/checkpoint/tags.h"
#include "hydrofoil/engine/engine_checkpoint.h"

namespace hydrofoil::python {

void bind_checkpoint(py::module_& module) {
  using checkpoint::LoadedCheckpoint;
  using engine::SaveRequest;
  const auto no_gil = py::call_guard<py::gil_scoped_release>();
  py::class_<SaveRequest>(module, "SaveRequest")
      .def(py::init<>())
      .def_readwrite("directory", &SaveRequest::directory)
      .def_readwrite("tag", &SaveRequest::tag)
      .def_readwrite("save_latest", &SaveRequest::save_latest)
      .def_readwrite("exclude_frozen", &SaveRequest::exclude_frozen)
      .def_readwrite("states", &SaveRequest::states)
      .def_readwrite("client_state", &SaveRequest::client_state)
      .def_readwrite("client_optimizer", &SaveRequest::client_optimizer)
      .def("add_extra", [](SaveRequest& request, std::string name, std::string kind, at::Tensor value) {
        request.extras.push_back({std::move(name), std::move(kind), std::move(value)});
      });
  py::class_<LoadedCheckpoint>(module, "LoadedCheckpoint")
      .def_property_readonly("directory", &LoadedCheckpoint::directory)
      .def_property_readonly("world_size", [](const LoadedCheckpoint& saved) { return saved.manifest().world_size; })
      .def_property_readonly("states", [](const LoadedCheckpoint& saved) { return saved.scalars().states; })
      .def_property_readonly("client_state", [](const LoadedCheckpoint& saved) { return saved.scalars().client_state; })
      .def("kinds",
           [](const LoadedCheckpoint& saved, const std::string& name) {
             std::vector<std::string> kinds;
             for (const auto& tensor : saved.manifest().tensors) {
               if (tensor.parameter == name) kinds.push_back(tensor.kind);
             }
             return kinds;
           })
      .def(
          "read_extra",
          [](LoadedCheckpoint& saved, const std::string& name, const std::string& kind) {
            return engine::read_extra(saved, name, kind);
          },
          no_gil);
  module.def(
      "open_checkpoint",
      [](const EnginePointer& e, const std::string& directory, const std::optional<std::string>& tag) {
        return engine::open_checkpoint(*e, directory, tag);
      },
      py::arg("engine"), py::arg("directory"), py::arg("tag"), no_gil);
  module.def(
      "agree",
      [](const EnginePointer& e, const std::optional<std::string>& own_error, const std::string& what) {
        engine::agree(*e, own_error, what);
      },
      py::arg("engine"), py::arg("own_error"), py::arg("what"), no_gil);
  module.def(
      "save_engine", [](const EnginePointer& e, const SaveRequest& request) { engine::save_engine(*e, request); },
      no_gil);
  module.def(
      "save_model",
      [](const EnginePointer& e, const std::string& path, const SaveRequest& buffers) {
        engine::save_model(*e, path, buffers.extras, buffers.exclude_frozen);
      },
      py::arg("engine"), py::arg("path"), py::arg("buffers"), no_gil);
  module.def(
      "load_engine",
      [](const EnginePointer& e, LoadedCheckpoint& saved, bool strict, bool load_optimizer_states,
         const std::string& client_optimizer) {
        engine::load_engine(*e, saved, strict, load_optimizer_states, client_optimizer);
      },
      no_gil);
}

}  // namespace hydrofoil::python
