#include "hydrofoil/plan/transformer_spec.h"

#include <algorithm>
#include <variant>

#include "hydrofoil/base/error.h"
#include "hydrofoil/memory/alignment.h"
#include "hydrofoil/models/model_outline.h"

namespace hydrofoil::plan {
namespace {

using models::Activation;

constexpr int64_t kWide = 4;  // norms, softmax and loss compute in fp32

// Tensors of the activation's width that it and the product after it save, its output included (models/activate.cpp).
int64_t num_saved(Activation activation) {
  switch (activation) {
    case Activation::kGelu:
    case Activation::kGeluPytorchTanh:
    case Activation::kSilu:
      return 2;
    case Activation::kQuickGelu:
      return 3;
    case Activation::kGeluNew:
      return 5;
    case Activation::kGeluFast:
      return 8;
    case Activation::kRelu:
    case Activation::kSigmoid:
    case Activation::kTanh:
      return 1;
  }
  HYDROFOIL_ASSERT(false, "activation ", static_cast<int>(activation));
}

// Sizes of one model and batch, in elements.
struct Sizes {
  int64_t element = 4;  // bytes
  int64_t batch = 1;
  int64_t length = 1;
  int64_t tokens = 1;
  int64_t hidden = 0;
  int64_t inner = 0;
  int64_t heads = 0;
  int64_t query = 0;  // width of all query heads
  int64_t key = 0;
  int64_t vocab = 0;

