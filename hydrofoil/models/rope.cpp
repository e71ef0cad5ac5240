#include "hydrofoil/models/rope.h"

#include <ATen/ops/arange.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/clamp.h>
#include <ATen/ops/cos.h>
#include <ATen/ops/logical_and.h>
#include <ATen/ops/logical_not.h>
#include <ATen/ops/pow.h>
#include <ATen/ops/reciprocal.h>
#include <ATen/ops/rsub.h>
#include <ATen/ops/scalar_tensor.h>
#include <ATen/ops/sin.h>
#include <ATen/ops/tensor.h>
#include <ATen/ops/where.h>

#include <algorithm>
#include <cmath>
#include <numbers>

#include "hydrofoil/base/error.h"

// Each formula takes the operators of modeling_rope_utils.py in their order: inverse frequencies differ by no bit.
namespace hydrofoil::models {
namespace {

// Python's `numerator / x` for a tensor x.
at::Tensor divided_by(double numerator, const at::Tensor& x) { return at::reciprocal(x).mul(numerator); }

// 0, 2, ..., dim - 2 over dim.
at::Tensor exponents(int64_t dim) { return at::arange(0, dim, 2, at::kFloat).div(dim); }

at::Tensor plain(double theta, int64_t dim) { return divided_by(1.0, at::pow(theta, exponents(dim))); }

at::Tensor dynamic_ntk(const RopeOptions& options, int64_t dim, int64_t max_positions, int64_t length) {
  const double factor = options.factor;
  const double power = static_cast<double>(dim) / static_cast<double>(dim - 2);
  if (length <= max_positions) {
    const auto positions = static_cast<double>(max_positions);
    const double theta = options.theta * std::pow((factor * positions / positions) - (factor - 1.0), power);
    return plain(theta, dim);
  }
  // Transformers has the length in a tensor here, so this theta is an fp32 one.
  const at::Tensor stretch = at::scalar_tensor(factor * static_cast<double>(length), at::kFloat).div(max_positions);
  const at::Tensor theta = at::pow(stretch.sub(factor - 1.0), power).mul(options.theta);
  return divided_by(1.0, at::pow(theta, exponents(dim)));
}

at::Tensor llama3(const RopeOptions& options, int64_t dim) {
  const at::Tensor frequencies = plain(options.theta, dim);
  const double low = options.low_freq_factor;
  const double high = options.high_freq_factor;
  const auto context = static_cast<double>(options.original_max_position_embeddings);
  const at::Tensor wavelength = divided_by(2.0 * std::numbers::pi, frequencies);
  const at::Tensor is_low = wavelength.gt(context / low);
  const at::Tensor is_high = wavelength.lt(context / high);
  const at::Tensor scaled = at::where(is_low, frequencies.div(options.factor), frequencies);
  const at::Tensor smooth = divided_by(context, wavelength).sub(low).div(high - low);
  const at::Tensor smoothed = at::rsub(smooth, 1).mul(scaled).div(options.factor).add(smooth.mul(scaled));
  const at::Tensor is_medium = at::logical_and(at::logical_not(is_high), at::logical_not(is_low));
  return at::where(is_medium, smoothed, scaled);
}

// The dimension that turns `num_rotations` times over `positions`.
double correction_dim(double num_rotations, int64_t dim, double theta, int64_t positions) {
  return (static_cast<double>(dim) *
          std::log(static_cast<double>(positions) / (num_rotations * 2.0 * std::numbers::pi))) /
         (2.0 * std::log(theta));
}

at::Tensor yarn(const RopeOptions& options, int64_t dim) {
  const at::Tensor frequencies = at::pow(options.theta, exponents(dim));
  const at::Tensor extrapolation = divided_by(1.0, frequencies);
  const at::Tensor interpolation = divided_by(1.0, frequencies.mul(options.factor));
  double low = correction_dim(options.beta_fast, dim, options.theta, options.original_max_position_embeddings);
  double high = correction_dim(options.beta_slow, dim, options.theta, options.original_max_position_embeddings);
  if (options.truncate) {
    low = std::floor(low);
    high = std::ceil(high);
  }
  low = std::max(low, 0.0);
  high = std::min(high, static_cast<double>(dim - 1));
  if (low == high) high += 0.001;
  const at::Tensor ramp = at::clamp(at::arange(dim / 2, at::kFloat).sub(low).div(high - low), 0, 1);
  const at::Tensor share = at::rsub(ramp, 1);  // of extrapolation
  return interpolation.mul(at::rsub(share, 1)).add(extrapolation.mul(share));
}

at::Tensor longrope(const RopeOptions& options, int64_t dim, int64_t length) {
  const bool is_long = length > options.original_max_position_embeddings;
  const at::Tensor factors = at::tensor(is_long ? options.long_factor : options.short_factor).to(at::kFloat);
  return divided_by(1.0, factors.mul(at::pow(options.theta, exponents(dim))));
}

double yarn_mscale(double scale, double mscale) { return scale <= 1.0 ? 1.0 : 0.1 * mscale * std::log(scale) + 1.0; }

double scaling_of(const RopeOptions& options) {
  if (options.type != RopeType::kYarn && options.type != RopeType::kLongrope) return 1.0;
  if (options.attention_factor.has_value()) return *options.attention_factor;
  if (options.type == RopeType::kLongrope) {
    if (options.factor <= 1.0) return 1.0;
    const auto original = static_cast<double>(options.original_max_position_embeddings);
    return std::sqrt(1.0 + std::log(options.factor) / std::log(original));
  }
  if (options.mscale != 0.0 && options.mscale_all_dim != 0.0) {
    return yarn_mscale(options.factor, options.mscale) / yarn_mscale(options.factor, options.mscale_all_dim);
  }
  return yarn_mscale(options.factor, 1.0);
}

}  // namespace

RotaryEmbedding::RotaryEmbedding(RopeOptions options, int64_t head_dim, int64_t max_position_embeddings)
    : options_(std::move(options)),
      head_dim_(head_dim),
      max_position_embeddings_(max_position_embeddings),
      attention_scaling_(scaling_of(options_)) {
  const bool is_dynamic = options_.type == RopeType::kDynamic;
  HYDROFOIL_CHECK_ARG(head_dim > (is_dynamic ? 2 : 0) && head_dim % 2 == 0, "rope", "head_dim: got ", head_dim,
                      ", expected an even number", is_dynamic ? " over 2" : "");
}

at::Tensor RotaryEmbedding::inverse_frequencies(int64_t length) const {
  switch (options_.type) {
    case RopeType::kDefault:
      return plain(options_.theta, head_dim_);
    case RopeType::kLinear:
      return plain(options_.theta, head_dim_).div(options_.factor);
    case RopeType::kDynamic:
      return dynamic_ntk(options_, head_dim_, max_position_embeddings_, length);
    case RopeType::kYarn:
      return yarn(options_, head_dim_);
    case RopeType::kLongrope:
      return longrope(options_, head_dim_, length);
    case RopeType::kLlama3:
      return llama3(options_, head_dim_);
  }
  HYDROFOIL_ASSERT(false, "rope type ", static_cast<int>(options_.type));
}

std::pair<at::Tensor, at::Tensor> RotaryEmbedding::cos_sin(int64_t length, const at::Tensor& like) const {
  const at::Tensor frequencies = inverse_frequencies(length).to(like.device());
  const at::Tensor positions = at::arange(length, like.options().dtype(at::kFloat)).unsqueeze(0).unsqueeze(-1);
  const at::Tensor angles = positions.mul(frequencies);
  const at::Tensor both = at::cat({angles, angles}, -1);
  return {at::cos(both).mul(attention_scaling_).to(like.scalar_type()),
          at::sin(both).mul(attention_scaling_).to(like.scalar_type())};
}

at::Tensor rotate(const at::Tensor& x, const at::Tensor& cos, const at::Tensor& sin) {
  const int64_t half = x.size(-1) / 2;
  const at::Tensor turned = at::cat({x.slice(-1, half).neg(), x.slice(-1, 0, half)}, -1);
  return x.mul(cos).add(turned.mul(sin));
}

}  // namespace hydrofoil::models
