// A Llama of one's own in torch::nn: each block is a unit, though small ones would be merged without unit_min_bytes.
// Learns to continue "0 1 2 3 ..." from any start: `hydrofoil run --no-python --nproc 2 llama_block`.
#include <torch/torch.h>

#include <iostream>

#include "hydrofoil/engine/torch_nn.h"

namespace nn = torch::nn;
using hydrofoil::engine::CallsChildren;
using torch::Tensor;

struct Sizes {
  int64_t vocabulary = 32, width = 64, heads = 4, hidden = 128, blocks = 2;
};

// Turns each pair of halves of a head by an angle that grows with the position.
Tensor rotate(const Tensor& x) {
  const int64_t length = x.size(-2), half = x.size(-1) / 2;
  const auto speeds = torch::pow(10000.0, -torch::arange(half) / static_cast<double>(half));
  const auto angles = torch::outer(torch::arange(length), speeds);
  const auto first = x.narrow(-1, 0, half), second = x.narrow(-1, half, half);
  const auto cos = angles.cos(), sin = angles.sin();
  return torch::cat({first * cos - second * sin, second * cos + first * sin}, -1);
}

struct RmsNormImpl : nn::Module {
  explicit RmsNormImpl(int64_t width) { weight = register_parameter("weight", torch::ones({width})); }
  Tensor forward(const Tensor& x) { return weight * x * torch::rsqrt(x.square().mean(-1, true) + 1e-6); }
  Tensor weight;
};
TORCH_MODULE(RmsNorm);

nn::Linear linear(int64_t in, int64_t out) { return nn::Linear(nn::LinearOptions(in, out).bias(false)); }

struct BlockImpl : nn::Module, CallsChildren {
  explicit BlockImpl(const Sizes& sizes) : heads(sizes.heads) {
    attention_norm = register_module("attention_norm", RmsNorm(sizes.width));
    qkv = register_module("qkv", linear(sizes.width, 3 * sizes.width));
    out = register_module("out", linear(sizes.width, sizes.width));
    mlp_norm = register_module("mlp_norm", RmsNorm(sizes.width));
    gate_up = register_module("gate_up", linear(sizes.width, 2 * sizes.hidden));
    down = register_module("down", linear(sizes.hidden, sizes.width));
  }
  Tensor forward(Tensor x) {
    x = x + attend(call(attention_norm, x));
    const auto parts = call(gate_up, call(mlp_norm, x)).chunk(2, -1);
    return x + call(down, torch::silu(parts[0]) * parts[1]);
  }
  Tensor attend(const Tensor& x) {
    const auto parts = call(qkv, x).chunk(3, -1);
    const auto split = [&](const Tensor& t) { return t.unflatten(-1, {heads, -1}).transpose(1, 2); };
    const auto mixed = at::scaled_dot_product_attention(rotate(split(parts[0])), rotate(split(parts[1])),
                                                        split(parts[2]), {}, 0.0, /*is_causal=*/true);
    return call(out, mixed.transpose(1, 2).flatten(2));
  }
  int64_t heads;
  RmsNorm attention_norm{nullptr}, mlp_norm{nullptr};
  nn::Linear qkv{nullptr}, out{nullptr}, gate_up{nullptr}, down{nullptr};
};
TORCH_MODULE(Block);

struct LlamaImpl : nn::Module, CallsChildren {
  explicit LlamaImpl(const Sizes& sizes) {
    embed = register_module("embed", nn::Embedding(sizes.vocabulary, sizes.width));
    blocks = register_module("blocks", nn::ModuleList());
    for (int64_t i = 0; i < sizes.blocks; ++i) blocks->push_back(Block(sizes));
    norm = register_module("norm", RmsNorm(sizes.width));
    head = register_module("head", linear(sizes.width, sizes.vocabulary));
  }
  Tensor forward(const Tensor& tokens) {
    auto x = call(embed, tokens);
    for (size_t i = 0; i < blocks->size(); ++i) x = call(blocks->at<BlockImpl>(i), x);
    return call(head, call(norm, x));
  }
  nn::Embedding embed{nullptr};
  nn::ModuleList blocks{nullptr};
  RmsNorm norm{nullptr};
  nn::Linear head{nullptr};
};
TORCH_MODULE(Llama);

int main() {
  const Sizes sizes;
  hydrofoil::comm::Job job;
  torch::manual_seed(0);  // the same weights on every rank
  auto engine = hydrofoil::engine::initialize(Llama(sizes), R"({
    "train_batch_size": 16,
    "optimizer": {"type": "AdamW", "params": {"lr": 3e-3}},
    "zero_optimization": {"stage": 3},
    "hydrofoil": {"unit_min_bytes": 0}
  })",
                                              job);
  const int64_t own = 16 / job.world_size();
  for (int64_t step = 1; step <= 60; ++step) {
    const auto starts = torch::arange(16).narrow(0, job.rank() * own, own).add(step * 7).unsqueeze(1);
    const auto tokens = (starts + torch::arange(17)).remainder(sizes.vocabulary);
    const auto logits = engine(tokens.narrow(1, 0, 16));
    const auto loss = nn::functional::cross_entropy(logits.flatten(0, 1), tokens.narrow(1, 1, 16).flatten());
    engine->backward(loss);
    engine->step();
    if (step % 10 == 0 && job.is_first()) std::cout << "step " << step << "  loss " << loss.item<float>() << '\n';
  }
}