  [[nodiscard]] int64_t bytes(int64_t width) const { return tokens * width * element; }
  [[nodiscard]] bool is_wide() const { return element == kWide; }
  // fp32 as LlamaRMSNorm: the input, its normalised value, the root of each row; the output, for the products after it.
  [[nodiscard]] int64_t rms_norm_saved() const { return tokens * (hidden * (kWide + 2 * element) + kWide); }
  [[nodiscard]] int64_t flash_attention_saved() const {
    return bytes(2 * query + 2 * key) + batch * heads * length * kWide;
  }
  [[nodiscard]] int64_t composed_attention_saved() const {
    return bytes(2 * query + 2 * key) + 3 * batch * heads * length * length * element;
  }
  // Products of queries with keys and of weights with values; a causal kernel leaves half of them out.
  [[nodiscard]] double attention_flops() const {
    return 2.0 * static_cast<double>(tokens) * static_cast<double>(length) * static_cast<double>(query);
  }
};

void add_products(ModuleCost& cost, double forward_flops) {
  cost.forward.product_flops += forward_flops;
  cost.backward.product_flops += 2 * forward_flops;
}

// Operators of a block, its views included.
constexpr double kForwardCalls = 60.0;
constexpr double kBackwardCalls = 90.0;

// Passes over what a block keeps that its elementwise operators make.
constexpr double kForwardPasses = 2.0;
constexpr double kBackwardPasses = 3.0;

ModuleCost block_cost(const Sizes& sizes, int64_t saved, int64_t num_weights, const BatchShape& batch) {
  ModuleCost cost;
  add_products(cost, 2.0 * static_cast<double>(sizes.tokens) * static_cast<double>(num_weights));
  cost.forward.attention_flops = sizes.attention_flops();
  cost.backward.attention_flops = 2.5 * sizes.attention_flops();  // the kernel computes the weights again
  cost.saved_bytes = saved;
  // A norm's fp32 temporaries, or the block's output beside the residual.
  cost.forward_workspace_bytes = std::max(2 * sizes.tokens * sizes.hidden * kWide, 2 * sizes.bytes(sizes.hidden));
  // The last product's backward: the gradients of its output, its input and its weight, with everything still kept.
  cost.backward_workspace_bytes = sizes.bytes(sizes.hidden) + sizes.bytes(sizes.inner) +
                                  std::max(sizes.inner * sizes.hidden * sizes.element, sizes.bytes(sizes.inner));
  cost.forward.traffic_bytes = kForwardPasses * static_cast<double>(saved);
  cost.backward.traffic_bytes = kBackwardPasses * static_cast<double>(saved);
  cost.forward.num_calls = kForwardCalls;
  cost.backward.num_calls = kBackwardCalls;
  if (batch.checkpointing) {
    cost.saved_bytes = sizes.bytes(sizes.hidden);
    cost.backward_workspace_bytes += saved;
    cost.backward += cost.forward;
  }
  return cost;
}

// Cross entropy in fp32: its inputs' logarithms stay until its backward, which makes two more of them.
ModuleCost loss_cost(const Sizes& sizes) {
  ModuleCost cost;
  const int64_t logits = sizes.tokens * sizes.vocab * kWide;
  cost.saved_bytes = logits;
  cost.forward_workspace_bytes = 2 * logits;
  cost.backward_workspace_bytes = 2 * logits;
  cost.forward.traffic_bytes = 4.0 * static_cast<double>(logits);
  cost.backward.traffic_bytes = 5.0 * static_cast<double>(logits);
  return cost;
}

ModuleCost head_cost(const Sizes& sizes, bool tied) {
  ModuleCost cost;
  add_products(cost, 2.0 * static_cast<double>(sizes.tokens) * static_cast<double>(sizes.hidden * sizes.vocab));
  const int64_t gradient = sizes.vocab * sizes.hidden * sizes.element;
  cost.forward_workspace_bytes = sizes.bytes(sizes.vocab);
  cost.backward_workspace_bytes = sizes.bytes(sizes.vocab) + sizes.bytes(sizes.hidden) + (tied ? 0 : gradient);
  // Autograd keeps it until the embedding's own gradient comes.
  if (tied) cost.left_by_backward_bytes = gradient;
  return cost;
}

// The gradient of an embedding is a dense tensor, zeros but for the tokens' rows.
ModuleCost embedding_cost(const Sizes& sizes, int64_t num) {
  ModuleCost cost;
  cost.forward_workspace_bytes = sizes.bytes(sizes.hidden);
  cost.backward_workspace_bytes = num * sizes.hidden * sizes.element + sizes.bytes(sizes.hidden);
  cost.backward.traffic_bytes = 2.0 * static_cast<double>(num * sizes.hidden * sizes.element);
  return cost;
}

Sizes sizes_of(const BatchShape& batch, c10::ScalarType dtype) {
  Sizes sizes;
  sizes.element = element_bytes(dtype);
  sizes.batch = batch.micro_batch_size;
  sizes.length = batch.sequence_length;
  sizes.tokens = memory::checked_multiply(batch.micro_batch_size, batch.sequence_length, "plan");
  return sizes;
}

class CostTable {
 public:
  explicit CostTable(ModelSpec& spec) : spec_(spec) { spec_.costs.resize(spec_.modules.size()); }

  // Of every module of a type below a list.
  void set_blocks(const std::string& type_name, const ModuleCost& cost) {
    for (size_t m = 0; m < spec_.modules.size(); ++m) {
      if (spec_.modules[m].type_name == type_name) spec_.costs[m] = cost;
    }
  }
  void set(const std::string& path, const ModuleCost& cost) {
    const auto found =
        std::find_if(spec_.modules.begin(), spec_.modules.end(), [&](const auto& m) { return m.path == path; });
    HYDROFOIL_ASSERT(found != spec_.modules.end(), path);
    spec_.costs[found - spec_.modules.begin()] = cost;
  }

