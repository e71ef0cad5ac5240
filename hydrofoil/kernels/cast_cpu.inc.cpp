#include "hydrofoil/kernels/detail/convert.h"
#include "hydrofoil/kernels/detail/isa_kernels.h"

namespace hydrofoil::kernels::HYDROFOIL_ISA {
namespace {

template <typename To, typename From>
void accumulate_as(const detail::AccumulateArguments& a) {
  auto* __restrict dst = static_cast<typename To::Raw*>(a.dst);
  const auto* __restrict src = static_cast<const typename From::Raw*>(a.src);
  const float scale = a.scale;
  const int64_t numel = a.numel;
  if (a.add) {
    for (int64_t i = 0; i < numel; ++i) dst[i] = To::store(To::load(dst[i]) + From::load(src[i]) * scale);
  } else {
    for (int64_t i = 0; i < numel; ++i) dst[i] = To::store(From::load(src[i]) * scale);
  }
}

template <typename To>
void accumulate_to(const detail::AccumulateArguments& a) {
  switch (a.src_type) {
    case ElementType::kFloat32:
      return accumulate_as<To, Float32>(a);
    case ElementType::kBFloat16:
      return accumulate_as<To, BFloat16>(a);
    case ElementType::kFloat16:
      return accumulate_as<To, Float16>(a);
  }
}

}  // namespace

void accumulate(const detail::AccumulateArguments& arguments) {
  switch (arguments.dst_type) {
    case ElementType::kFloat32:
      return accumulate_to<Float32>(arguments);
    case ElementType::kBFloat16:
      return accumulate_to<BFloat16>(arguments);
    case ElementType::kFloat16:
      return accumulate_to<Float16>(arguments);
  }
}

}  // namespace hydrofoil::kernels::HYDROFOIL_ISA
