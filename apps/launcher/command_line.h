#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

namespace hydrofoil::launcher {

// Flags, help text and errors of one command; hides CLI11, whose header is costly to include.
// Errors are InvalidArgument with the nearest valid name.
class CommandLine {
 public:
  // `name` is how the user types the command ("hydrofoil run").
  CommandLine(const std::string& name, const std::string& description);
  ~CommandLine();
  CommandLine(const CommandLine&) = delete;
  CommandLine& operator=(const CommandLine&) = delete;

  // `names` as in "-q,--quiet"; `group` is the heading in the help text. Targets must outlive parse().
  void add_flag(const std::string& names, bool* target, const std::string& help, const std::string& group);
  void add_text(const std::string& names, const std::string& value_name, std::optional<std::string>* target,
                const std::string& help, const std::string& group);
  void add_integer(const std::string& names, const std::string& value_name, std::optional<int64_t>* target,
                   const std::string& help, const std::string& group);
  // One or more values after the flag, which may come several times.
  void add_list(const std::string& names, const std::string& value_name, std::vector<std::string>* target,
                const std::string& help, const std::string& group);
  // A required argument without a dash, e.g. FILE.
  void add_positional(const std::string& name, std::string* target, const std::string& help);
  // Replaces the generated line "name [OPTIONS] ...".
  void set_usage(const std::string& usage);
  // What --help prints last: examples, exit codes.
  void set_footer(const std::string& footer);

  // Index of the first argument that is neither a flag nor the value of one; arguments.size() where there is none.
  // An argument "--" ends the flags; what follows it is the first. Throws at a flag that is not ours.
  [[nodiscard]] size_t first_positional(std::span<const std::string> arguments) const;

  // Fills the targets. Returns the help text, and leaves required arguments unchecked, where --help is among the flags.
  [[nodiscard]] std::optional<std::string> parse(std::span<const std::string> arguments);

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

// Decimal integer in [minimum, maximum]; throws InvalidArgument that names `what`.
[[nodiscard]] int64_t parse_integer(const std::string& what, const std::string& text, int64_t minimum, int64_t maximum);

}  // namespace hydrofoil::launcher
