#include "apps/inspect_command.h"

#include <cerrno>
#include <ostream>
#include <vector>

#include "apps/launcher/command_line.h"
#include "apps/stored_tensors.h"
#include "hydrofoil/base/error.h"

namespace hydrofoil {
namespace {

constexpr const char* kName = "hydrofoil inspect";
constexpr const char* kFooter = R"(Examples:
  hydrofoil inspect model.safetensors
  hydrofoil inspect runs/first/checkpoint              the checkpoint that the file `latest` names
  hydrofoil inspect runs/first/checkpoint --tag step300
  hydrofoil inspect runs/first/checkpoint/step300 --json

Reads headers and manifests only: memory does not grow with the tensors. The file's whole header, or the manifest and the
sizes of its files, are checked; the tensors' checksums are not.

Exit codes: 0 done; 2 wrong use, or a file that is damaged or of another kind, with the reason; 126 a file cannot be read.
)";

}  // namespace

InspectArguments parse_inspect_arguments(std::span<const std::string> arguments) {
  InspectArguments result;
  launcher::CommandLine line(kName, "List names, dtypes, shapes and sizes of a safetensors file or a checkpoint.");
  line.add_positional("FILE", &result.path, "safetensors file, checkpoint, or directory that save_checkpoint wrote to");
  line.add_text("--tag", "TAG", &result.tag, "Which checkpoint of the directory (default: the latest)", "Options");
  line.add_flag("--json", &result.json, "Print JSON instead of a table", "Options");
  line.set_usage("hydrofoil inspect FILE [OPTIONS]");
  line.set_footer(kFooter);
  const std::vector<std::string> help = {"--help"};
  result.help = line.parse(arguments.empty() ? std::span<const std::string>(help) : arguments);
  return result;
}

void inspect(const InspectArguments& arguments, std::ostream& out) {
  const StoredTensors contents = read_stored_tensors(arguments.path, arguments.tag);
  errno = 0;
  (arguments.json ? print_json : print_table)(contents, out);
  out.flush();
  if (!out) throw_system_error(kName, "cannot write the output", errno == 0 ? EIO : errno);
}

}  // namespace hydrofoil