 private:
  ModelSpec& spec_;
};

void add_costs(ModelSpec& spec, const models::LlamaConfig& config, const BatchShape& batch, c10::ScalarType dtype) {
  Sizes sizes = sizes_of(batch, dtype);
  sizes.hidden = config.hidden_size;
  sizes.inner = config.intermediate_size;
  sizes.heads = config.num_attention_heads;
  sizes.query = config.num_attention_heads * config.head_dim;
  sizes.key = config.num_key_value_heads * config.head_dim;
  sizes.vocab = config.vocab_size;
  const int64_t attention =
      config.attention_dropout > 0 ? sizes.composed_attention_saved() : sizes.flash_attention_saved();
  const int64_t feed_forward = sizes.bytes((num_saved(config.hidden_act) + 2) * sizes.inner);
  const int64_t num_weights = 2 * sizes.hidden * (sizes.query + sizes.key) + 3 * sizes.hidden * sizes.inner;
  CostTable costs(spec);
  costs.set("", loss_cost(sizes));
  costs.set("model.embed_tokens", embedding_cost(sizes, config.vocab_size));
  costs.set_blocks("LlamaDecoderLayer",
                   block_cost(sizes, 2 * sizes.rms_norm_saved() + attention + feed_forward, num_weights, batch));
  costs.set("model.norm", {.saved_bytes = sizes.rms_norm_saved(),
                           .forward_workspace_bytes = 2 * sizes.tokens * sizes.hidden * kWide,
                           .backward_workspace_bytes = 3 * sizes.tokens * sizes.hidden * kWide});
  costs.set("lm_head", head_cost(sizes, config.tie_word_embeddings));
}

void add_costs(ModelSpec& spec, const models::Gpt2Config& config, const BatchShape& batch, c10::ScalarType dtype) {
  HYDROFOIL_CHECK_ARG(batch.sequence_length <= config.n_positions, "plan", "sequence length: got ",
                      batch.sequence_length, ", expected at most ", config.n_positions, ", the model's n_positions");
  Sizes sizes = sizes_of(batch, dtype);
  sizes.hidden = sizes.query = sizes.key = config.n_embd;
  sizes.inner = config.n_inner;
  sizes.heads = config.n_head;
  sizes.vocab = config.vocab_size;
  const int64_t attention = config.attn_pdrop > 0 ? sizes.composed_attention_saved() : sizes.flash_attention_saved();
  const int64_t dropped = config.resid_pdrop > 0 ? 2 * sizes.bytes(sizes.hidden) : 0;
  // A layer norm keeps its input, and its output goes into a product that keeps it; two numbers a row.
  const int64_t norm = 2 * sizes.bytes(sizes.hidden) + 2 * sizes.tokens * kWide;
  const int64_t feed_forward = sizes.bytes(num_saved(config.activation_function) * sizes.inner);
  const int64_t num_weights = 4 * sizes.hidden * sizes.hidden + 2 * sizes.hidden * sizes.inner;
  CostTable costs(spec);
  costs.set("", loss_cost(sizes));
  costs.set("transformer.wte", embedding_cost(sizes, config.vocab_size));
  costs.set("transformer.wpe", embedding_cost(sizes, config.n_positions));
  if (config.embd_pdrop > 0) costs.set("transformer.drop", {.saved_bytes = sizes.bytes(sizes.hidden)});
  costs.set_blocks("GPT2Block", block_cost(sizes, 2 * norm + attention + dropped + feed_forward, num_weights, batch));
  costs.set("transformer.ln_f", {.saved_bytes = norm,
                                 .forward_workspace_bytes = sizes.bytes(sizes.hidden),
                                 .backward_workspace_bytes = 2 * sizes.bytes(sizes.hidden)});
  costs.set("lm_head", head_cost(sizes, config.tie_word_embeddings));
}

}  // namespace

void BatchShape::validate() const {
  HYDROFOIL_CHECK_ARG(micro_batch_size >= 1, "plan", "micro batch: got ", micro_batch_size, ", expected at least 1");
  HYDROFOIL_CHECK_ARG(sequence_length >= 1, "plan", "sequence length: got ", sequence_length, ", expected at least 1");
}

ModelSpec transformer_spec(const models::ModelConfig& config, const BatchShape& batch, c10::ScalarType dtype) {
  batch.validate();
  const models::ModelOutline outline = models::outline_model(config);
  ModelSpec spec;
  spec.modules = outline.modules;
  for (const auto& parameter : outline.parameters) {
    spec.parameters.push_back({parameter.name, parameter.numel(), dtype, true});
  }
  std::visit([&](const auto& family) { add_costs(spec, family, batch, dtype); }, config.family);
  return spec;
}

}  // namespace hydrofoil::plan
