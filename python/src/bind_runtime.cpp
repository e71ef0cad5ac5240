#include <pybind11/stl.h>

#include "bindings.h"
#include "hydrofoil/memory/process_memory.h"
#include "hydrofoil/zero/initial_shard.h"

namespace hydrofoil::python {

void bind_runtime(py::module_& module) {
  using zero::ModuleNode;
  using zero::RuntimeParameter;
  const auto no_gil = py::call_guard<py::gil_scoped_release>();
  py::class_<ModuleNode>(module, "ModuleNode")
      .def(py::init([](std::string path, std::string type_name, int parent, bool is_list, bool keep_whole,
                       std::vector<int64_t> parameters) {
             return ModuleNode{std::move(path), std::move(type_name), parent,
                               is_list,         keep_whole,           std::move(parameters)};
           }),
           py::arg("path"), py::arg("type_name"), py::arg("parent"), py::arg("is_list"), py::arg("keep_whole"),
           py::arg("parameters"));
  py::class_<zero::InitialShard, std::shared_ptr<zero::InitialShard>>(module, "InitialShard",
                                                                      "A parameter that zero.Init has sharded.")
      .def(py::init<const at::Tensor&, std::string, const comm::Group&, std::optional<at::ScalarType>>(),
           py::arg("parameter"), py::arg("name"), py::arg("group"), py::arg("dtype"), no_gil)
      .def_property_readonly("gathered", &zero::InitialShard::gathered)
      .def("local", &zero::InitialShard::local)
      .def("gather", &zero::InitialShard::gather, no_gil)
      .def("release", &zero::InitialShard::release, py::arg("modifier_rank"), no_gil);
  py::class_<RuntimeParameter>(module, "RuntimeParameter")
      .def(py::init([](std::string name, at::Tensor parameter, int group, std::shared_ptr<zero::InitialShard> shard) {
             return RuntimeParameter{std::move(name), std::move(parameter), group, std::move(shard)};
           }),
           py::arg("name"), py::arg("parameter"), py::arg("optimizer_group"), py::arg("initial_shard"));
  py::class_<zero::ScopePlan>(module, "ScopePlan")
      .def_readonly("module", &zero::ScopePlan::module)
      .def_readonly("units", &zero::ScopePlan::units);
  py::class_<zero::MemoryReport>(module, "MemoryReport")
      .def_readonly("parameter_bytes", &zero::MemoryReport::parameter_bytes)
      .def_readonly("gradient_bytes", &zero::MemoryReport::gradient_bytes)
      .def_readonly("master_bytes", &zero::MemoryReport::master_bytes)
      .def_readonly("optimizer_state_bytes", &zero::MemoryReport::optimizer_state_bytes)
      .def_readonly("slot_bytes", &zero::MemoryReport::slot_bytes)
      .def_readonly("peak_slot_bytes", &zero::MemoryReport::peak_slot_bytes)
      .def_readonly("largest_unit_bytes", &zero::MemoryReport::largest_unit_bytes)
      .def_readonly("host_tensor_bytes", &zero::MemoryReport::host_tensor_bytes);
  py::class_<zero::ClientShard>(module, "ClientShard")
      .def_readonly("group", &zero::ClientShard::group)
      .def_readonly("value", &zero::ClientShard::value)
      .def_readonly("gradient", &zero::ClientShard::gradient)
      .def_readonly("parameter", &zero::ClientShard::parameter);
  py::class_<memory::ProcessMemory>(module, "ProcessMemory")
      .def_readonly("pss_bytes", &memory::ProcessMemory::pss_bytes)
      .def_readonly("rss_bytes", &memory::ProcessMemory::rss_bytes)
      .def_readonly("peak_rss_bytes", &memory::ProcessMemory::peak_rss_bytes);
  module.def("trim_heap", &memory::trim_heap, no_gil);
  module.def("process_memory", &memory::process_memory, no_gil);
  module.def("resident_memory", &memory::resident_memory, no_gil);
}

}  // namespace hydrofoil::python
