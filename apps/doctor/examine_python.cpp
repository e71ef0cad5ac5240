#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <nlohmann/json.hpp>
#include <sstream>

#include "apps/doctor/python_facts.h"
#include "apps/launcher/process.h"
#include "hydrofoil/base/error.h"

namespace hydrofoil::doctor {
namespace {

using Json = nlohmann::json;

// Says each fact as soon as it is known: an import may end the interpreter. What the imports print goes to standard
// error.
constexpr const char* kScript = R"PY(
import json, os, sys
out = os.fdopen(os.dup(1), "w")
os.dup2(2, 1)
sys.path[:] = [folder for folder in sys.path if folder]

def say(**facts):
    print(json.dumps(facts), file=out, flush=True)

def attempt(name):
    say(stage="import " + name)
    try:
        return __import__(name)
    except BaseException as error:
        say(**{name + "_error": type(error).__name__ + ": " + str(error)})

say(version=".".join(map(str, sys.version_info[:3])), executable=sys.executable)
torch = attempt("torch")
if torch:
    say(torch_version=torch.__version__, torch_cxx11_abi=bool(torch.compiled_with_cxx11_abi()), torch_cuda=torch.version.cuda)
    import torch.distributed as dist
    known = ["gloo", "nccl", "mpi", "ucc"] if dist.is_available() else []
    say(backends=[name for name in known if getattr(dist, "is_" + name + "_available")()])
    hydrofoil = attempt("hydrofoil")
    if hydrofoil:
        say(hydrofoil_version=getattr(hydrofoil, "__version__", "?"), hydrofoil_path=os.path.dirname(hydrofoil.__file__ or "?"))
    if torch.version.cuda:
        import warnings
        say(stage="start CUDA")
        with warnings.catch_warnings(record=True) as said:
            warnings.simplefilter("always")
            available = torch.cuda.is_available()
        say(cuda_available=available, cuda_error="; ".join(str(warning.message) for warning in said))
        if dist.is_available() and dist.is_nccl_available():
            say(nccl=".".join(map(str, torch.cuda.nccl.version())))
        if available:
            devices = [torch.cuda.get_device_properties(i) for i in range(torch.cuda.device_count())]
            say(devices=[[device.name, device.total_memory] for device in devices])
say(stage="end")
)PY";

struct Answer {
  std::string text;
  bool timed_out = false;
  int status = 0;  // as waitpid has it
};

// Everything that the interpreter says until it ends.
Answer ask(const std::string& interpreter, int64_t patience_seconds) {
  int ends[2];
  if (::pipe2(ends, O_CLOEXEC) != 0) throw_system_error("hydrofoil doctor", "pipe", errno);
  const int null = ::open("/dev/null", O_RDWR | O_CLOEXEC);
  launcher::SpawnRequest request;
  request.command = {interpreter, "-c", kScript};
  for (char** entry = environ; *entry != nullptr; ++entry) request.environment.emplace_back(*entry);
  request.stdin_fd = null;
  request.stdout_fd = ends[1];
  request.stderr_fd = null;
  pid_t child = -1;
  try {
    child = launcher::spawn(request);
  } catch (...) {
    for (const int fd : {ends[0], ends[1], null}) ::close(fd);
    throw;
  }
  ::close(ends[1]);
  ::close(null);
  Answer answer;
  for (;;) {
    pollfd wait{.fd = ends[0], .events = POLLIN, .revents = 0};
    const int ready = ::poll(&wait, 1, static_cast<int>(patience_seconds * 1000));
    if (ready < 0 && errno == EINTR) continue;
    answer.timed_out = ready == 0;
    char bytes[4096];
    const ssize_t count = ready > 0 ? ::read(ends[0], bytes, sizeof(bytes)) : 0;
    if (count <= 0) break;
    answer.text.append(bytes, static_cast<size_t>(count));
  }
  if (answer.timed_out) ::kill(-child, SIGKILL);
  while (::waitpid(child, &answer.status, 0) < 0 && errno == EINTR) {
  }
  ::close(ends[0]);
  return answer;
}

void take(const Json& line, PythonFacts& facts, std::string& stage) {
  const auto text = [&](const char* key, std::string& target) {
    if (line.contains(key) && line[key].is_string()) target = line[key].get<std::string>();
  };
  text("stage", stage);
  text("version", facts.version);
  text("executable", facts.executable);
  text("torch_error", facts.torch_error);
  text("torch_version", facts.torch_version);
  text("torch_cuda", facts.torch_cuda);
  text("cuda_error", facts.cuda_error);
  text("nccl", facts.nccl);
  text("hydrofoil_error", facts.package_error);
  text("hydrofoil_version", facts.package_version);
  text("hydrofoil_path", facts.package_path);
  if (line.contains("torch_cxx11_abi")) facts.torch_cxx11_abi = line["torch_cxx11_abi"].get<bool>();
  if (line.contains("cuda_available")) facts.cuda_available = line["cuda_available"].get<bool>();
  if (line.contains("backends")) facts.backends = line["backends"].get<std::vector<std::string>>();
  for (const Json& device : line.value("devices", Json::array())) {
    facts.devices.push_back({device.at(0).get<std::string>(), device.at(1).get<int64_t>()});
  }
}

std::string how_it_ended(const Answer& answer, const std::string& stage, int64_t patience_seconds) {
  const std::string at = stage.empty() ? "" : " at " + stage;
  if (answer.timed_out) return detail::concat("it said nothing for ", patience_seconds, " s", at);
  if (WIFSIGNALED(answer.status)) return "it was ended by " + launcher::signal_name(WTERMSIG(answer.status)) + at;
  return detail::concat("it ended with exit code ", WEXITSTATUS(answer.status), at);
}

}  // namespace

PythonFacts examine_python(const std::string& interpreter, int64_t patience_seconds) {
  PythonFacts facts{.interpreter = interpreter};
  Answer answer;
  try {
    answer = ask(interpreter, patience_seconds);
  } catch (const SystemError& error) {
    facts.error = error.what();
    return facts;
  }
  std::string stage;
  std::istringstream lines(answer.text);
  for (std::string line; std::getline(lines, line);) {
    // Another program than Python may say anything.
    try {
      const Json json = Json::parse(line);
      if (json.is_object()) take(json, facts, stage);
    } catch (const Json::exception&) {
      facts.error = "it said \"" + line.substr(0, 80) + "\", which no Python does";
      return facts;
    }
  }
  if (stage != "end") facts.error = how_it_ended(answer, stage, patience_seconds);
  return facts;
}

}  // namespace hydrofoil::doctor
