#include <pybind11/chrono.h>
#include <pybind11/functional.h>
#include <pybind11/stl.h>

#include <torch/csrc/distributed/c10d/Store.hpp>

#include "bindings.h"
#include "hydrofoil/comm/comm_log.h"
#include "hydrofoil/comm/connect.h"
#include "hydrofoil/comm/local/local_group.h"

namespace hydrofoil::python {

void bind_comm(py::module_& module) {
  using comm::Group;
  py::enum_<comm::ReduceOp>(module, "ReduceOp")
      .value("SUM", comm::ReduceOp::kSum)
      .value("AVG", comm::ReduceOp::kAvg)
      .value("MAX", comm::ReduceOp::kMax);
  py::class_<comm::Work>(module, "Work")
      .def("wait", &comm::Work::wait, py::call_guard<py::gil_scoped_release>())
      .def("done", &comm::Work::done);
  py::class_<comm::OpInfo>(module, "OpInfo")
      .def(py::init([](std::string unit, uint64_t signature) {
             return comm::OpInfo{std::move(unit), signature};
           }),
           py::arg("unit") = "", py::arg("signature") = 0);
  const auto no_gil = py::call_guard<py::gil_scoped_release>();
  const auto info = py::arg("info") = comm::OpInfo{};
  py::class_<Group, std::unique_ptr<Group, DeleteWithoutGil>>(module, "Group")
      .def_property_readonly("rank", &Group::rank)
      .def_property_readonly("size", &Group::size)
      .def_property_readonly("name", &Group::name)
      .def_property_readonly("backend_name", &Group::backend_name)
      .def("all_reduce", &Group::all_reduce, py::arg("buffer"), py::arg("op"), info, no_gil)
      .def("reduce_scatter", &Group::reduce_scatter, py::arg("input"), py::arg("output"), py::arg("op"), info, no_gil)
      .def("all_gather", &Group::all_gather, py::arg("input"), py::arg("output"), info, no_gil)
      .def("broadcast", &Group::broadcast, py::arg("buffer"), py::arg("root"), info, no_gil)
      .def("all_to_all", &Group::all_to_all, py::arg("input"), py::arg("output"), info, no_gil)
      .def("send", &Group::send, py::arg("buffer"), py::arg("peer"), info, no_gil)
      .def("recv", &Group::recv, py::arg("buffer"), py::arg("peer"), info, no_gil)
      .def("barrier", &Group::barrier, info, no_gil);
  using comm::CommLogRow;
  py::class_<CommLogRow>(module, "CommLogRow", "What was counted of one operation with one message size.")
      .def_readonly("op", &CommLogRow::op)
      .def_readonly("unit", &CommLogRow::unit)
      .def_readonly("message_bytes", &CommLogRow::message_bytes)
      .def_readonly("group_size", &CommLogRow::group_size)
      .def_readonly("count", &CommLogRow::count)
      .def_readonly("total_s", &CommLogRow::total_s)
      .def_property_readonly("average_s", &CommLogRow::average_s)
      .def_property_readonly("algorithm_bytes_per_s", &CommLogRow::algorithm_bytes_per_s)
      .def_property_readonly("bus_bytes_per_s", &CommLogRow::bus_bytes_per_s)
      .def_readonly("waited_s", &CommLogRow::waited_s);
  using comm::CommLog;
  py::class_<CommLog, std::shared_ptr<CommLog>>(module, "CommLog")
      .def_property_readonly("by_unit", [](const CommLog& log) { return log.options().by_unit; })
      .def("counts", &CommLog::counts, py::arg("op"))
      .def("count", &CommLog::count, py::arg("op"), py::arg("unit"), py::arg("message_bytes"), py::arg("group_size"),
           py::arg("seconds"), no_gil)
      .def("rows", &CommLog::rows, no_gil)
      .def("clear", &CommLog::clear, no_gil);
  module.def("comm_log_text", &comm::to_text, py::arg("rows"));
  module.def(
      "connect",
      [](int rank, int size, const c10::intrusive_ptr<c10d::Store>& store,
         std::function<std::vector<std::string>()> make_process_groups, std::string backend, double timeout_s,
         const std::string& device) {
        comm::ConnectOptions options;
        options.rank = rank;
        options.size = size;
        options.store = store;
        options.make_process_groups = std::move(make_process_groups);
        options.backend = std::move(backend);
        options.device = c10::Device(device).type();
        options.group.timeout = std::chrono::milliseconds(static_cast<int64_t>(timeout_s * 1000));
        return comm::connect(options);
      },
      py::arg("rank"), py::arg("size"), py::arg("store"), py::arg("make_process_groups"), py::arg("backend"),
      py::arg("timeout_s"), py::arg("device") = "cpu", no_gil,
      "Two channels over the ranks: shared memory where all ranks share a host and the device is the CPU, else the "
      "c10d process groups that the "
      "callable makes.");
  module.def(
      "single_rank_groups",
      [] {
        return std::vector<Group>{comm::make_local_groups(1)[0], comm::make_local_groups(1)[0]};
      },
      "The channels of a world of one rank.");
}

}  // namespace hydrofoil::python
