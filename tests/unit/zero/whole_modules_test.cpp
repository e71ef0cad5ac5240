#include "hydrofoil/zero/whole_modules.h"

#include <gtest/gtest.h>

#include "hydrofoil/base/error.h"

namespace hydrofoil::zero {
namespace {

std::vector<ModuleNode> mixture() {
  std::vector<ModuleNode> modules;
  for (const auto& [path, type] : std::vector<std::pair<std::string, std::string>>{{"", "Model"},
                                                                                   {"gate", "Linear"},
                                                                                   {"moe", "package.file.Moe"},
                                                                                   {"moe.experts", "ModuleList"},
                                                                                   {"other", "ns::Moe"},
                                                                                   {"other.my_experts", "Linear"}}) {
    modules.push_back({.path = path, .type_name = type});
  }
  return modules;
}

// What is marked, by path.
std::vector<std::string> marked(const LeafModuleOptions& leaves, const std::vector<std::string>& names = {},
                                std::string* warning = nullptr) {
  auto modules = mixture();
  const std::string said = mark_whole_modules(modules, names, leaves);
  if (warning != nullptr) *warning = said;
  std::vector<std::string> paths;
  for (const auto& module : modules) {
    if (module.keep_whole) paths.push_back(module.path);
  }
  return paths;
}

using Paths = std::vector<std::string>;

std::string error_of(const LeafModuleOptions& leaves, const std::vector<std::string>& names,
                     std::vector<ModuleNode> modules) {
  try {
    (void)mark_whole_modules(modules, names, leaves);
  } catch (const InvalidArgument& error) {
    return error.what();
  }
  return "";
}

TEST(WholeModules, AreThoseOfTheNames) {
  EXPECT_EQ(marked({}, {"gate", "moe.experts"}), (Paths{"gate", "moe.experts"}));
  EXPECT_NE(error_of({}, {"moe.expert"}, mixture())
                .find("got moe.expert, which no module of the model has; the "
                      "nearest is moe.experts"),
            std::string::npos);
}

TEST(WholeModules, AreThoseOfTheClassesByNameAndByPath) {
  EXPECT_EQ(marked({.classes = {"Moe"}}), (Paths{"moe", "other"}));
  EXPECT_EQ(marked({.classes = {"package.file.Moe"}}), (Paths{"moe"}));
  EXPECT_EQ(marked({.classes = {"torch.nn.Linear"}}), (Paths{"gate", "other.my_experts"}));
  EXPECT_EQ(marked({.classes = {"oe", "file.Moe"}}), Paths{});
}

TEST(WholeModules, AreThoseOfTheLeafNamesAndTheirEnds) {
  EXPECT_EQ(marked({.names = {"moe"}}), (Paths{"moe"}));
  EXPECT_EQ(marked({.name_suffixes = {"experts"}}), (Paths{"moe.experts", "other.my_experts"}));
  EXPECT_EQ(marked({.name_suffixes = {".experts"}}), (Paths{"moe.experts"}));
}

TEST(WholeModules, WarnOfWhatMatchesNothing) {
  std::string warning;
  EXPECT_EQ(marked({}, {}, &warning), Paths{});
  EXPECT_EQ(warning, "");  // of the default classes nobody said that they are there
  EXPECT_EQ(marked({.classes = {"Moe", "Absent"}, .names = {"a", "moe", "b"}, .name_suffixes = {"zz"}}, {}, &warning),
            (Paths{"moe", "other"}));
  EXPECT_EQ(
      warning,
      "zero_optimization.leaf_module: no module of the model matches classes Absent; names a, b; name_suffixes zz");
}

TEST(WholeModules, NeedTypeNamesForClasses) {
  auto modules = mixture();
  modules[2].type_name.clear();
  EXPECT_NE(error_of({.classes = {"Moe"}}, {}, modules).find("classes: got Moe, but module moe has no type name"),
            std::string::npos);
  EXPECT_EQ(error_of({}, {}, modules), "");
  EXPECT_EQ(error_of({.classes = {}, .names = {"moe"}}, {}, modules), "");
}

}  // namespace
}  // namespace hydrofoil::zero
