#include "hydrofoil/zero/unit_planner.h"

#include <gtest/gtest.h>

#include "hydrofoil/base/error.h"

namespace hydrofoil::zero {
namespace {

// root { embed[0], layers{0{attn[1], mlp[2]}, 1{attn[3], mlp[4]}}, norm[5], head[0 shared] }
std::vector<ModuleNode> language_model() {
  return {{"", "Model", -1, false, false, {}},
          {"embed", "Embedding", 0, false, false, {0}},
          {"layers", "ModuleList", 0, true, false, {}},
          {"layers.0", "Block", 2, false, false, {}},
          {"layers.0.attn", "Linear", 3, false, false, {1}},
          {"layers.0.mlp", "Linear", 3, false, false, {2}},
          {"layers.1", "Block", 2, false, false, {}},
          {"layers.1.attn", "Linear", 6, false, false, {3}},
          {"layers.1.mlp", "Linear", 6, false, false, {4}},
          {"norm", "Norm", 0, false, false, {5}},
          {"head", "Linear", 0, false, false, {0}}};
}

TEST(PlanUnits, MakesAUnitOfEachRepeatedBlock) {
  const auto layout = plan_units(language_model(), std::vector<ParameterSize>(6, {100, 4}), 0);
  ASSERT_EQ(layout.units.size(), 4U);
  EXPECT_EQ(layout.units[0].parameters, (std::vector<int64_t>{0}));
  EXPECT_EQ(layout.units[1].name, "layers.0");
  EXPECT_EQ(layout.units[1].parameters, (std::vector<int64_t>{1, 2}));
  EXPECT_EQ(layout.units[2].parameters, (std::vector<int64_t>{3, 4}));
  EXPECT_EQ(layout.units[3].parameters, (std::vector<int64_t>{5}));
}

TEST(PlanUnits, GivesASharingModuleTheUnitOfTheOwner) {
  const auto layout = plan_units(language_model(), std::vector<ParameterSize>(6, {100, 4}), 0);
  ASSERT_EQ(layout.scopes.size(), 6U);  // root, embed, two blocks, norm, head
  EXPECT_TRUE(layout.scopes[0].units.empty());
  EXPECT_EQ(layout.scopes[5].module, 10);
  EXPECT_EQ(layout.scopes[5].units, (std::vector<int>{0}));
}

TEST(PlanUnits, MergesNeighboursBelowTheMinimum) {
  std::vector<ModuleNode> modules = {{"", "Sequential", -1, true, false, {}}};
  for (int i = 0; i < 1000; ++i) modules.push_back({std::to_string(i), "Linear", 0, false, false, {i}});
  const auto layout = plan_units(modules, std::vector<ParameterSize>(1000, {1024, 4}), 1 << 20);
  EXPECT_EQ(layout.units.size(), 4U);
  EXPECT_EQ(layout.units[0].parameters.size(), 256U);
  EXPECT_EQ(layout.scopes.size(), 1001U);
}

TEST(PlanUnits, KeepsANamedSubtreeWhole) {
  auto modules = language_model();
  modules[0].keep_whole = true;
  const auto layout = plan_units(modules, std::vector<ParameterSize>(6, {100, 4}), 0);
  ASSERT_EQ(layout.units.size(), 1U);
  EXPECT_EQ(layout.units[0].parameters.size(), 6U);
  EXPECT_EQ(layout.scopes.size(), 1U);
}

TEST(PlanUnits, RejectsWhatIsNoTree) {
  EXPECT_THROW((void)plan_units({}, {}, 0), InvalidArgument);
  EXPECT_THROW((void)plan_units({{"", "A", -1, false, false, {}}, {"x", "B", 3, false, false, {}}}, {}, 0),
               InvalidArgument);
  EXPECT_THROW((void)plan_units({{"", "A", -1, false, false, {7}}}, {{1, 4}}, 0), InvalidArgument);
  EXPECT_THROW((void)plan_units({{"", "A", -1, false, false, {}}}, {{1, 4}}, 0), InvalidArgument);
}

}  // namespace
}  // namespace hydrofoil::zero
