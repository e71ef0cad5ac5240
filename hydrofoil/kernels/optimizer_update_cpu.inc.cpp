#if defined(__SSE2__)
#include <immintrin.h>
#endif

#include "hydrofoil/kernels/detail/convert.h"
#include "hydrofoil/kernels/detail/isa_kernels.h"

// NOTE [Same bits]
// Each element's update is a fixed sequence of IEEE operations, without contraction (-ffp-contract=off), reassociation
// or approximate reciprocals. So vector body, scalar tail and every instruction set give the same bits, and a parameter
// gets the same update wherever its elements lie in a shard. The pass is bound by memory, so nothing is lost.

namespace hydrofoil::kernels::HYDROFOIL_ISA {
namespace {

// Elements that one round of the loop handles: gradient and model copy of a block stay in the L1 cache. Far below a
// page of each array, so that the processor prefetches all of them side by side (a quarter faster than 1024 on Zen 4).
constexpr int64_t kBlock = 256;
constexpr int64_t kLine = 64;

template <typename Type>
void load_gradient(const void* source, int64_t begin, int64_t numel, float scale, float* __restrict gradient) {
  const auto* raw = static_cast<const typename Type::Raw*>(source) + begin;
  for (int64_t i = 0; i < numel; ++i) gradient[i] = Type::load(raw[i]) * scale;
}

void load_gradient(const detail::UpdateArguments& a, int64_t begin, int64_t numel, float* gradient) {
  switch (a.gradient_type) {
    case ElementType::kFloat32:
      return load_gradient<Float32>(a.gradient, begin, numel, a.gradient_scale, gradient);
    case ElementType::kBFloat16:
      return load_gradient<BFloat16>(a.gradient, begin, numel, a.gradient_scale, gradient);
    case ElementType::kFloat16:
      return load_gradient<Float16>(a.gradient, begin, numel, a.gradient_scale, gradient);
  }
}

void add_weight_decay(float* __restrict g, const float* __restrict p, int64_t numel, float weight_decay) {
  for (int64_t i = 0; i < numel; ++i) g[i] += weight_decay * p[i];
}

// The rules: State is the element type of the states, `index` that of the first element plus the key of
// NOTE [Stochastic rounding].

// torch's lerp takes the end point as the base from weight 0.5 on, which is exact at weight 1.
template <bool kFromEnd, typename State>
void adam(const UpdateCoefficients& c, int64_t numel, const float* __restrict g, float* __restrict p,
          typename State::Raw* __restrict m, typename State::Raw* __restrict v, uint32_t index) {
  const float weight = kFromEnd ? c.beta1 : c.one_minus_beta1;
  const float beta2 = c.beta2, one_minus_beta2 = c.one_minus_beta2, decay = c.decay_factor;
  const float correction = c.bias_correction2_sqrt, eps = c.eps, step_size = -c.step_size;
  for (int64_t i = 0; i < numel; ++i, ++index) {
    const float before = State::load(m[i]);
    const float difference = g[i] - before;
    const float mean = kFromEnd ? g[i] - difference * weight : before + weight * difference;
    const float square = State::load(v[i]) * beta2 + (one_minus_beta2 * g[i]) * g[i];
    const uint32_t random = random_bits(index);
    m[i] = State::store(mean, random >> 16);
    v[i] = State::store(square, random & 0xFFFFu);
    p[i] = p[i] * decay + (step_size * mean) / (__builtin_sqrtf(square) / correction + eps);
  }
}

template <typename State>
void sgd(const UpdateCoefficients& c, int64_t numel, const float* __restrict g, float* __restrict p,
         typename State::Raw* __restrict m, uint32_t index) {
  const float step_size = -c.step_size, momentum = c.momentum, rate = c.one_minus_dampening;
  if (momentum == 0) {
    for (int64_t i = 0; i < numel; ++i) p[i] += step_size * g[i];
    return;
  }
  const bool first_step = c.first_step, nesterov = c.nesterov;
  for (int64_t i = 0; i < numel; ++i, ++index) {
    const float before = State::load(m[i]);
    const float average = first_step ? g[i] : before * momentum + rate * g[i];
    const float step = nesterov ? g[i] + momentum * average : average;
    m[i] = State::store(average, random_bits(index) >> 16);
    p[i] += step_size * step;
  }
}

template <typename State>
void adagrad(const UpdateCoefficients& c, int64_t numel, const float* __restrict g, float* __restrict p,
             typename State::Raw* __restrict m, uint32_t index) {
  const float step_size = -c.step_size, eps = c.eps;
  for (int64_t i = 0; i < numel; ++i, ++index) {
    const float sum = State::load(m[i]) + g[i] * g[i];
    m[i] = State::store(sum, random_bits(index) >> 16);
    p[i] += (step_size * g[i]) / (__builtin_sqrtf(sum) + eps);
  }
}

template <typename State>
void lion(const UpdateCoefficients& c, int64_t numel, const float* __restrict g, float* __restrict p,
          typename State::Raw* __restrict m, uint32_t index) {
  const float step_size = c.step_size, decay = c.decay_factor, beta1 = c.beta1, one_minus_beta1 = c.one_minus_beta1;
  const float beta2 = c.beta2, one_minus_beta2 = c.one_minus_beta2;
  for (int64_t i = 0; i < numel; ++i, ++index) {
    const float before = State::load(m[i]);
    const float direction = before * beta1 + g[i] * one_minus_beta1;
    const float step = direction > 0 ? step_size : direction < 0 ? -step_size : 0.0f;
    const float average = before * beta2 + g[i] * one_minus_beta2;
    m[i] = State::store(average, random_bits(index) >> 16);
    p[i] = p[i] * decay - step;
  }
}

// Copies whole cache lines past the caches: the copy is next read by a collective, not here.
void stream_copy(void* target, const uint16_t* source, int64_t numel) {
#if defined(__AVX512F__)
  using Vector = __m512i;
  for (int64_t i = 0; i < numel; i += sizeof(Vector) / 2) {
    _mm512_stream_si512(reinterpret_cast<Vector*>(static_cast<uint16_t*>(target) + i), _mm512_load_si512(source + i));
  }
#elif defined(__AVX2__)
  using Vector = __m256i;
  for (int64_t i = 0; i < numel; i += sizeof(Vector) / 2) {
    _mm256_stream_si256(reinterpret_cast<Vector*>(static_cast<uint16_t*>(target) + i),
                        _mm256_load_si256(reinterpret_cast<const Vector*>(source + i)));
  }
#elif defined(__SSE2__)
  using Vector = __m128i;
  for (int64_t i = 0; i < numel; i += sizeof(Vector) / 2) {
    _mm_stream_si128(reinterpret_cast<Vector*>(static_cast<uint16_t*>(target) + i),
                     _mm_load_si128(reinterpret_cast<const Vector*>(source + i)));
  }
#else
  __builtin_memcpy(target, source, numel * sizeof(uint16_t));
#endif
}

template <typename Type>
void store_model(const float* __restrict p, int64_t numel, uint16_t* __restrict target) {
  for (int64_t i = 0; i < numel; ++i) target[i] = Type::store(p[i]);
}

void store_model(const detail::UpdateArguments& a, const float* p, int64_t numel, uint16_t* target) {
  if (a.model_type == ElementType::kBFloat16) {
    store_model<BFloat16>(p, numel, target);
  } else {
    store_model<Float16>(p, numel, target);
  }
}

template <typename State>
void apply_rule(UpdateRule rule, const detail::UpdateArguments& a, int64_t begin, int64_t numel, float* gradient) {
  using Raw = typename State::Raw;
  const UpdateCoefficients& c = *a.coefficients;
  float* p = a.master + begin;
  Raw* m = a.first == nullptr ? nullptr : static_cast<Raw*>(a.first) + begin;
  Raw* v = a.second == nullptr ? nullptr : static_cast<Raw*>(a.second) + begin;
  const uint32_t index = a.random_base + static_cast<uint32_t>(begin);
  const bool decoupled = rule == UpdateRule::kAdamW || rule == UpdateRule::kLion;
  if (!decoupled && c.weight_decay != 0) add_weight_decay(gradient, p, numel, c.weight_decay);
  switch (rule) {
    case UpdateRule::kAdam:
    case UpdateRule::kAdamW:
      if (c.one_minus_beta1 < 0.5f) {
        adam<false, State>(c, numel, gradient, p, m, v, index);
      } else {
        adam<true, State>(c, numel, gradient, p, m, v, index);
      }
      break;
    case UpdateRule::kSgd:
      sgd<State>(c, numel, gradient, p, m, index);
      break;
    case UpdateRule::kAdagrad:
      adagrad<State>(c, numel, gradient, p, m, index);
      break;
    case UpdateRule::kLion:
      lion<State>(c, numel, gradient, p, m, index);
      break;
  }
}

void update_block(UpdateRule rule, const detail::UpdateArguments& a, int64_t begin, int64_t numel) {
  alignas(kLine) float gradient[kBlock];
  alignas(kLine) uint16_t model[kBlock];
  load_gradient(a, begin, numel, gradient);
  if (a.state_type == ElementType::kBFloat16) {
    apply_rule<BFloat16>(rule, a, begin, numel, gradient);
  } else {
    apply_rule<Float32>(rule, a, begin, numel, gradient);
  }
  if (a.model == nullptr) return;
  const float* p = a.master + begin;
  uint16_t* target = static_cast<uint16_t*>(a.model) + begin;
  if (a.stream_model && numel == kBlock) {
    store_model(a, p, numel, model);
    stream_copy(target, model, numel);
  } else {
    store_model(a, p, numel, target);
  }
}

}  // namespace

void optimizer_update(UpdateRule rule, const detail::UpdateArguments& arguments) {
  int64_t begin = 0;
  if (arguments.stream_model && arguments.model != nullptr) {
    // A first short block brings the copy to the start of a cache line.
    const int64_t past_line = static_cast<int64_t>(reinterpret_cast<uintptr_t>(arguments.model) % kLine);
    const int64_t head = (kLine - past_line) % kLine / static_cast<int64_t>(sizeof(uint16_t));
    begin = head < arguments.numel ? head : arguments.numel;
    if (begin > 0) update_block(rule, arguments, 0, begin);
  }
  for (; begin < arguments.numel; begin += kBlock) {
    const int64_t left = arguments.numel - begin;
    update_block(rule, arguments, begin, left < kBlock ? left : kBlock);
  }
#if defined(__SSE2__)
  // Streamed stores are ordered before the thread tells anyone that it is done.
  if (arguments.stream_model) _mm_sfence();
#endif
}

}  // namespace hydrofoil::kernels::HYDROFOIL_ISA
