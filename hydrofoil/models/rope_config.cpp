#include <algorithm>
#include <array>
#include <cmath>
#include <nlohmann/json.hpp>
#include <utility>

#include "hydrofoil/base/error.h"
#include "hydrofoil/models/detail/read_family.h"

namespace hydrofoil::models {
namespace {

constexpr std::array<std::pair<const char*, RopeType>, 6> kTypes = {{{"default", RopeType::kDefault},
                                                                     {"linear", RopeType::kLinear},
                                                                     {"dynamic", RopeType::kDynamic},
                                                                     {"yarn", RopeType::kYarn},
                                                                     {"longrope", RopeType::kLongrope},
                                                                     {"llama3", RopeType::kLlama3}}};

constexpr double kMaxTheta = 1e30;
constexpr double kMaxFactor = 1e9;
constexpr double kMinFactor = 1e-9;

RopeType read_type(ConfigFields& fields) {
  const auto old_name = fields.optional_string("type");
  const auto new_name = fields.optional_string("rope_type");
  const std::string key = new_name.has_value() ? "rope_type" : "type";
  if (old_name.has_value() && new_name.has_value() && *old_name != *new_name) {
    fields.fail("rope_type", "the value of type (\"" + *old_name + "\")");
  }
  const std::string name = new_name.value_or(old_name.value_or("default"));
  std::string expected;
  for (const auto& [known, type] : kTypes) {
    if (name == known) return type;
    expected += (expected.empty() ? "" : ", ") + std::string(known);
  }
  fields.fail(key, expected);
}

double required_number(ConfigFields& fields, const std::string& name, double low, double high) {
  const auto value = fields.optional_number(name, low, high);
  if (!value.has_value()) fields.fail(name, "a number");
  return *value;
}

std::vector<double> required_numbers(ConfigFields& fields, const std::string& name, int64_t size) {
  std::vector<double> values = fields.numbers(name, static_cast<size_t>(size), kMinFactor, kMaxFactor);
  if (!fields.contains(name)) fields.fail(name, detail::concat("a list of ", size, " numbers"));
  return values;
}

// The keys that `rope.type` reads.
void read_scaling(ConfigFields& fields, RopeOptions& rope, int64_t head_dim, double stretch) {
  switch (rope.type) {
    case RopeType::kDefault:
      break;
    case RopeType::kLinear:
    case RopeType::kDynamic:
      rope.factor = required_number(fields, "factor", 1.0, kMaxFactor);
      break;
    case RopeType::kYarn:
      rope.factor = fields.optional_number("factor", 1.0, kMaxFactor).value_or(stretch);
      rope.attention_factor = fields.optional_number("attention_factor", 0.0, kMaxFactor);
      rope.mscale = fields.optional_number("mscale", 0.0, kMaxFactor).value_or(0.0);
      rope.mscale_all_dim = fields.optional_number("mscale_all_dim", 0.0, kMaxFactor).value_or(0.0);
      rope.truncate = fields.boolean("truncate", true);
      // Transformers takes 0 for a value that is not given.
      if (const double beta = fields.optional_number("beta_fast", 0.0, kMaxFactor).value_or(0.0); beta != 0.0) {
        rope.beta_fast = beta;
      }
      if (const double beta = fields.optional_number("beta_slow", 0.0, kMaxFactor).value_or(0.0); beta != 0.0) {
        rope.beta_slow = beta;
      }
      fields.ignore({"finetuned"});
      break;
    case RopeType::kLongrope:
      rope.factor = fields.optional_number("factor", 1.0, kMaxFactor).value_or(std::max(stretch, 1.0));
      rope.attention_factor = fields.optional_number("attention_factor", 0.0, kMaxFactor);
      rope.short_factor = required_numbers(fields, "short_factor", head_dim / 2);
      rope.long_factor = required_numbers(fields, "long_factor", head_dim / 2);
      break;
    case RopeType::kLlama3:
      rope.factor = required_number(fields, "factor", 1.0, kMaxFactor);
      rope.low_freq_factor = required_number(fields, "low_freq_factor", kMinFactor, kMaxFactor);
      rope.high_freq_factor = required_number(fields, "high_freq_factor", kMinFactor, kMaxFactor);
      break;
  }
}

bool has_original_length(RopeType type) {
  return type == RopeType::kYarn || type == RopeType::kLongrope || type == RopeType::kLlama3;
}

}  // namespace

RopeOptions read_rope(ConfigFields& fields, const std::string& file, int64_t head_dim,
                      int64_t max_position_embeddings) {
  RopeOptions rope;
  rope.theta = fields.optional_number("rope_theta", 0.0, kMaxTheta).value_or(rope.theta);
  const auto original = fields.optional_integer("original_max_position_embeddings", 1, kMaxPositions);
  const nlohmann::json* old_form = fields.optional_object("rope_scaling");
  const nlohmann::json* new_form = fields.optional_object("rope_parameters");
  if (old_form != nullptr && new_form != nullptr && *old_form != *new_form) {
    fields.fail("rope_scaling", "the same as rope_parameters, or only one of them");
  }
  const bool is_old = new_form == nullptr || new_form->empty();
  const nlohmann::json* form = is_old ? old_form : new_form;
  if (form == nullptr) return rope;

  ConfigFields own(*form, is_old ? "rope_scaling." : "rope_parameters.", file);
  rope.type = read_type(own);
  rope.theta = own.optional_number("rope_theta", 0.0, kMaxTheta).value_or(rope.theta);
  own.expect("partial_rotary_factor", "1.0");
  if (has_original_length(rope.type)) {
    const auto own_original = own.optional_integer("original_max_position_embeddings", 1, kMaxPositions);
    rope.original_max_position_embeddings = original.value_or(own_original.value_or(max_position_embeddings));
  }
  const double stretch = has_original_length(rope.type) ? static_cast<double>(max_position_embeddings) /
                                                              static_cast<double>(rope.original_max_position_embeddings)
                                                        : 1.0;
  read_scaling(own, rope, head_dim, stretch);
  own.finish();
  return rope;
}

void validate(const RopeOptions& rope, int64_t head_dim, const std::string& place) {
  const auto check = [&](bool holds, const char* name, auto value, const char* expected) {
    HYDROFOIL_CHECK_ARG(holds, "model_config", place, name, ": got ", value, ", expected ", expected);
  };
  const bool is_dynamic = rope.type == RopeType::kDynamic;
  const bool is_longrope = rope.type == RopeType::kLongrope;
  check(head_dim % 2 == 0, "head_dim", head_dim, "an even number, which rotary embedding needs");
  check(!is_dynamic || head_dim > 2, "head_dim", head_dim, "more than 2, which dynamic rotary embedding needs");
  check(rope.theta > 1.0 && rope.theta <= kMaxTheta, "rope_theta", rope.theta, "a number over 1 and up to 1e30");
  check(rope.factor >= 1.0 && rope.factor <= kMaxFactor, "rope factor", rope.factor, "a number from 1 to 1e9");
  check(!has_original_length(rope.type) || rope.original_max_position_embeddings >= 2,
        "original_max_position_embeddings", rope.original_max_position_embeddings, "at least 2");
  check(rope.type != RopeType::kYarn || (rope.beta_slow > 0.0 && rope.beta_fast >= rope.beta_slow), "beta_fast",
        rope.beta_fast, "at least beta_slow, which is over 0");
  check(rope.type != RopeType::kLlama3 || (rope.low_freq_factor > 0.0 && rope.high_freq_factor > rope.low_freq_factor),
        "high_freq_factor", rope.high_freq_factor, "more than low_freq_factor, which is over 0");
  const auto half = static_cast<size_t>(head_dim / 2);
  check(!is_longrope || rope.short_factor.size() == half, "short_factor", rope.short_factor.size(),
        "head_dim / 2 numbers");
  check(!is_longrope || rope.long_factor.size() == half, "long_factor", rope.long_factor.size(),
        "head_dim / 2 numbers");
}

}  // namespace hydrofoil::models
