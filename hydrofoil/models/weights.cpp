#include "hydrofoil/models/weights.h"

#include <ATen/core/grad_mode.h>
#include <ATen/ops/empty.h>

#include <algorithm>
#include <cstring>
#include <filesystem>
#include <map>
#include <string_view>
#include <variant>
#include <vector>

#include "hydrofoil/base/error.h"
#include "hydrofoil/base/nearest.h"
#include "hydrofoil/memory/torch_dtype.h"
#include "hydrofoil/models/detail/weight_files.h"

namespace hydrofoil::models {
namespace {

constexpr const char* kFunction = "load_weights";
constexpr int64_t kCompareBytes = 1 << 20;

// Name in the model, where the tensor lies.
using Sources = std::map<std::string, StoredTensor>;

// What Transformers once kept in files although it follows from the config.
bool is_old_buffer(const ModelConfig& config, std::string_view name) {
  if (std::holds_alternative<LlamaConfig>(config.family)) return name.ends_with(".rotary_emb.inv_freq");
  return name.ends_with(".attn.bias") || name.ends_with(".attn.masked_bias");
}

// The names under which the model's modules hold each parameter; a tied one has several.
std::vector<std::vector<std::string>> names_of_parameters(const zero::ModelTree& tree) {
  std::vector<std::vector<std::string>> names(tree.parameters.size());
  for (const zero::ModuleNode& module : tree.modules) {
    for (const int64_t index : module.parameters) {
      const std::string& first = tree.parameters[static_cast<size_t>(index)].name;
      names[static_cast<size_t>(index)].push_back(module.path + first.substr(first.rfind('.')));
    }
  }
  return names;
}

Sources sources_of(const CausalLM& model, const WeightFiles& files) {
  // The base model is the root's first child: "model", "transformer". Files of it alone have names without that.
  const std::string prefix = model.tree().modules.at(1).path + ".";
  const bool is_bare = std::none_of(files.tensors().begin(), files.tensors().end(),
                                    [&](const StoredTensor& stored) { return stored.entry->name.starts_with(prefix); });
  Sources sources;
  for (const StoredTensor& stored : files.tensors()) {
    const std::string& name = stored.entry->name;
    if (is_old_buffer(model.config(), name)) continue;
    sources.emplace(is_bare && !name.starts_with("lm_head.") ? prefix + name : name, stored);
  }
  return sources;
}

void check_extra(const Sources& sources, const std::vector<std::vector<std::string>>& names) {
  std::vector<std::string> known;
  for (const auto& aliases : names) known.insert(known.end(), aliases.begin(), aliases.end());
  std::sort(known.begin(), known.end());
  for (const auto& [name, stored] : sources) {
    HYDROFOIL_CHECK_ARG(std::binary_search(known.begin(), known.end(), name), kFunction, "'", stored.file->path(),
                        "': tensor '", stored.entry->name, "': got one that the model of this config does not have",
                        ", expected only its own; the nearest is '", nearest_name(name, known), "'");
  }
}

void check_fits(const StoredTensor& stored, const at::Tensor& parameter) {
  HYDROFOIL_CHECK_ARG(parameter.sizes() == stored.entry->shape, kFunction, "'", stored.file->path(), "': tensor '",
                      stored.entry->name, "': got shape ", at::IntArrayRef(stored.entry->shape), ", expected ",
                      parameter.sizes());
  HYDROFOIL_CHECK_ARG(c10::isFloatingType(memory::to_torch_dtype(stored.entry->dtype)), kFunction, "'",
                      stored.file->path(), "': tensor '", stored.entry->name, "': got dtype ",
                      storage::dtype_name(stored.entry->dtype), ", expected F64, F32, F16 or BF16");
}

void check_equal(const StoredTensor& a, const StoredTensor& b) {
  bool is_equal = a.entry->dtype == b.entry->dtype;
  std::vector<char> of_a;
  std::vector<char> of_b;
  for (int64_t offset = 0; is_equal && offset < a.entry->num_bytes; offset += kCompareBytes) {
    const int64_t num_bytes = std::min(kCompareBytes, a.entry->num_bytes - offset);
    of_a.resize(static_cast<size_t>(num_bytes));
    of_b.resize(static_cast<size_t>(num_bytes));
    a.file->read(*a.entry, offset, num_bytes, of_a.data());
    b.file->read(*b.entry, offset, num_bytes, of_b.data());
    is_equal = of_a == of_b;
  }
  HYDROFOIL_CHECK_ARG(is_equal, kFunction, "'", b.file->path(), "': tensor '", b.entry->name,
                      "': got other values than ", "'", a.entry->name,
                      "', expected the same ones, because tie_word_embeddings is true");
}

// The tensor to read for each parameter of the tree, all checked.
std::vector<StoredTensor> match(const zero::ModelTree& tree, const Sources& sources, const std::string& path) {
  const auto names = names_of_parameters(tree);
  std::vector<StoredTensor> chosen;
  for (size_t p = 0; p < names.size(); ++p) {
    std::vector<StoredTensor> found;
    for (const std::string& name : names[p]) {
      const auto source = sources.find(name);
      if (source != sources.end()) found.push_back(source->second);
    }
    HYDROFOIL_CHECK_ARG(!found.empty(), kFunction, "'", path, "': tensor '", names[p].front(),
                        "': got none, expected one of shape ", tree.parameters[p].parameter.sizes(),
                        names[p].front() == "lm_head.weight" ? " because tie_word_embeddings is false" : "");
    for (const StoredTensor& stored : found) check_fits(stored, tree.parameters[p].parameter);
    for (size_t other = 1; other < found.size(); ++other) check_equal(found[0], found[other]);
    chosen.push_back(found[0]);
  }
  check_extra(sources, names);
  return chosen;
}

void read_into(at::Tensor& parameter, const StoredTensor& stored) {
  const c10::ScalarType dtype = memory::to_torch_dtype(stored.entry->dtype);
  const bool is_direct = parameter.scalar_type() == dtype && parameter.is_cpu() && parameter.is_contiguous();
  at::Tensor values = is_direct ? parameter.detach() : at::empty(stored.entry->shape, at::TensorOptions().dtype(dtype));
  stored.file->read(*stored.entry, 0, stored.entry->num_bytes, values.mutable_data_ptr());
  if (!is_direct) parameter.copy_(values);
}

}  // namespace

void load_weights(CausalLM& model, const std::string& path) {
  zero::ModelTree& tree = model.tree();
  HYDROFOIL_CHECK_ARG(!tree.boundaries->attached(), kFunction,
                      "the model belongs to an engine; expected a call before an engine takes it over");
  const WeightFiles files(path);
  const std::vector<StoredTensor> chosen = match(tree, sources_of(model, files), path);
  const at::NoGradGuard no_grad;
  for (size_t p = 0; p < chosen.size(); ++p) read_into(tree.parameters[p].parameter, chosen[p]);
}

}  // namespace hydrofoil::models
