#include "apps/launcher/run_options.h"

#include <algorithm>
#include <array>
#include <charconv>
#include <cmath>

#include "apps/launcher/command_line.h"
#include "hydrofoil/base/error.h"
#include "hydrofoil/base/nearest.h"

namespace hydrofoil::launcher {
namespace {

constexpr const char* kName = "hydrofoil run";
constexpr int64_t kMaxRanks = 4096;

constexpr const char* kFooter = R"(Examples:
  hydrofoil run --nproc 2 train.py --epochs 3
  hydrofoil run --num_gpus=2 train.py --deepspeed_config ds_config.json
  hydrofoil run --nproc 4 --bind-cores --log-dir logs -m package.train
  hydrofoil run --nproc 2 --no-python ./program --flag

Everything behind SCRIPT goes to the script as it is, --help and flags named as ours too.

Each rank gets RANK, LOCAL_RANK, WORLD_SIZE, LOCAL_WORLD_SIZE, LOCAL_SIZE, CROSS_RANK, CROSS_SIZE, NODE_RANK, GROUP_RANK,
MASTER_ADDR, MASTER_PORT, PYTHONUNBUFFERED=1 and, where it is not set, OMP_NUM_THREADS = cores / ranks. Standard input goes
to rank 0, unless it is a terminal. Python is $HYDROFOIL_PYTHON, else the python3 beside this program, else the first in
PATH. Rank 0 finds the terminal's width in HYDROFOIL_TERMINAL where standard output is one.

DeepSpeed's spellings (with underscores) do what they do there. A start that uses one of them also passes --local_rank=N to a
Python script, in front of its own arguments, unless --no_local_rank is given; other starts set the environment only.

Output: `auto` passes rank 0 on as it is and puts "[rank N] " before the lines of the others; `prefix` does so for all; `raw`
for none; `collect` passes rank 0 on and prints the others in rank order at the end. In prefixed lines, text that a carriage
return overwrites is left out, and lines over 1 MiB are split.

When a rank fails, the others get SIGTERM, SIGKILL after the grace, and the last lines of the failed rank are printed. SIGINT
and SIGTERM go to the ranks; a second one kills them. Processes that ranks leave behind are ended too.

Exit codes:
  0        every rank ended with 0
  2        wrong use: unknown flag, bad value
  126      the program could not be started, or the system refused something else
  130, 143 ended by SIGINT, SIGTERM (128 + the signal's number)
  other    that of the first rank that failed; 128 + the signal's number where a signal ended it)";

// Flags as typed, before they are checked against each other.
struct Typed {
  std::optional<int64_t> nproc, num_gpus, num_nodes, node_rank, min_elastic_nodes, max_elastic_nodes, master_port;
  std::optional<std::string> master_addr, core_list, log_dir, output, grace_seconds;
  std::optional<std::string> hostfile, include, exclude, save_pid, autotuning, venv_script, ignored;
  bool bind_cores = false, no_python = false, module = false, no_local_rank = false, quiet = false, unused = false;
  bool force_multi = false, elastic_training = false;
};

void declare(CommandLine& line, Typed& typed) {
  const std::string own = "Options";
  line.add_integer("-n,--nproc", "N", &typed.nproc, "Ranks to start (default: number of GPUs, 1 where there is none)",
                   own);
  line.add_text("--master-addr", "ADDR", &typed.master_addr, "MASTER_ADDR (default: 127.0.0.1)", own);
  line.add_integer("--master-port", "PORT", &typed.master_port, "MASTER_PORT (default: a free port)", own);
  line.add_flag("--bind-cores", &typed.bind_cores, "Keep each rank on its own slice of the cores", own);
  line.add_text("--core-list", "LIST", &typed.core_list, "Cores for --bind-cores, e.g. 0-3,8 (default: all allowed)",
                own);
  line.add_flag("--no-python", &typed.no_python, "SCRIPT is a program, not a Python file", own);
  line.add_flag("-m,--module", &typed.module, "SCRIPT is a module, as for python -m", own);
  line.add_text("--output", "MODE", &typed.output, "auto, prefix, raw or collect; see below (default: auto)", own);
  line.add_text("--log-dir", "DIR", &typed.log_dir, "Also write the output of rank N to DIR/rank_N.log", own);
  line.add_text("--grace-seconds", "S", &typed.grace_seconds, "From SIGTERM to SIGKILL (default: 5)", own);
  line.add_flag("-q,--quiet", &typed.quiet, "Do not print the line about ranks, port and threads", own);

  const std::string ds = "DeepSpeed's spellings";
  line.add_integer("--num_gpus,--num_accelerators", "N", &typed.num_gpus, "As --nproc (-1: default)", ds);
  line.add_integer("--num_nodes", "N", &typed.num_nodes, "1 (or -1); more are not yet supported", ds);
  line.add_integer("--node_rank", "N", &typed.node_rank, "0 (or -1)", ds);
  line.add_text("--master_addr", "ADDR", &typed.master_addr, "As --master-addr", ds);
  line.add_integer("--master_port", "PORT", &typed.master_port, "As --master-port", ds);
  line.add_flag("--no_python", &typed.no_python, "As --no-python", ds);
  line.add_flag("--no_local_rank", &typed.no_local_rank, "Do not pass --local_rank=N", ds);
  line.add_flag("--bind_cores_to_rank", &typed.bind_cores, "As --bind-cores", ds);
  line.add_text("--bind_core_list", "LIST", &typed.core_list, "As --core-list", ds);
  line.add_text("--enable_each_rank_log", "DIR", &typed.log_dir, "As --log-dir", ds);
  for (const char* names : {"--launcher", "--launcher_args", "--ssh_port", "--log_level"}) {
    line.add_text(names, "X", &typed.ignored, "Accepted; means nothing on one host", ds);
  }
  line.add_flag("--no_ssh,--no_ssh_check", &typed.unused, "Accepted; means nothing on one host", ds);

  const std::string later = "Not yet supported";
  line.add_text("-H,--hostfile", "FILE", &typed.hostfile, "Several hosts", later);
  line.add_text("-i,--include", "HOSTS", &typed.include, "Choice of hosts and GPUs", later);
  line.add_text("-e,--exclude", "HOSTS", &typed.exclude, "Choice of hosts and GPUs", later);
  line.add_flag("--force_multi", &typed.force_multi, "Several hosts", later);
  line.add_flag("--elastic_training", &typed.elastic_training, "Change of the number of hosts", later);
  line.add_integer("--min_elastic_nodes", "N", &typed.min_elastic_nodes, "Change of the number of hosts", later);
  line.add_integer("--max_elastic_nodes", "N", &typed.max_elastic_nodes, "Change of the number of hosts", later);
  line.add_text("--autotuning", "MODE", &typed.autotuning, "Search for a fast configuration", later);
  line.add_text("--save_pid", "ID", &typed.save_pid, "File with the ids of the processes", later);
  line.add_text("--venv_script", "FILE", &typed.venv_script, "Script that activates an environment on each host",
                later);
}

void check_supported(const Typed& typed) {
  const auto refuse = [](bool given, const char* flag, const char* instead) {
    HYDROFOIL_CHECK_ARG(!given, kName, flag, " is not yet supported; ", instead);
  };
  constexpr const char* kOneHost = "use --nproc N (or --num_gpus N) on one host, and torchrun for several";
  constexpr const char* kDevices = "set CUDA_VISIBLE_DEVICES to choose GPUs of this host";
  refuse(typed.hostfile.has_value(), "--hostfile", kOneHost);
  refuse(typed.include.has_value(), "--include", kDevices);
  refuse(typed.exclude.has_value(), "--exclude", kDevices);
  refuse(typed.force_multi, "--force_multi", kOneHost);
  refuse(typed.elastic_training, "--elastic_training", kOneHost);
  refuse(typed.min_elastic_nodes.value_or(-1) != -1, "--min_elastic_nodes", kOneHost);
  refuse(typed.max_elastic_nodes.value_or(-1) != -1, "--max_elastic_nodes", kOneHost);
  refuse(typed.autotuning.has_value(), "--autotuning", "leave it out");
  refuse(typed.save_pid.has_value(), "--save_pid", "leave it out; the launcher ends its ranks when it ends");
  refuse(typed.venv_script.has_value(), "--venv_script", "activate the environment before, or set HYDROFOIL_PYTHON");
  HYDROFOIL_CHECK_ARG(typed.num_nodes.value_or(1) == 1 || typed.num_nodes == -1, kName, "--num_nodes: got ",
                      *typed.num_nodes, ", expected 1; more than one host is not yet supported: ", kOneHost);
  HYDROFOIL_CHECK_ARG(typed.node_rank.value_or(0) == 0 || typed.node_rank == -1, kName, "--node_rank: got ",
                      *typed.node_rank, ", expected 0: there is one host");
}

std::optional<int64_t> number_of_ranks(const Typed& typed) {
  HYDROFOIL_CHECK_ARG(!(typed.nproc && typed.num_gpus), kName, "--nproc and --num_gpus mean the same; give one");
  std::optional<int64_t> ranks = typed.nproc;
  if (typed.num_gpus && *typed.num_gpus != -1) ranks = typed.num_gpus;
  if (ranks) {
    HYDROFOIL_CHECK_ARG(*ranks >= 1 && *ranks <= kMaxRanks, kName, typed.nproc ? "--nproc" : "--num_gpus", ": got ",
                        *ranks, ", expected a value from 1 to ", kMaxRanks);
  }
  return ranks;
}

OutputMode output_mode(const std::string& text) {
  const std::vector<std::string> names = {"auto", "prefix", "raw", "collect"};
  const auto found = std::find(names.begin(), names.end(), text);
  HYDROFOIL_CHECK_ARG(found != names.end(), kName, "--output: got \"", text,
                      "\", expected auto, prefix, raw or collect; the nearest is ", nearest_name(text, names));
  return static_cast<OutputMode>(found - names.begin());
}

double grace(const std::string& text) {
  double seconds = -1;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), seconds);
  HYDROFOIL_CHECK_ARG(error == std::errc() && end == text.data() + text.size() && seconds >= 0 && seconds <= 86400,
                      kName, "--grace-seconds: got \"", text, "\", expected seconds from 0 to 86400");
  return seconds;
}

// True where a flag has DeepSpeed's spelling: all of its own have an underscore.
bool deepspeed_spelling(std::span<const std::string> flags) {
  return std::any_of(flags.begin(), flags.end(), [](const std::string& flag) {
    return flag.starts_with("--") && flag.substr(0, flag.find('=')).find('_') != std::string::npos;
  });
}

RunOptions checked_options(const Typed& typed) {
  check_supported(typed);
  RunOptions options;
  options.num_ranks = number_of_ranks(typed);
  if (typed.master_addr && !typed.master_addr->empty()) options.master_addr = *typed.master_addr;
  options.master_port = typed.master_port;
  HYDROFOIL_CHECK_ARG(typed.master_port.value_or(1) >= 1 && typed.master_port.value_or(1) <= 65535, kName,
                      "--master-port: got ", *typed.master_port, ", expected a value from 1 to 65535");
  options.bind_cores = typed.bind_cores;
  HYDROFOIL_CHECK_ARG(!typed.core_list || typed.bind_cores, kName, "--core-list: expected --bind-cores with it");
  if (typed.core_list) options.core_list = parse_core_list(*typed.core_list);
  HYDROFOIL_CHECK_ARG(!(typed.no_python && typed.module), kName,
                      "--no-python and --module exclude each other: a module is run by Python");
  options.use_python = !typed.no_python;
  options.is_module = typed.module;
  options.log_dir = typed.log_dir;
  HYDROFOIL_CHECK_ARG(!typed.log_dir || !typed.log_dir->empty(), kName, "--log-dir: got an empty name");
  if (typed.output) options.output = output_mode(*typed.output);
  if (typed.grace_seconds) options.grace_seconds = grace(*typed.grace_seconds);
  options.quiet = typed.quiet;
  return options;
}

}  // namespace

