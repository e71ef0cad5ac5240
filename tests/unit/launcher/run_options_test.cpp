#include "apps/launcher/run_options.h"

#include <gtest/gtest.h>

#include "hydrofoil/base/error.h"

namespace hydrofoil::launcher {
namespace {

RunOptions parse(const std::vector<std::string>& arguments) { return parse_run_arguments(arguments).options; }

std::string error_of(const std::vector<std::string>& arguments) {
  try {
    (void)parse_run_arguments(arguments);
  } catch (const InvalidArgument& error) {
    return error.what();
  }
  return "no error";
}

TEST(RunArguments, LeaveWhatFollowsTheScriptAlone) {
  const RunOptions options =
      parse({"--nproc", "2", "train.py", "--help", "--nproc=7", "-q", "--", "--num_gpus", "x", ""});
  EXPECT_EQ(options.num_ranks, 2);
  EXPECT_FALSE(options.quiet);
  EXPECT_FALSE(options.append_local_rank);
  EXPECT_EQ(options.script, "train.py");
  EXPECT_EQ(options.arguments, (std::vector<std::string>{"--help", "--nproc=7", "-q", "--", "--num_gpus", "x", ""}));
}

TEST(RunArguments, HaveDefaults) {
  const RunOptions options = parse({"train.py"});
  EXPECT_FALSE(options.num_ranks);
  EXPECT_FALSE(options.master_port);
  EXPECT_EQ(options.master_addr, "127.0.0.1");
  EXPECT_TRUE(options.use_python);
  EXPECT_EQ(options.output, OutputMode::kAuto);
  EXPECT_EQ(options.grace_seconds, 5);
  EXPECT_TRUE(options.arguments.empty());
}

TEST(RunArguments, TakeValuesInBothForms) {
  for (const auto& flags :
       {std::vector<std::string>{"--nproc=3", "--master-port=1234", "--output=collect", "s"},
        std::vector<std::string>{"--nproc", "3", "--master-port", "1234", "--output", "collect", "s"}}) {
    const RunOptions options = parse(flags);
    EXPECT_EQ(options.num_ranks, 3);
    EXPECT_EQ(options.master_port, 1234);
    EXPECT_EQ(options.output, OutputMode::kCollect);
    EXPECT_EQ(options.script, "s");
  }
}

TEST(RunArguments, EndFlagsAtTwoDashes) {
  const RunOptions options = parse({"-n", "1", "--no-python", "--", "--odd-name", "x"});
  EXPECT_EQ(options.script, "--odd-name");
  EXPECT_EQ(options.arguments, std::vector<std::string>{"x"});
}

TEST(RunArguments, UnderstandDeepSpeedSpellings) {
  const RunOptions options = parse({"--num_gpus=2",
                                    "--num_nodes",
                                    "1",
                                    "--node_rank",
                                    "0",
                                    "--master_port",
                                    "29501",
                                    "--master_addr",
                                    "host",
                                    "--bind_cores_to_rank",
                                    "--bind_core_list",
                                    "0-1",
                                    "--launcher",
                                    "pdsh",
                                    "--no_ssh",
                                    "--enable_each_rank_log",
                                    "logs",
                                    "--module",
                                    "pkg.train",
                                    "--deepspeed_config",
                                    "ds.json"});
  EXPECT_EQ(options.num_ranks, 2);
  EXPECT_EQ(options.master_port, 29501);
  EXPECT_EQ(options.master_addr, "host");
  EXPECT_TRUE(options.bind_cores);
  EXPECT_EQ(options.core_list, (std::vector<int>{0, 1}));
  EXPECT_EQ(options.log_dir, "logs");
  EXPECT_TRUE(options.is_module);
  EXPECT_TRUE(options.append_local_rank);
  EXPECT_EQ(options.arguments, (std::vector<std::string>{"--deepspeed_config", "ds.json"}));
}

TEST(RunArguments, TakeMinusOneAsDefaultLikeDeepSpeed) {
  const RunOptions options =
      parse({"--num_gpus", "-1", "--num_nodes=-1", "--node_rank=-1", "--min_elastic_nodes=-1", "s"});
  EXPECT_FALSE(options.num_ranks);
}

TEST(RunArguments, PassLocalRankOnlyWhereDeepSpeedWould) {
  EXPECT_TRUE(parse({"--master_port", "29500", "s"}).append_local_rank);
  EXPECT_FALSE(parse({"--num_gpus", "2", "--no_local_rank", "s"}).append_local_rank);
  EXPECT_FALSE(parse({"--num_gpus", "2", "--no_python", "s"}).append_local_rank);
  EXPECT_FALSE(parse({"--nproc", "2", "-m", "s"}).append_local_rank);
  EXPECT_FALSE(parse({"--log-dir=a_b", "s"}).append_local_rank);
}

TEST(RunArguments, ReturnHelpWithoutAScript) {
  const ParsedRun parsed = parse_run_arguments(std::vector<std::string>{"--nproc", "2", "--help"});
  ASSERT_TRUE(parsed.help);
  for (const char* text : {"Examples:", "Exit codes:", "--num_gpus", "hydrofoil run [OPTIONS] SCRIPT"}) {
    EXPECT_NE(parsed.help->find(text), std::string::npos) << text;
  }
}

struct Rejected {
  std::vector<std::string> arguments;
  std::string message;  // a part of it
};

class RejectedArguments : public testing::TestWithParam<Rejected> {};

TEST_P(RejectedArguments, SayWhatIsWrong) {
  const std::string message = error_of(GetParam().arguments);
  EXPECT_NE(message.find(GetParam().message), std::string::npos) << message;
}

INSTANTIATE_TEST_SUITE_P(
    Cases, RejectedArguments,
    testing::Values(
        Rejected{{"--nprok", "2", "s"}, "unknown flag --nprok; the nearest valid flag is --nproc"},
        Rejected{{"--num_gpu=2", "s"}, "the nearest valid flag is --num_gpus"},
        Rejected{{"-x", "s"}, "unknown flag -x"}, Rejected{{}, "no script given"},
        Rejected{{"--nproc", "2"}, "no script given"}, Rejected{{"--nproc"}, "--nproc"},
        Rejected{{""}, "SCRIPT: got an empty name"},
        Rejected{{"--nproc", "two", "s"}, "got \"two\", expected an integer"},
        Rejected{{"--nproc", "0", "s"}, "--nproc: got 0"}, Rejected{{"--nproc", "4097", "s"}, "from 1 to 4096"},
        Rejected{{"--nproc=99999999999999999999", "s"}, "expected an integer"},
        Rejected{{"--num_gpus", "0", "s"}, "--num_gpus: got 0"},
        Rejected{{"--num_gpus", "2", "--nproc", "2", "s"}, "mean the same"},
        Rejected{{"--master-port", "65536", "s"}, "--master-port: got 65536"},
        Rejected{{"--master_port", "0", "s"}, "from 1 to 65535"},
        Rejected{{"--num_nodes", "2", "s"}, "more than one host is not yet supported"},
        Rejected{{"--node_rank", "1", "s"}, "--node_rank: got 1"},
        Rejected{{"--hostfile", "f", "s"}, "--hostfile is not yet supported"},
        Rejected{{"--include", "localhost:0", "s"}, "CUDA_VISIBLE_DEVICES"},
        Rejected{{"-e", "localhost:0", "s"}, "--exclude is not yet supported"},
        Rejected{{"--force_multi", "s"}, "--force_multi"}, Rejected{{"--elastic_training", "s"}, "--elastic_training"},
        Rejected{{"--max_elastic_nodes", "4", "s"}, "--max_elastic_nodes"},
        Rejected{{"--autotuning", "run", "s"}, "--autotuning"}, Rejected{{"--save_pid", "1", "s"}, "--save_pid"},
        Rejected{{"--venv_script", "f", "s"}, "--venv_script"},
        Rejected{{"--no-python", "--module", "s"}, "exclude each other"},
        Rejected{{"--output", "prefx", "s"}, "the nearest is prefix"},
        Rejected{{"--grace-seconds", "-1", "s"}, "--grace-seconds: got \"-1\""},
        Rejected{{"--grace-seconds", "nan", "s"}, "--grace-seconds"}, Rejected{{"--log-dir=", "s"}, "--log-dir"},
        Rejected{{"--core-list", "0", "s"}, "expected --bind-cores"},
        Rejected{{"--bind-cores", "--core-list", "2-1", "s"}, "from 2 to 4095"},
        Rejected{{"--bind-cores", "--core-list", "0,,1", "s"}, "expected an integer"},
        Rejected{{"--bind-cores", "--core-list", "0-2,1", "s"}, "core 1 is named twice"}));

TEST(CoreList, ReadsRangesAndSingleCores) {
  EXPECT_EQ(parse_core_list("0-3,8"), (std::vector<int>{0, 1, 2, 3, 8}));
  EXPECT_EQ(parse_core_list("7"), std::vector<int>{7});
  EXPECT_THROW((void)parse_core_list(""), InvalidArgument);
  EXPECT_THROW((void)parse_core_list("-1"), InvalidArgument);
  EXPECT_THROW((void)parse_core_list("4096"), InvalidArgument);
}

}  // namespace
}  // namespace hydrofoil::launcher
