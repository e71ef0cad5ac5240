#include "apps/doctor_command.h"

#include <cerrno>
#include <ostream>

#include "apps/doctor/judge.h"
#include "apps/doctor/report.h"
#include "apps/launcher/command_line.h"
#include "apps/launcher/rank_environment.h"
#include "hydrofoil/base/error.h"

namespace hydrofoil {
namespace {

constexpr const char* kName = "hydrofoil doctor";
constexpr const char* kAbout = "Examine what training needs on this machine, and say what to do about each problem.";
constexpr const char* kFooter = R"(Examples:
  hydrofoil doctor
  hydrofoil doctor --json
  HYDROFOIL_PYTHON=/opt/env/bin/python hydrofoil doctor       another Python than the one beside this program

Limits of a container or a batch job are seen only inside it: call it there. A warning costs speed; with a problem,
training does not work. Nothing is changed.

Exit codes: 0 no problem; 1 a problem; 2 wrong use; 126 the system refused something.
)";

}  // namespace

DoctorArguments parse_doctor_arguments(std::span<const std::string> arguments) {
  DoctorArguments result;
  launcher::CommandLine line(kName, kAbout);
  line.add_flag("--json", &result.json, "Print JSON instead of text", "Options");
  line.add_flag("--hide-problems", &result.hide_problems,
                "Leave out the lines of warnings and problems; they are counted all the same", "Options");
  line.set_usage("hydrofoil doctor [--json] [--hide-problems]");
  line.set_footer(kFooter);
  result.help = line.parse(arguments);
  return result;
}

int doctor_command(const DoctorArguments& arguments, const std::vector<std::string>& program_paths, std::ostream& out) {
  const doctor::Program program{.version = HYDROFOIL_VERSION,
                                .torch_version = HYDROFOIL_TORCH_VERSION,
                                .path = program_paths.empty() ? "" : program_paths.front()};
  const doctor::HostFacts host = doctor::examine_host();
  const doctor::PythonFacts python = doctor::examine_python(launcher::find_python(program_paths));
  std::vector<doctor::Finding> findings = doctor::judge_python(program, python, host);
  const std::vector<doctor::Finding> of_host = doctor::judge_host(host);
  findings.insert(findings.end(), of_host.begin(), of_host.end());
  errno = 0;
  const doctor::Report report{findings, host.settings, arguments.hide_problems};
  (arguments.json ? doctor::print_report_json : doctor::print_report)(report, out);
  out.flush();
  if (!out) throw_system_error(kName, "cannot write the output", errno == 0 ? EIO : errno);
  return doctor::count_of(findings, doctor::Level::kProblem) == 0 ? 0 : kExitProblem;
}

}  // namespace hydrofoil
