#include "hydrofoil/models/model_outline.h"

#include <gtest/gtest.h>

#include "hydrofoil/base/error.h"
#include "hydrofoil/models/causal_lm.h"

namespace hydrofoil::models {
namespace {

std::vector<const char*> configs() {
  return {R"({"model_type": "llama", "vocab_size": 19, "hidden_size": 12, "intermediate_size": 20,
             "num_hidden_layers": 2, "num_attention_heads": 3, "num_key_value_heads": 1, "head_dim": 6})",
          R"({"model_type": "llama", "vocab_size": 19, "hidden_size": 12, "intermediate_size": 20,
             "num_hidden_layers": 3, "num_attention_heads": 3, "num_key_value_heads": 3, "attention_bias": true,
             "mlp_bias": true, "tie_word_embeddings": true})",
          R"({"model_type": "gpt2", "vocab_size": 19, "n_positions": 8, "n_embd": 12, "n_layer": 2, "n_head": 3})",
          R"({"model_type": "gpt2", "vocab_size": 19, "n_positions": 8, "n_embd": 12, "n_layer": 1, "n_head": 3,
             "n_inner": 20, "tie_word_embeddings": false})"};
}

class Outline : public testing::TestWithParam<const char*> {};

TEST_P(Outline, IsThatOfTheModel) {
  const ModelConfig config = parse_model_config(GetParam(), "test");
  const ModelOutline outline = outline_model(config);
  const auto model = make_model(config);
  const zero::ModelTree& tree = model->tree();
  ASSERT_EQ(outline.modules.size(), tree.modules.size());
  for (size_t m = 0; m < tree.modules.size(); ++m) {
    EXPECT_EQ(outline.modules[m].path, tree.modules[m].path);
    EXPECT_EQ(outline.modules[m].type_name, tree.modules[m].type_name);
    EXPECT_EQ(outline.modules[m].parent, tree.modules[m].parent);
    EXPECT_EQ(outline.modules[m].is_list, tree.modules[m].is_list);
    EXPECT_EQ(outline.modules[m].parameters, tree.modules[m].parameters);
  }
  ASSERT_EQ(outline.parameters.size(), tree.parameters.size());
  for (size_t p = 0; p < tree.parameters.size(); ++p) {
    EXPECT_EQ(outline.parameters[p].name, tree.parameters[p].name);
    EXPECT_EQ(outline.parameters[p].sizes, tree.parameters[p].parameter.sizes().vec());
  }
}

INSTANTIATE_TEST_SUITE_P(Families, Outline, testing::ValuesIn(configs()));

TEST(Outline, RefusesAWrongConfig) {
  LlamaConfig config;
  config.hidden_size = -1;
  EXPECT_THROW((void)outline_model({config, std::nullopt}), InvalidArgument);
}

}  // namespace
}  // namespace hydrofoil::models