ParsedRun parse_run_arguments(std::span<const std::string> arguments) {
  Typed typed;
  CommandLine line(kName, "Start a script once per rank on this host, and end all ranks together.");
  declare(line, typed);
  line.set_usage("hydrofoil run [OPTIONS] SCRIPT [ARGS...]");
  line.set_footer(kFooter);

  const size_t script = line.first_positional(arguments);
  auto flags = arguments.first(script);
  if (!flags.empty() && flags.back() == "--") flags = flags.first(flags.size() - 1);
  ParsedRun parsed;
  parsed.help = line.parse(flags);
  if (parsed.help) return parsed;

  parsed.options = checked_options(typed);
  HYDROFOIL_CHECK_ARG(script < arguments.size(), kName,
                      "no script given, expected: hydrofoil run [OPTIONS] SCRIPT [ARGS...]");
  parsed.options.script = arguments[script];
  HYDROFOIL_CHECK_ARG(!parsed.options.script.empty(), kName, "SCRIPT: got an empty name");
  parsed.options.arguments.assign(arguments.begin() + static_cast<ptrdiff_t>(script) + 1, arguments.end());
  parsed.options.append_local_rank = parsed.options.use_python && !typed.no_local_rank && deepspeed_spelling(flags);
  return parsed;
}

std::vector<int> parse_core_list(const std::string& text) {
  constexpr int64_t kMaxCore = 4095;
  std::vector<int> cores;
  size_t begin = 0;
  while (begin <= text.size()) {
    const size_t end = std::min(text.find(',', begin), text.size());
    const std::string item = text.substr(begin, end - begin);
    const size_t dash = item.find('-', 1);
    const std::string what = std::string("[") + kName + "] --core-list";
    const int64_t first = parse_integer(what, item.substr(0, dash), 0, kMaxCore);
    const int64_t last =
        dash == std::string::npos ? first : parse_integer(what, item.substr(dash + 1), first, kMaxCore);
    for (int64_t core = first; core <= last; ++core) {
      HYDROFOIL_CHECK_ARG(std::find(cores.begin(), cores.end(), core) == cores.end(), kName, "--core-list: core ", core,
                          " is named twice");
      cores.push_back(static_cast<int>(core));
    }
    begin = end + 1;
  }
  return cores;
}

}  // namespace hydrofoil::launcher
