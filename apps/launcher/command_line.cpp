#include "apps/launcher/command_line.h"

#include <CLI/CLI.hpp>

#include <algorithm>
#include <charconv>
#include <limits>
#include <vector>

#include "hydrofoil/base/error.h"
#include "hydrofoil/base/nearest.h"

namespace hydrofoil::launcher {

struct CommandLine::Impl {
  Impl(const std::string& command, const std::string& description) : name(command), app(description, command) {}
  std::string name;
  CLI::App app;
};

namespace {

bool is_flag(const std::string& argument) { return argument.size() > 1 && argument[0] == '-'; }

std::string flag_name(const std::string& argument) { return argument.substr(0, argument.find('=')); }

std::vector<std::string> all_flags(const CLI::App& app) {
  std::vector<std::string> names;
  for (const CLI::Option* option : app.get_options()) {
    for (const auto& name : option->get_lnames()) names.push_back("--" + name);
    for (const auto& name : option->get_snames()) names.push_back("-" + name);
  }
  return names;
}

}  // namespace

CommandLine::CommandLine(const std::string& name, const std::string& description)
    : impl_(std::make_unique<Impl>(name, description)) {
  impl_->app.set_help_flag("-h,--help", "Print this text and exit");
  impl_->app.get_formatter()->column_width(30);
}

CommandLine::~CommandLine() = default;

void CommandLine::add_flag(const std::string& names, bool* target, const std::string& help, const std::string& group) {
  impl_->app.add_flag(names, *target, help)->group(group);
}

void CommandLine::add_text(const std::string& names, const std::string& value_name, std::optional<std::string>* target,
                           const std::string& help, const std::string& group) {
  impl_->app
      .add_option_function<std::string>(
          names, [target](const std::string& text) { *target = text; }, help)
      ->type_name(value_name)
      ->take_last()
      ->group(group);
}

void CommandLine::add_integer(const std::string& names, const std::string& value_name, std::optional<int64_t>* target,
                              const std::string& help, const std::string& group) {
  const std::string what = "[" + impl_->name + "] " + names;
  const auto store = [target, what](const std::string& text) {
    *target = parse_integer(what, text, std::numeric_limits<int64_t>::min(), std::numeric_limits<int64_t>::max());
  };
  impl_->app.add_option_function<std::string>(names, store, help)->type_name(value_name)->take_last()->group(group);
}

void CommandLine::add_list(const std::string& names, const std::string& value_name, std::vector<std::string>* target,
                           const std::string& help, const std::string& group) {
  impl_->app.add_option(names, *target, help)->type_name(value_name)->group(group);
}

void CommandLine::add_positional(const std::string& name, std::string* target, const std::string& help) {
  impl_->app.add_option(name, *target, help)->required()->type_name("");
}

void CommandLine::set_usage(const std::string& usage) {
  // CLI11 prints the name in front of its own list of arguments; a formatter is the only way to say it differently.
  class Formatter : public CLI::Formatter {
   public:
    explicit Formatter(std::string usage) : usage_(std::move(usage)) { column_width(30); }
    std::string make_usage(const CLI::App*, std::string) const override { return "Usage: " + usage_ + "\n"; }
    std::string make_positionals(const CLI::App*) const override { return ""; }

   private:
    std::string usage_;
  };
  impl_->app.formatter(std::make_shared<Formatter>(usage));
}

void CommandLine::set_footer(const std::string& footer) { impl_->app.footer(footer); }

size_t CommandLine::first_positional(std::span<const std::string> arguments) const {
  for (size_t i = 0; i < arguments.size(); ++i) {
    const std::string& argument = arguments[i];
    if (argument == "--") return i + 1;
    if (!is_flag(argument)) return i;
    const CLI::Option* option = impl_->app.get_option_no_throw(flag_name(argument));
    if (option == nullptr) {
      throw InvalidArgument("[" + impl_->name + "] unknown flag " + flag_name(argument) +
                            "; the nearest valid flag is " + nearest_name(flag_name(argument), all_flags(impl_->app)) +
                            " (see " + impl_->name + " --help)");
    }
    const bool takes_value = option->get_items_expected_min() > 0;
    if (takes_value && argument.find('=') == std::string::npos) ++i;
  }
  return arguments.size();
}

std::optional<std::string> CommandLine::parse(std::span<const std::string> arguments) {
  for (size_t i = 0; i < arguments.size(); ++i) {
    // Names the flag that is unknown before CLI11 sees it: its own message knows no nearest name.
    const size_t positional = i + first_positional(arguments.subspan(i));
    i = positional;
  }
  // CLI11 takes the arguments in reverse order.
  std::vector<std::string> reversed(arguments.rbegin(), arguments.rend());
  try {
    impl_->app.parse(reversed);
  } catch (const CLI::CallForHelp&) {
    return impl_->app.help();
  } catch (const CLI::ParseError& error) {
    throw InvalidArgument("[" + impl_->name + "] " + error.what() + " (see " + impl_->name + " --help)");
  }
  return std::nullopt;
}

int64_t parse_integer(const std::string& what, const std::string& text, int64_t minimum, int64_t maximum) {
  int64_t value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error != std::errc() || end != text.data() + text.size()) {
    throw InvalidArgument(what + ": got \"" + text + "\", expected an integer");
  }
  if (value < minimum || value > maximum) {
    throw InvalidArgument(detail::concat(what, ": got ", value, ", expected a value from ", minimum, " to ", maximum));
  }
  return value;
}

}  // namespace hydrofoil::launcher
