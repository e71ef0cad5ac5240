#include "hydrofoil/comm/c10d/flat_tensor.h"

#include <ATen/ops/empty.h>

#include <algorithm>
#include <cstring>
#include <numeric>

#include "hydrofoil/base/error.h"

namespace hydrofoil::comm::detail {

using at::Tensor;

void check_tensor(const Tensor& tensor, const char* function) {
  HYDROFOIL_CHECK_ARG(tensor.defined(), function, "a tensor is undefined");
  HYDROFOIL_CHECK_ARG(tensor.layout() == at::kStrided, function, "got a tensor of layout ", tensor.layout(),
                      ", expected strided: make it dense, or use gloo");
  HYDROFOIL_CHECK_ARG(tensor.is_cpu(), function, "got a tensor on ", tensor.device().str(),
                      ", expected cpu: init_process_group(\"cpu:hydrofoil_shm,cuda:nccl\") serves both");
}

void check_same_dtype(const Tensor& a, const Tensor& b, const char* function) {
  HYDROFOIL_CHECK_ARG(a.scalar_type() == b.scalar_type(), function, "got tensors of dtype ",
                      c10::toString(a.scalar_type()), " and ", c10::toString(b.scalar_type()), ", expected one dtype");
}

void check_numel(const Tensor& tensor, int64_t numel, const char* function) {
  HYDROFOIL_CHECK_ARG(tensor.numel() == numel, function, "got a tensor of numel ", tensor.numel(), ", expected ",
                      numel);
}

Tensor elements_of(const Tensor& tensor) {
  return tensor.detach().resolve_conj().resolve_neg().contiguous().view({-1});
}

Tensor flat_output(const Tensor& tensor) {
  const bool direct = tensor.is_contiguous() && !tensor.is_conj() && !tensor.is_neg();
  return direct ? tensor.detach().view({-1}) : at::empty({tensor.numel()}, tensor.options().requires_grad(false));
}

Tensor as_bytes(const Tensor& flat) { return flat.view(at::kChar); }

void place(const Tensor& flat, const Tensor& tensor) {
  if (tensor.numel() == 0 || flat.const_data_ptr() == tensor.const_data_ptr()) return;
  if (tensor.is_contiguous() && !tensor.is_conj() && !tensor.is_neg()) {
    std::memcpy(tensor.data_ptr(), flat.const_data_ptr(), flat.nbytes());
  } else {
    tensor.detach().copy_(flat.view(tensor.sizes()));
  }
}

Tensor scratch_of(const Tensor& like, int64_t numel) { return at::empty({numel}, like.options().requires_grad(false)); }

std::vector<Tensor> split_rows(const Tensor& flat, const Tensor& tensor, const std::vector<int64_t>& rows, int size,
                               const char* function) {
  const int64_t num_rows = tensor.dim() == 0 ? 1 : tensor.size(0);
  std::vector<int64_t> lengths = rows;
  if (lengths.empty()) {
    HYDROFOIL_CHECK_ARG(num_rows % size == 0, function, "got a tensor of ", num_rows, " rows, expected a multiple of ",
                        size, ", or split sizes");
    lengths.assign(static_cast<size_t>(size), num_rows / size);
  }
  HYDROFOIL_CHECK_ARG(lengths.size() == static_cast<size_t>(size), function, "got ", lengths.size(),
                      " split sizes, expected ", size);
  const bool negative = std::any_of(lengths.begin(), lengths.end(), [](int64_t length) { return length < 0; });
  const int64_t sum = std::accumulate(lengths.begin(), lengths.end(), int64_t{0});
  HYDROFOIL_CHECK_ARG(!negative && sum == num_rows, function, "got split sizes that sum to ", sum, ", expected ",
                      num_rows, ", the rows of the tensor");
  const int64_t row = num_rows == 0 ? 0 : flat.numel() / num_rows;
  std::vector<Tensor> parts;
  int64_t begin = 0;
  for (const int64_t length : lengths) {
    parts.push_back(flat.narrow(0, begin * row, length * row));
    begin += length;
  }
  return parts;
}

}  // namespace hydrofoil::comm::detail
