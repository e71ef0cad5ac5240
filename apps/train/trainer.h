#pragma once

#include <csignal>
#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "apps/train/progress.h"
#include "apps/train/run_files.h"
#include "apps/train/train_options.h"
#include "hydrofoil/comm/job.h"
#include "hydrofoil/data/batches.h"
#include "hydrofoil/data/corpus.h"
#include "hydrofoil/engine/initialize.h"
#include "hydrofoil/models/causal_lm.h"

namespace hydrofoil::train {

inline constexpr int kExitInterrupted = 130;

// Training cannot go on; the message says why.
class TrainingError : public Error {
 public:
  using Error::Error;
};

// One rank of the job: build, train, evaluate, save, load again. All ranks make the same calls.
class Trainer {
 public:
  // `stop` becomes not 0 where the user wants the run to end. Throws InvalidArgument for a config, model or data that
  // cannot be, CommError where the ranks do not meet.
  Trainer(TrainOptions options, const volatile std::sig_atomic_t& stop);

  // Runs the whole job; returns the exit code. Throws TrainingError where the loss stops being a number.
  int run();

 private:
  struct Logs {
    CsvLog train;
    CsvLog held_out;
  };

  [[nodiscard]] std::unique_ptr<models::CausalLM> build_model(bool with_weights) const;
  void build_engine(bool with_weights);
  [[nodiscard]] data::BatchesOptions batches_options() const;
  [[nodiscard]] std::string agree_on_folder();
  [[nodiscard]] int64_t resume();
  // What a resumed run must find as it was, beside what Batches tells: the model's function, and some of the data.
  [[nodiscard]] const std::map<std::string, std::string>& identity();
  void say_hello(Progress& progress, int64_t steps, const std::string& out);
  // Steps that are done, and the last held-out loss where the run was not stopped.
  std::pair<int64_t, std::optional<double>> train(int64_t first_step, int64_t steps, Progress& progress, Logs* logs);
  double train_step(int64_t step);
  double evaluate();
  double report_held_out(int64_t step, Progress& progress, Logs* logs);
  void save(int64_t step);
  void check_checkpoint(double expected, Progress& progress);

  // The values of every rank, one row a rank. Collective.
  [[nodiscard]] std::vector<std::vector<float>> gather(const std::vector<float>& own);

  TrainOptions options_;
  const volatile std::sig_atomic_t& stop_;
  comm::Job job_;
  comm::Group control_;                   // for what ranks tell each other beside the engine
  engine::EngineOptions engine_options_;  // of --config, which is read once
  models::ModelConfig model_config_;
  int64_t context_;
  data::Corpus corpus_;
  std::unique_ptr<data::Batches> batches_;
  std::vector<int64_t> held_out_windows_;
  std::unique_ptr<models::CausalLM> model_;  // outlives its engine
  std::unique_ptr<engine::Engine> engine_;
  std::map<std::string, std::string> identity_;  // empty until asked for: read once, not at every save
  std::string out_;
};

}  // namespace hydrofoil::train
