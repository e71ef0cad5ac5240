#include "hydrofoil/zero/model_tree.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/ones.h>
#include <gtest/gtest.h>

#include "hydrofoil/base/error.h"

namespace hydrofoil::zero {
namespace {

TEST(ModelTree, NamesModulesAndParametersByTheirPaths) {
  ModelTree tree;
  const int root = tree.add_module("", "Model", -1);
  const int list = tree.add_module("layers", "ModuleList", root, /*is_list=*/true);
  const int layer = tree.add_module("0", "Layer", list);
  tree.add_parameter(layer, "weight", at::ones({2}));
  tree.add_parameter(root, "scale", at::ones({1}));
  tree.add_buffer(layer, "mean", at::ones({3}));
  EXPECT_EQ(tree.modules[layer].path, "layers.0");
  EXPECT_EQ(tree.modules[layer].parent, list);
  EXPECT_TRUE(tree.modules[list].is_list);
  EXPECT_EQ(tree.parameters[0].name, "layers.0.weight");
  EXPECT_EQ(tree.parameters[1].name, "scale");
  EXPECT_EQ(tree.buffers[0].name, "layers.0.mean");
}

TEST(ModelTree, KeepsASharedParameterOnceUnderItsFirstName) {
  ModelTree tree;
  tree.add_module("", "Model", -1);
  const int embedding = tree.add_module("embedding", "Embedding", 0);
  const int head = tree.add_module("head", "Linear", 0);
  const at::Tensor weight = at::ones({2, 2});
  tree.add_parameter(embedding, "weight", weight);
  tree.add_parameter(head, "weight", weight);
  ASSERT_EQ(tree.parameters.size(), 1U);
  EXPECT_EQ(tree.parameters[0].name, "embedding.weight");
  EXPECT_EQ(tree.modules[head].parameters, std::vector<int64_t>{0});
}

TEST(ModelTree, RefusesWhatIsNoTree) {
  ModelTree tree;
  EXPECT_THROW(tree.add_module("", "Model", 0), InvalidArgument);
  tree.add_module("", "Model", -1);
  EXPECT_THROW(tree.add_module("second", "Model", -1), InvalidArgument);
  EXPECT_THROW(tree.add_module("child", "Model", 1), InvalidArgument);
  EXPECT_THROW(tree.add_parameter(0, "weight", at::Tensor()), InvalidArgument);
}

TEST(Boundaries, WithoutAnEngineACallIsJustTheForward) {
  ModelTree tree;
  tree.add_module("", "Model", -1);
  const at::Tensor x = at::ones({2});
  EXPECT_TRUE(tree.boundaries->call(0, x, [&] { return x * 2; }).equal(x * 2));
  const auto [a, b] = tree.boundaries->call(7, {x, x}, [&] { return std::pair(x + 1, x + 2); });
  EXPECT_TRUE(a.equal(x + 1) && b.equal(x + 2));
}

}  // namespace
}  // namespace hydrofoil::zero
