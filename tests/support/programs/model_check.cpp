// model_check MODEL_DIRECTORY INPUT.safetensors OUTPUT.safetensors [float32|bfloat16] [SEED]
//
// Loads a Hugging Face model and runs INPUT's `tokens` through it. OUTPUT gets `logits`, `loss` (next-token cross
// entropy) and `grad.<name>` of every parameter, and as metadata the paths of the tree's modules and the names of its
// parameters, a line each. With SEED the model trains (dropout), after torch.manual_seed(SEED). Exit codes: 0 done,
// 1 an error, printed.
#include <ATen/Context.h>
#include <ATen/core/Tensor.h>
#include <ATen/ops/empty.h>

#include <cstdio>
#include <cstdlib>
#include <exception>
#include <string>

#include "hydrofoil/memory/torch_dtype.h"
#include "hydrofoil/models/weights.h"
#include "hydrofoil/storage/safetensors.h"

namespace {

using hydrofoil::models::CausalLM;
using hydrofoil::storage::SafetensorsReader;
using hydrofoil::storage::SafetensorsWriter;

at::Tensor read_tensor(const SafetensorsReader& reader, const std::string& name) {
  const auto& entry = reader.entry(name);
  at::Tensor tensor = at::empty(entry.shape, at::TensorOptions().dtype(hydrofoil::memory::to_torch_dtype(entry.dtype)));
  reader.read(entry, 0, entry.num_bytes, tensor.mutable_data_ptr());
  return tensor;
}

std::string lines_of(const auto& things, auto&& text_of) {
  std::string lines;
  for (const auto& thing : things) lines += text_of(thing) + "\n";
  return lines;
}

void write(const std::string& path, CausalLM& model, const at::Tensor& logits, const at::Tensor& loss) {
  SafetensorsWriter writer(path);
  const auto& tree = model.tree();
  writer.set_metadata("modules", lines_of(tree.modules, [](const auto& module) { return module.path; }));
  writer.set_metadata("parameters", lines_of(tree.parameters, [](const auto& parameter) { return parameter.name; }));
  std::vector<std::pair<std::string, at::Tensor>> tensors = {{"logits", logits.detach()}, {"loss", loss.detach()}};
  for (const auto& parameter : tree.parameters) {
    if (parameter.parameter.grad().defined())
      tensors.emplace_back("grad." + parameter.name, parameter.parameter.grad());
  }
  for (auto& [name, tensor] : tensors) {
    tensor = tensor.contiguous();
    writer.add(name, hydrofoil::memory::to_storage_dtype(tensor.scalar_type()), tensor.sizes().vec());
  }
  for (const auto& [name, tensor] : tensors) {
    writer.write(name, tensor.const_data_ptr(), static_cast<int64_t>(tensor.nbytes()));
  }
  writer.finish();
}

void run(int argc, char** argv) {
  const std::string directory = argv[1];
  const bool is_narrow = argc > 4 && std::string(argv[4]) == "bfloat16";
  auto model = hydrofoil::models::make_model(hydrofoil::models::load_model_config(directory),
                                             is_narrow ? at::kBFloat16 : at::kFloat);
  hydrofoil::models::load_weights(*model, directory);
  model->train(argc > 5);
  const SafetensorsReader input(argv[2]);
  const at::Tensor tokens = read_tensor(input, "tokens");
  const at::Tensor logits = model->forward(tokens);
  if (argc > 5) at::manual_seed(std::strtoull(argv[5], nullptr, 10));
  const at::Tensor loss = model->loss(tokens, hydrofoil::models::next_token_targets(tokens));
  loss.backward();
  write(argv[3], *model, logits, loss);
}

}  // namespace

int main(int argc, char** argv) {
  if (argc < 4) {
    std::fprintf(stderr, "usage: model_check MODEL_DIRECTORY INPUT OUTPUT [float32|bfloat16] [SEED]\n");
    return 1;
  }
  try {
    run(argc, argv);
  } catch (const std::exception& error) {
    std::fprintf(stderr, "%s\n", error.what());
    return 1;
  }
  return 0;
}
