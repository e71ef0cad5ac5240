#pragma once

#include <string>
#include <vector>

namespace hydrofoil::doctor {

// A warning costs speed or waits for a later use; with a problem, training does not work.
enum class Level { kOk, kWarning, kProblem };

// "ok", "warning", "problem".
[[nodiscard]] const char* level_name(Level level);

// One line of the report.
struct Finding {
  std::string section;  // "Python", "Memory"
  std::string name;     // "torch"
  Level level = Level::kOk;
  std::string value;   // what was found
  std::string advice;  // what to do about it; empty where there is nothing to do
};

// Findings of one section, in the order in which they are added.
class Section {
 public:
  explicit Section(std::string name) : name_(std::move(name)) {}
  void ok(std::string name, std::string value) { add(std::move(name), Level::kOk, std::move(value), ""); }
  void warning(std::string name, std::string value, std::string advice) {
    add(std::move(name), Level::kWarning, std::move(value), std::move(advice));
  }
  void problem(std::string name, std::string value, std::string advice) {
    add(std::move(name), Level::kProblem, std::move(value), std::move(advice));
  }
  void add(std::string name, Level level, std::string value, std::string advice) {
    findings_.push_back({name_, std::move(name), level, std::move(value), std::move(advice)});
  }
  [[nodiscard]] const std::vector<Finding>& findings() const { return findings_; }

 private:
  std::string name_;
  std::vector<Finding> findings_;
};

}  // namespace hydrofoil::doctor
