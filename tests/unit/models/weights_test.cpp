#include "hydrofoil/models/weights.h"

#include <ATen/core/grad_mode.h>
#include <ATen/ops/equal.h>
#include <ATen/ops/full.h>
#include <gtest/gtest.h>

#include <fstream>
#include <map>
#include <string>

#include "hydrofoil/base/error.h"
#include "hydrofoil/memory/torch_dtype.h"
#include "hydrofoil/storage/safetensors.h"
#include "tests/support/temporary_directory.h"

namespace hydrofoil::models {
namespace {

using Tensors = std::map<std::string, at::Tensor>;

ModelConfig small_gpt2(bool tied) {
  Gpt2Config gpt2;
  gpt2.vocab_size = 7;
  gpt2.n_positions = 4;
  gpt2.n_embd = 4;
  gpt2.n_layer = 1;
  gpt2.n_head = 2;
  gpt2.n_inner = 6;
  gpt2.tie_word_embeddings = tied;
  return {gpt2, std::nullopt};
}

void write_file(const std::string& path, const Tensors& tensors) {
  storage::SafetensorsWriter writer(path);
  for (const auto& [name, tensor] : tensors) {
    writer.add(name, memory::to_storage_dtype(tensor.scalar_type()), tensor.sizes().vec());
  }
  for (const auto& [name, tensor] : tensors) {
    writer.write(name, tensor.const_data_ptr(), static_cast<int64_t>(tensor.nbytes()));
  }
  writer.finish();
}

class Weights : public testing::Test {
 protected:
  Weights() {
    source_ = make_model(small_gpt2(true));
    initialize_weights(*source_, 1);
    for (const auto& parameter : source_->tree().parameters) tensors_[parameter.name] = parameter.parameter.detach();
  }

  std::string file(const std::string& name = "model.safetensors") const { return directory_.path() + "/" + name; }

  void write_text(const std::string& name, const std::string& text) const { std::ofstream(file(name)) << text; }

  // What load_weights says of `path` for a model of `config`; "" for no error.
  std::string error_of(const std::string& path, const ModelConfig& config = small_gpt2(true)) const {
    const auto model = make_model(config);
    try {
      load_weights(*model, path);
    } catch (const InvalidArgument& error) {
      // Nothing was written.
      for (const auto& parameter : model->tree().parameters) {
        EXPECT_EQ(parameter.parameter.abs().max().item<double>(), 0.0) << parameter.name;
      }
      return error.what();
    }
    return "";
  }

  void expect_loads(const std::string& path) const {
    const auto model = make_model(small_gpt2(true));
    load_weights(*model, path);
    for (size_t p = 0; p < model->tree().parameters.size(); ++p) {
      const auto& loaded = model->tree().parameters[p];
      EXPECT_TRUE(at::equal(loaded.parameter, source_->tree().parameters[p].parameter)) << loaded.name;
      EXPECT_TRUE(loaded.parameter.requires_grad());
    }
  }

