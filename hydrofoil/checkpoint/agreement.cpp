#include "hydrofoil/checkpoint/agreement.h"

#include <ATen/ops/empty.h>
#include <ATen/ops/zeros.h>

#include <algorithm>
#include <cstring>
#include <utility>

#include "hydrofoil/base/error.h"
#include "hydrofoil/storage/checksum.h"

namespace hydrofoil::checkpoint {
namespace {

// What one rank tells the others: one byte for the class of its error, then the text.
constexpr int64_t kReportBytes = 1024;

enum class Outcome : int8_t { kFine = 0, kInvalidArgument = 1, kSystemError = 2, kOther = 3 };

std::pair<Outcome, std::string> describe(const std::exception_ptr& error) {
  if (!error) return {Outcome::kFine, ""};
  try {
    std::rethrow_exception(error);
  } catch (const InvalidArgument& e) {
    return {Outcome::kInvalidArgument, e.what()};
  } catch (const SystemError& e) {
    return {Outcome::kSystemError, e.what()};
  } catch (const std::exception& e) {
    return {Outcome::kOther, e.what()};
  } catch (...) {
    return {Outcome::kOther, "an exception of unknown type"};
  }
}

[[noreturn]] void throw_like(Outcome outcome, const std::string& text) {
  switch (outcome) {
    case Outcome::kInvalidArgument:
      throw InvalidArgument(text);
    case Outcome::kSystemError:
      throw SystemError(text);
    default:
      throw Error(text);
  }
}

}  // namespace

void agree(const comm::Group& group, std::exception_ptr own_error, const std::string& what) {
  if (!group.defined()) {
    if (own_error) std::rethrow_exception(own_error);
    return;
  }
  const auto [outcome, text] = describe(own_error);
  const auto options = at::TensorOptions().dtype(at::kChar);
  const at::Tensor own = at::zeros({kReportBytes}, options);
  const at::Tensor all = at::empty({kReportBytes * group.size()}, options);
  char* report = static_cast<char*>(own.mutable_data_ptr());
  report[0] = static_cast<char>(outcome);
  std::memcpy(report + 1, text.data(), std::min<size_t>(text.size(), kReportBytes - 2));
  // Ranks that stand at different steps of different saves would wait for each other's files.
  const uint64_t signature = storage::xxh3_64(what.data(), what.size()) | 1;
  group.all_gather(own, all, {what, signature}).wait();
  if (own_error) std::rethrow_exception(own_error);

  const char* reports = static_cast<const char*>(all.const_data_ptr());
  for (int rank = 0; rank < group.size(); ++rank) {
    const char* other = reports + rank * kReportBytes;
    if (other[0] == static_cast<char>(Outcome::kFine)) continue;
    throw_like(static_cast<Outcome>(other[0]), detail::concat("[", what, "] rank ", rank, " failed: ", other + 1));
  }
}

void run_together(const comm::Group& group, const std::string& what, const std::function<void()>& step) {
  std::exception_ptr error;
  try {
    step();
  } catch (...) {
    error = std::current_exception();
  }
  agree(group, error, what);
}

}  // namespace hydrofoil::checkpoint
