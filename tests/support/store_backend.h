#pragma once

#include <ATen/core/Tensor.h>

#include <atomic>
#include <chrono>
#include <cstring>
#include <functional>
#include <string>
#include <thread>
#include <torch/csrc/distributed/c10d/GroupRegistry.hpp>
#include <torch/csrc/distributed/c10d/ProcessGroup.hpp>
#include <torch/csrc/distributed/c10d/Store.hpp>
#include <vector>

namespace hydrofoil::testing {

class StoreWork : public c10d::Work {
 public:
  explicit StoreWork(int rank) : c10d::Work(rank) {}
  void end(std::exception_ptr error) { finish(std::move(error)); }
};

// A c10d backend that moves everything through a Store, each operation on a thread of its own: slow, and the same to
// its users as Gloo, which cannot be built from C++.
class StoreBackend : public c10d::Backend {
 public:
  StoreBackend(c10::intrusive_ptr<c10d::Store> store, int rank, int size)
      : c10d::Backend(rank, size), store_(std::move(store)), sent_(size), received_(size) {}
  ~StoreBackend() override {
    stop_ = true;
    for (auto& thread : threads_) thread.join();
  }

  const std::string getBackendName() const override { return "store"; }

  c10::intrusive_ptr<c10d::Work> allreduce(std::vector<at::Tensor>& tensors,
                                           const c10d::AllreduceOptions& options) override {
    const bool max = options.reduceOp == c10d::ReduceOp::MAX;
    return start([this, max, tensor = tensors[0], key = next_key()] {
      put(key, rank_, tensor);
      at::Tensor result;
      for (int r = 0; r < size_; ++r) {
        at::Tensor part = tensor.clone();
        get(key, r, part);
        result = r == 0 ? part : max ? result.max(part) : result.add(part);
      }
      tensor.copy_(result);
    });
  }
  c10::intrusive_ptr<c10d::Work> _allgather_base(at::Tensor& output, at::Tensor& input,
                                                 const c10d::AllgatherOptions& /*options*/) override {
    return start([this, output, input, key = next_key()] {
      put(key, rank_, input);
      for (int r = 0; r < size_; ++r) get(key, r, output.narrow(0, r * input.numel(), input.numel()));
    });
  }
  c10::intrusive_ptr<c10d::Work> alltoall_base(at::Tensor& output, at::Tensor& input, std::vector<int64_t>& /*out*/,
                                               std::vector<int64_t>& /*in*/,
                                               const c10d::AllToAllOptions& /*options*/) override {
    return start([this, output, input, key = next_key()] {
      put(key, rank_, input);
      const int64_t slice = input.numel() / size_;
      for (int r = 0; r < size_; ++r) {
        at::Tensor whole = input.clone();
        get(key, r, whole);
        output.narrow(0, r * slice, slice).copy_(whole.narrow(0, rank_ * slice, slice));
      }
    });
  }
  c10::intrusive_ptr<c10d::Work> broadcast(std::vector<at::Tensor>& tensors,
                                           const c10d::BroadcastOptions& options) override {
    return start([this, tensor = tensors[0], root = static_cast<int>(options.rootRank), key = next_key()] {
      if (rank_ == root) put(key, root, tensor);
      get(key, root, tensor);
    });
  }
  c10::intrusive_ptr<c10d::Work> barrier(const c10d::BarrierOptions& /*options*/) override {
    return start([this, key = next_key()] {
      store_->set(key + std::to_string(rank_), std::vector<uint8_t>{1});
      for (int r = 0; r < size_; ++r) fetch(key + std::to_string(r));
    });
  }
  c10::intrusive_ptr<c10d::Work> send(std::vector<at::Tensor>& tensors, int peer, int /*tag*/) override {
    const std::string key = pair_key(rank_, peer, sent_[static_cast<size_t>(peer)]++);
    return start([this, tensor = tensors[0], key] { put(key, rank_, tensor); });
  }
  c10::intrusive_ptr<c10d::Work> recv(std::vector<at::Tensor>& tensors, int peer, int /*tag*/) override {
    const std::string key = pair_key(peer, rank_, received_[static_cast<size_t>(peer)]++);
    return start([this, tensor = tensors[0], key, peer] { get(key, peer, tensor); });
  }

 private:
  std::string next_key() { return "op" + std::to_string(count_++) + "/"; }
  static std::string pair_key(int from, int to, int count) {
    return "p" + std::to_string(from) + "-" + std::to_string(to) + "/" + std::to_string(count) + "/";
  }
  void put(const std::string& key, int rank, const at::Tensor& tensor) {
    const auto* begin = static_cast<const uint8_t*>(tensor.const_data_ptr());
    store_->set(key + std::to_string(rank), std::vector<uint8_t>(begin, begin + tensor.nbytes()));
  }
  // Looks again and again instead of blocking in the store, so that what hangs ends with the backend.
  std::vector<uint8_t> fetch(const std::string& key) {
    while (!store_->check({key})) {
      TORCH_CHECK(!stop_, "the backend is gone");
      std::this_thread::sleep_for(std::chrono::microseconds(500));
    }
    return store_->get(key);
  }
  void get(const std::string& key, int rank, const at::Tensor& tensor) {
    const std::vector<uint8_t> bytes = fetch(key + std::to_string(rank));
    TORCH_CHECK(bytes.size() == tensor.nbytes(), "size mismatch in ", key);
    std::memcpy(tensor.data_ptr(), bytes.data(), bytes.size());
  }
  c10::intrusive_ptr<c10d::Work> start(std::function<void()> body) {
    auto work = c10::make_intrusive<StoreWork>(rank_);
    threads_.emplace_back([work, body = std::move(body)] {
      try {
        body();
        work->end(nullptr);
      } catch (...) {
        work->end(std::current_exception());
      }
    });
    return work;
  }

  c10::intrusive_ptr<c10d::Store> store_;
  std::vector<int> sent_, received_;
  int count_ = 0;
  std::atomic<bool> stop_{false};
  std::vector<std::thread> threads_;
};

// A process group over StoreBackend, registered under `name`.
inline c10::intrusive_ptr<c10d::ProcessGroup> register_store_group(const std::string& name,
                                                                   const c10::intrusive_ptr<c10d::Store>& store,
                                                                   int rank, int size) {
  auto group = c10::make_intrusive<c10d::ProcessGroup>(store, rank, size);
  group->setBackend(c10::DeviceType::CPU, c10d::ProcessGroup::BackendType::CUSTOM,
                    c10::make_intrusive<StoreBackend>(store, rank, size));
  group->setDefaultBackend(c10d::ProcessGroup::BackendType::CUSTOM);
  group->setGroupName(name);
  c10d::register_process_group(name, group);
  return group;
}

}  // namespace hydrofoil::testing
