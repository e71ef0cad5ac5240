#include "hydrofoil/comm/status_board.h"

#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "hydrofoil/comm/c10d/store_board.h"

namespace hydrofoil::comm {
namespace {

// A board with given contents, seen by one rank.
class GivenBoard : public StatusBoard {
 public:
  GivenBoard(int rank, std::vector<std::optional<RankStatus>> all) : rank_(rank), all_(std::move(all)) {}
  int rank() const override { return rank_; }
  int size() const override { return static_cast<int>(all_.size()); }
  void issue(int, uint64_t) override {}
  void block(const RankStatus::Wait&) override {}
  void unblock() override {}
  void post() override {}
  std::optional<RankStatus> read(int rank) override { return all_[static_cast<size_t>(rank)]; }

 private:
  int rank_;
  std::vector<std::optional<RankStatus>> all_;
};

RankStatus waiting(std::vector<uint64_t> issued, int channel, uint64_t sequence, const std::string& what) {
  return {.issued = std::move(issued),
          .blocked = RankStatus::Wait{.channel = channel, .sequence = sequence, .what = what}};
}

TEST(CrossWait, IsFoundByBothRanks) {
  for (const int rank : {0, 1}) {
    GivenBoard board(rank, {waiting({3, 1}, 0, 3, "gather a"), waiting({2, 2}, 1, 2, "reduce b")});
    const auto text = find_cross_wait(board);
    ASSERT_TRUE(text.has_value());
    EXPECT_NE(text->find("rank 0 waits for gather a on channel 0, not issued by rank 1"), std::string::npos) << *text;
    EXPECT_NE(text->find("rank 1 waits for reduce b on channel 1, not issued by rank 0"), std::string::npos) << *text;
  }
}

TEST(CrossWait, IsFoundAroundACircle) {
  GivenBoard board(0, {waiting({1, 0, 1}, 0, 1, "a"), waiting({1, 1, 0}, 1, 1, "b"), waiting({0, 1, 1}, 2, 1, "c")});
  EXPECT_TRUE(find_cross_wait(board).has_value());
}

TEST(CrossWait, IsNotWhereSomeRankCanStillCome) {
  GivenBoard busy(0, {waiting({3, 1}, 0, 3, "a"), RankStatus{.issued = {2, 1}}});
  EXPECT_FALSE(find_cross_wait(busy).has_value());
  GivenBoard unknown(0, {waiting({3, 1}, 0, 3, "a"), std::nullopt});
  EXPECT_FALSE(find_cross_wait(unknown).has_value());
  GivenBoard issued(0, {waiting({3, 2}, 0, 3, "a"), waiting({2, 2}, 1, 2, "b")});
  EXPECT_FALSE(find_cross_wait(issued).has_value());  // rank 1's wait ends: rank 0 has issued it
}

TEST(CrossWait, IsNotTheOwnErrorOfARankThatOnlyWaitsForOthersInIt) {
  // Ranks 1 and 2 wait for each other; rank 0 waits for both and is told of their failure instead.
  GivenBoard board(0, {RankStatus{.issued = {1, 0}}, waiting({1, 0}, 0, 1, "a"), waiting({0, 1}, 1, 1, "b")});
  EXPECT_FALSE(find_cross_wait(board).has_value());
}

TEST(MissingRanks, SaysWhatTheyDoInstead) {
  GivenBoard board(0, {RankStatus{.issued = {5}}, waiting({4, 1}, 1, 1, "reduce b"), std::nullopt,
                       RankStatus{.issued = {5}}, RankStatus{.issued = {4}, .failure = "cable"}});
  EXPECT_EQ(missing_ranks(board, 0, 5),
            "rank 1 (waits for reduce b on channel 1), rank 2 (nothing heard from it), rank 4 (has failed: cable)");
}

TEST(StatusRecord, ComesBackAsWritten) {
  const RankStatus status = {.issued = {1, 0, 18446744073709551615ULL},
                             .blocked = RankStatus::Wait{.channel = 2, .sequence = 9, .what = "all\nreduce"},
                             .failure = "lost"};
  const auto back = decode_status(encode_status(status));
  ASSERT_TRUE(back.has_value());
  EXPECT_EQ(back->issued, status.issued);
  ASSERT_TRUE(back->blocked.has_value());
  EXPECT_EQ(back->blocked->channel, 2);
  EXPECT_EQ(back->blocked->sequence, 9U);
  EXPECT_EQ(back->blocked->what, "all reduce");
  EXPECT_EQ(back->failure, "lost");
  EXPECT_TRUE(decode_status(encode_status({}))->issued.empty());
}

TEST(StatusRecord, RejectsWhatWasNotWrittenByIt) {
  EXPECT_FALSE(decode_status("issued\n").has_value());
  EXPECT_FALSE(decode_status("issued\nmany\n").has_value());
  EXPECT_FALSE(decode_status("issued\n99999999999999999999\n").has_value());
  EXPECT_FALSE(decode_status("blocked\n-1\n2\nx\n").has_value());
  EXPECT_FALSE(decode_status("blocked\n1\n2\n").has_value());
  EXPECT_FALSE(decode_status("noise\n1\n").has_value());
  EXPECT_FALSE(decode_status(std::string(100'000, 'x')).has_value());
}

}  // namespace
}  // namespace hydrofoil::comm
