#include "hydrofoil/engine/groups_json.h"

#include <gtest/gtest.h>

#include "hydrofoil/base/error.h"

namespace hydrofoil::engine {
namespace {

using optim::Hyperparameters;
using optim::OptimizerKind;

TEST(GroupsJson, RoundTripsWhatTheKindReads) {
  const std::vector<Hyperparameters> saved = {{.lr = 0.1, .beta1 = 0.8, .weight_decay = 0.01}, {.lr = 1e-5}};
  const std::string text = groups_to_json(OptimizerKind::kAdamW, saved);
  std::vector<Hyperparameters> loaded(2);
  groups_from_json(text, loaded);
  EXPECT_EQ(loaded[0].lr, 0.1);
  EXPECT_EQ(loaded[0].beta1, 0.8);
  EXPECT_EQ(loaded[0].weight_decay, 0.01);
  EXPECT_EQ(loaded[1].lr, 1e-5);
  EXPECT_EQ(text.find("momentum"), std::string::npos) << text;
  EXPECT_NE(groups_to_json(OptimizerKind::kSgd, saved).find("momentum"), std::string::npos);
}

TEST(GroupsJson, ReadsWhatPythonWrites) {
  std::vector<Hyperparameters> groups(1);
  groups_from_json(R"([{"lr": 0.002, "betas": [0.9, 0.95], "name": "all", "nesterov": true}])", groups);
  EXPECT_EQ(groups[0].lr, 0.002);
  EXPECT_EQ(groups[0].beta2, 0.95);
  EXPECT_TRUE(groups[0].nesterov);
}

TEST(GroupsJson, RefusesOtherNumbersOfGroupsAndOtherTypes) {
  std::vector<Hyperparameters> groups(2);
  EXPECT_THROW(groups_from_json("[{}]", groups), InvalidArgument);
  EXPECT_THROW(groups_from_json("{}", groups), InvalidArgument);
  EXPECT_THROW(groups_from_json("[1, 2]", groups), InvalidArgument);
  EXPECT_THROW(groups_from_json(R"([{"lr": "a"}, {}])", groups), InvalidArgument);
  EXPECT_THROW(groups_from_json(R"([{"nesterov": 1}, {}])", groups), InvalidArgument);
  EXPECT_THROW(groups_from_json(R"([{"betas": [0.9]}, {}])", groups), InvalidArgument);
  EXPECT_THROW(groups_from_json("no json", groups), InvalidArgument);
}

}  // namespace
}  // namespace hydrofoil::engine
