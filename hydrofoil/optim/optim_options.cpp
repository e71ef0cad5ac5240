#include "hydrofoil/optim/optim_options.h"

#include <algorithm>

#include "hydrofoil/base/nearest.h"
#include "hydrofoil/optim/detail/typed_section.h"

namespace hydrofoil::optim {
namespace {

using config::accepted;
using config::field;
using config::Field;
using config::later;
using config::plain;
using config::Section;
using config::Value;

Field adam_w_mode_field() {
  return field("adam_w_mode", &OptimizerParams::adam_w_mode,
               "type Adam decays the weights as AdamW does; false: L2 as torch's Adam")
      .alias("adamw_mode");
}

Field fp32_states_field() {
  return field("fp32_optimizer_states", &OptimizerParams::fp32_optimizer_states,
               "states in fp32; false: in bf16, as bf16.bf16_optimizer_states")
      .derived("true, unless bf16.bf16_optimizer_states");
}

Field lr_field(double value) { return field("lr", &OptimizerParams::lr, "learning rate").at_least(0).preset(value); }

Field betas_field() {
  Field betas = field("betas", &OptimizerParams::betas, "decay rates of the running averages").range(0, 1);
  betas.below_maximum = true;
  betas.length = 2;
  return betas;
}

Field eps_field(double value) {
  return field("eps", &OptimizerParams::eps, "added to the denominator").at_least(0).preset(value);
}

Field weight_decay_field() { return field("weight_decay", &OptimizerParams::weight_decay, "weight decay").at_least(0); }

// Arguments of torch.optim's own implementations.
std::vector<Field> implementation_fields() {
  return {
      accepted("foreach", {}, "one fused kernel over flat shards"),
      accepted("fused", {}, "always fused"),
      accepted("set_grad_none", true, "gradients live in flat buckets"),
      later("maximize", false),
      later("capturable", false),
      later("differentiable", false),
  };
}

Section params_section(std::vector<Field> fields) {
  Section section;
  section.fields = std::move(fields);
  const auto more = implementation_fields();
  section.fields.insert(section.fields.end(), more.begin(), more.end());
  return section;
}

Section adam_section() {
  return params_section({
      lr_field(1e-3),
      betas_field(),
      eps_field(1e-8),
      weight_decay_field().derived("0; with torch_adam and the decay of AdamW 0.01, torch.optim.AdamW's"),
      field("bias_correction", &OptimizerParams::bias_correction, "correct the averages' start at zero"),
      adam_w_mode_field(),
      later("amsgrad", false),
      accepted("torch_adam", false, "one implementation, equal to torch's"),
      fp32_states_field(),
  });
}

Section sgd_section() {
  return params_section({
      lr_field(1e-3),
      field("momentum", &OptimizerParams::momentum, "momentum").at_least(0),
      field("dampening", &OptimizerParams::dampening, "dampening of the momentum"),
      weight_decay_field(),
      field("nesterov", &OptimizerParams::nesterov, "Nesterov momentum; needs momentum > 0 and dampening 0"),
  });
}

Section adagrad_section() {
  return params_section({
      lr_field(1e-2),
      eps_field(1e-10),
      weight_decay_field(),
      later("lr_decay", 0.0),
      later("initial_accumulator_value", 0.0),
      later("amsgrad", false),
      fp32_states_field(),
  });
}

Section lion_section() {
  return params_section({
      lr_field(1e-3),
      betas_field(),
      weight_decay_field(),
      fp32_states_field(),
  });
}

const std::vector<std::string>& later_types() {
  static const std::vector<std::string> names = {"Lamb",   "OneBitAdam", "ZeroOneAdam", "OneBitLamb",
                                                 "MuAdam", "MuAdamW",    "MuSGD",       "Muon"};
  return names;
}

// What torch.optim holds besides the native types.
const std::vector<std::string>& torch_types() {
  static const std::vector<std::string> names = {"Adadelta", "Adafactor", "Adamax",  "ASGD",  "LBFGS",
                                                 "NAdam",    "RAdam",     "RMSprop", "Rprop", "SparseAdam"};
  return names;
}

// With torch_adam DeepSpeed hands the params to torch.optim.AdamW, or Adam, whose default of weight_decay holds then.
// SGD and Adagrad go to torch always: their defaults are the table's.
void follow_torch_adam(config::Resolver& resolver, OptimizerOptions& options) {
  constexpr const char* kDecay = "optimizer.params.weight_decay";
  constexpr double kDecayOfTorchAdamW = 0.01;
  const auto* torch_adam = resolver.table().find("optimizer.params.torch_adam");
  if (torch_adam == nullptr || torch_adam->value != "true" || !options.params.adam_w_mode) return;
  if (resolver.table().given(kDecay)) return;
  options.params.weight_decay = kDecayOfTorchAdamW;
  resolver.table().derive(kDecay, kDecayOfTorchAdamW, "torch_adam: the default of torch.optim.AdamW");
}

void check_params(const config::Resolver& resolver, const Value* params, const OptimizerOptions& options) {
  const std::string path = "optimizer.params";
  if (options.type == "AdamW" && !options.params.adam_w_mode) {
    resolver.fail(params, path + ".adam_w_mode",
                  "got false, but type AdamW always decays as AdamW; use type Adam for L2");
  }
  if (options.type == "SGD" && options.params.nesterov &&
      (options.params.momentum <= 0 || options.params.dampening != 0)) {
    resolver.fail(params, path + ".nesterov",
                  "Nesterov needs momentum > 0 and dampening 0, got momentum " +
                      config::format_number(options.params.momentum) + " and dampening " +
                      config::format_number(options.params.dampening));
  }
}

}  // namespace

const Section& fp16_section() {
  static const Section section = [] {
    Section made;
    made.doc = "fp16 training with fp32 master weights and loss scaling";
    made.lax = true;
    made.fields = {
        field("enabled", &Fp16Options::enabled, "train in fp16"),
        field("auto_cast", &Fp16Options::auto_cast, "cast the floating-point inputs of forward to fp16"),
        field("loss_scale", &Fp16Options::loss_scale, "static loss scale; 0: dynamic").at_least(0),
        field("initial_scale_power", &Fp16Options::initial_scale_power, "the dynamic scale starts at 2^this")
            .range(0, 127),
        field("loss_scale_window", &Fp16Options::loss_scale_window, "good steps before the scale doubles").at_least(0),
        field("hysteresis", &Fp16Options::hysteresis, "overflows before the scale halves").at_least(1),
        field("consecutive_hysteresis", &Fp16Options::consecutive_hysteresis, "a good step refills the hysteresis"),
        field("min_loss_scale", &Fp16Options::min_loss_scale, "the dynamic scale never falls below").at_least(0),
        later("fp16_master_weights_and_grads", false, "fp16 master weights"),
    };
    return made;
  }();
  return section;
}

const Section& bf16_section() {
  static const Section section = [] {
    Section made;
    made.doc = "bf16 training with fp32 master weights";
    made.lax = true;
    made.fields = {
        field("enabled", &Bf16Options::enabled, "train in bf16"),
        accepted("immediate_grad_update", false, "gradients enter their flat bucket as soon as they are ready"),
        field("check_grad_overflow", &Bf16Options::check_grad_overflow, "skip a step whose gradients hold inf or NaN"),
        later("bf16_master_weights_and_grads", false, "bf16 master weights"),
        field("bf16_optimizer_states", &Bf16Options::bf16_optimizer_states,
              "states of Adam, AdamW, SGD, Adagrad, Lion in bf16, rounded stochastically")
            .with_note("masters stay fp32; DeepSpeed wants bf16_master_weights_and_grads beside it"),
    };
    return made;
  }();
  return section;
}

void Fp16Options::validate() const {
  Fp16Options copy = *this;
  config::check_ranges(fp16_section(), &copy, "fp16");
}

const Section& optimizer_section() {
  static const Section section =
      detail::typed_section("The optimizer; left out where the program passes its own", &OptimizerOptions::type,
                            "Adam, AdamW, SGD, Adagrad, Lion (any case): fused kernels; any other class of torch.optim "
                            "by its exact name: run by "
                            "torch on the shards",
                            {accepted("legacy_fusion", false, "one fused implementation")});
  return section;
}

const std::vector<std::pair<std::string, Section>>& optimizer_params_sections() {
  static const std::vector<std::pair<std::string, Section>> sections = {{"Adam", adam_section()},
                                                                        {"AdamW", adam_section()},
                                                                        {"SGD", sgd_section()},
                                                                        {"Adagrad", adagrad_section()},
                                                                        {"Lion", lion_section()}};
  return sections;
}

OptimizerOptions resolve_optimizer(config::Resolver& resolver, const Value* section) {
  OptimizerOptions options;
  const Value* params = detail::resolve_type(resolver, optimizer_section(), section, &options, "optimizer");
  if (options.type.empty()) return options;
  const Value* type = section->find("type");
  if (params != nullptr && params->find("max_grad_norm") != nullptr) {
    resolver.fail(params->find("max_grad_norm"), "optimizer.params.max_grad_norm",
                  "is not a setting of the optimizer; use gradient_clipping at the top level");
  }
  const detail::KnownTypes known{optimizer_params_sections(), later_types(), torch_types(), true, "torch.optim"};
  const Section* native = detail::find_type(resolver, known, *type, "optimizer.type", options.type);
  options.native = native != nullptr;
  if (native != nullptr) {
    resolver.resolve(*native, params, &options.params, "optimizer.params");
    check_params(resolver, params, options);
    follow_torch_adam(resolver, options);
    if (options.type == "Adam" && options.params.adam_w_mode) {
      resolver.table().annotate("optimizer.params.adam_w_mode",
                                "type Adam decays the weights as AdamW, as in DeepSpeed");
    }
    options.params_json = detail::members_json(*native, &options.params);
  } else {
    options.params_json = detail::raw_params(resolver, params, "optimizer.params");
  }
  return options;
}

}  // namespace hydrofoil::optim