  storage::TemporaryDirectory directory_;
  std::unique_ptr<CausalLM> source_;
  Tensors tensors_;
};

#define EXPECT_CONTAINS(text, part) EXPECT_NE((text).find(part), std::string::npos) << (text)

TEST_F(Weights, LoadFromAFileAndItsDirectory) {
  write_file(file(), tensors_);
  expect_loads(file());
  expect_loads(directory_.path());
}

TEST_F(Weights, LoadFromShards) {
  Tensors first = tensors_;
  const Tensors second = {*first.begin()};
  first.erase(first.begin());
  write_file(file("a.safetensors"), first);
  write_file(file("b.safetensors"), second);
  std::string map;
  for (const auto& [name, tensor] : first) map += "\"" + name + "\": \"a.safetensors\", ";
  const std::string whole = map + "\"" + second.begin()->first + "\": \"b.safetensors\"";
  write_text("model.safetensors.index.json", "{\"metadata\": {}, \"weight_map\": {" + whole + "}}");
  expect_loads(directory_.path());
  expect_loads(file("model.safetensors.index.json"));

  // A shard holds what the index does not place there, and the other way round.
  write_file(file("b.safetensors"), {*second.begin(), *first.begin()});
  EXPECT_CONTAINS(error_of(directory_.path()), "does not place there");
  write_file(file("b.safetensors"), {{"other", at::full({1}, 1.0)}});
  EXPECT_CONTAINS(error_of(directory_.path()), "tensor '" + second.begin()->first + "': got none");
}

TEST_F(Weights, LoadFilesOfTheBareModelWithItsOldBuffers) {
  Tensors bare = {{"h.0.attn.bias", at::full({1, 1, 4, 4}, 1, at::kByte)}};
  for (const auto& [name, tensor] : tensors_) bare[name.substr(std::string("transformer.").size())] = tensor;
  write_file(file(), bare);
  expect_loads(file());
}

TEST_F(Weights, ConvertTheDtype) {
  Tensors narrow;
  for (const auto& [name, tensor] : tensors_) narrow[name] = tensor.to(at::kDouble);
  write_file(file(), narrow);
  expect_loads(file());
}

TEST_F(Weights, TakeATiedHeadThatIsEqual) {
  tensors_["lm_head.weight"] = tensors_["transformer.wte.weight"];
  write_file(file(), tensors_);
  expect_loads(file());
  tensors_["lm_head.weight"] = at::full({7, 4}, 1.0);
  write_file(file(), tensors_);
  EXPECT_CONTAINS(error_of(file()), "'lm_head.weight': got other values than 'transformer.wte.weight'");
  tensors_.erase("transformer.wte.weight");
  write_file(file(), tensors_);
  EXPECT_EQ(error_of(file()), "");
}

TEST_F(Weights, NameWhatIsWrong) {
  write_file(file(), tensors_);
  EXPECT_CONTAINS(error_of(file(), small_gpt2(false)), "'lm_head.weight': got none, expected one of shape [7, 4]");
  Tensors wrong = tensors_;
  wrong.erase("transformer.h.0.ln_1.bias");
  write_file(file(), wrong);
  EXPECT_CONTAINS(error_of(file()), "'transformer.h.0.ln_1.bias': got none, expected one of shape [4]");
  wrong = tensors_;
  wrong["transformer.h.1.ln_1.bias"] = at::full({4}, 1.0);
  write_file(file(), wrong);
  EXPECT_CONTAINS(error_of(file()), "tensor 'transformer.h.1.ln_1.bias': got one that the model");
  EXPECT_CONTAINS(error_of(file()), "the nearest is 'transformer.h.0.ln_1.bias'");
  wrong = tensors_;
  wrong["transformer.wpe.weight"] = at::full({4, 5}, 1.0);
  write_file(file(), wrong);
  EXPECT_CONTAINS(error_of(file()), "'transformer.wpe.weight': got shape [4, 5], expected [4, 4]");
  wrong["transformer.wpe.weight"] = at::full({4, 4}, 1, at::kInt);
  write_file(file(), wrong);
  EXPECT_CONTAINS(error_of(file()), "'transformer.wpe.weight': got dtype I32, expected F64, F32, F16 or BF16");
}

TEST_F(Weights, RefuseHostileFiles) {
  EXPECT_CONTAINS(error_of(directory_.path()), "expected 'model.safetensors' or 'model.safetensors.index.json'");
  write_text("model.safetensors", "no safetensors file");
  EXPECT_CONTAINS(error_of(file()), "model.safetensors");
  const std::string index = "x.safetensors.index.json";
  for (const char* text :
       {"[]", "{}", R"({"weight_map": {}})", R"({"weight_map": []})", R"({"weight_map": {"a": 1}})",
        R"({"weight_map": {"a": "../model.safetensors"}})", R"({"weight_map": {"a": "/etc/passwd"}})",
        R"({"weight_map": {"a": ".."}})", R"({"weight_map": {"a": ""}})", R"({"weight_map": {"a": "b\u0000c"}})"}) {
    write_text(index, text);
    EXPECT_CONTAINS(error_of(file(index)), "weight_map") << text;
  }
  write_text(index, "{\"weight_map\"");
  EXPECT_CONTAINS(error_of(file(index)), "invalid JSON");
  const auto model = make_model(small_gpt2(true));
  write_text(index, R"({"weight_map": {"a": "none.safetensors"}})");
  EXPECT_THROW(load_weights(*model, file(index)), SystemError);
  EXPECT_THROW(load_weights(*model, file("none.safetensors")), SystemError);
}

}  // namespace
}  // namespace hydrofoil::models
