// What validation refuses, one message each.
#include "check.hpp"
#include "fhelearn/errors.hpp"
#include "fhelearn/program.hpp"
#include "runs.hpp"

using namespace testing;
using fhelearn::ProgramError;

namespace {

// One input (2, 3) in [-4, 3] and one op on it.
Builder single(const std::string& op, Attributes attributes) {
    Builder builder;
    builder.input({2, 3}, -4, 3);
    builder.emit(op, {0}, std::move(attributes));
    return builder;
}

}  // namespace

TEST("bounds given as proved must contain the inferred ones") {
    Builder builder = single("negate", {});
    CHECK(builder.build().nodes[1].hi[0] == 4);
    builder.specs[1].hi = scalar(3);
    CHECK_THROWS(ProgramError, "%1 negate: bounds [-3, 3] at element 0 were given as proved, must contain [-3, 4]",
                 builder.build());
    builder.specs[1].hi = scalar(100);
    builder.specs[1].width = 8;
    CHECK(builder.build().nodes[1].hi[5] == 100);
}

TEST("declared bounds must lie inside the inferred ones") {
    Builder builder = single("negate", {});
    builder.specs[1].provenance = "structural";
    builder.specs[1].lo = scalar(-1);
    CHECK(builder.build().nodes[1].lo[0] == -1);
    builder.specs[1].lo = scalar(-9);
    builder.specs[1].width = 5;
    CHECK_THROWS(ProgramError, "were declared, must lie inside [-3, 4]", builder.build());
}

TEST("a table must cover its operand") {
    const Attributes covering = {{"lo", std::int64_t{-4}}, {"table", IntArray{{8}, Ints(8, 1)}}};
    CHECK(single("table_lookup", covering).build().nodes.size() == 2);
    const Attributes late = {{"lo", std::int64_t{-3}}, {"table", IntArray{{8}, Ints(8, 1)}}};
    CHECK_THROWS(ProgramError, "table covers [-3, 4] but operand element 0 lies in [-4, 3]; extend the table",
                 single("table_lookup", late));
    const Attributes huge = {{"lo", std::int64_t{INT64_MAX}}, {"table", IntArray{{8}, Ints(8, 1)}}};
    CHECK_THROWS(ProgramError, "table covers", single("table_lookup", huge));
}

TEST("bounds beyond 64 bits are refused, not wrapped") {
    Builder builder;
    builder.input({1}, 0, INT64_MAX);
    CHECK_THROWS(ProgramError, "too wide", builder.emit("add", {0, 0}));
    builder.emit("negate", {0});
    builder.specs[1].op = "add";
    builder.specs[1].operands = {0, 0};
    builder.specs[1].lo = scalar(0);
    builder.specs[1].hi = scalar(INT64_MAX);
    builder.specs[1].is_signed = true;
    builder.specs[1].width = 64;
    CHECK_THROWS(ProgramError, "inferred bounds [0, 18446744073709551614] at element 0 leave 64 bits", builder.build());
}

TEST("sums beyond 127 bits are refused, not wrapped") {
    Builder builder;
    builder.input({16}, INT64_MIN, INT64_MAX);
    CHECK_THROWS(ProgramError, "bounds leave 127 bits",
                 builder.emit("matmul", {0}, {{"weights", IntArray{{16, 1}, Ints(16, INT64_MIN)}}}));
}

TEST("terms beyond 127 bits may cancel, and the bound of partial sums saturates") {
    const std::int64_t big = std::int64_t{1} << 62;
    for (std::size_t run : {1, 8}) {  // +-+- and eight of each, whose partial sums reach 2**127
        Builder builder;
        builder.input({16}, big, big);
        Ints weights(16);
        for (std::size_t i = 0; i < 16; ++i) weights[i] = i / run % 2 ? -big : big;
        builder.emit("matmul", {0}, {{"weights", IntArray{{16, 1}, weights}}});
        const Program program = builder.build();
        CHECK(program.nodes[1].lo[0] == 0 && program.nodes[1].hi[0] == 0);
        CHECK(program.nodes[1].partial_sums == INT64_MAX);
        const fhelearn::Engine engine(program, fhelearn::kernels());
        CHECK(testing::run(engine, {Ints(32, big)}, 2, {}) == Batch({{0, 0}}));
    }
}

TEST("a value of 16 axes is accepted") {
    Builder builder;
    builder.input(Shape(16, 1), 0, 1);
    CHECK(builder.build().nodes[0].shape.size() == 16);
}

TEST("attributes must be there, of their type, in range, and known") {
    CHECK_THROWS(ProgramError, "attribute 'weights' is missing", single("matmul", {}));
    CHECK_THROWS(ProgramError, "attribute 'weights' must be an int64 array", single("matmul", {{"weights", true}}));
    CHECK_THROWS(ProgramError, "must be weights.shape[0] = 2",
                 single("matmul", {{"weights", IntArray{{2, 1}, {1, 1}}}}));
    CHECK_THROWS(ProgramError, "does not hold what its shape says",
                 single("matmul", {{"weights", IntArray{{3, 2}, {1}}}}));
    CHECK_THROWS(ProgramError, "'lsbs' is 63, must lie in [1, 62]",
                 single("round", {{"lsbs", std::int64_t{63}}, {"method", std::string("exact")}}));
    CHECK_THROWS(ProgramError, "'method' is 'up'",
                 single("round", {{"lsbs", std::int64_t{1}}, {"method", std::string("up")}}));
    CHECK_THROWS(ProgramError, "'alpha' is not an attribute of negate", single("negate", {{"alpha", true}}));
    CHECK_THROWS(ProgramError, "must be a permutation", single("transpose", {{"axes", Ints{0, 0}}}));
    CHECK_THROWS(ProgramError, "distinct axes", single("sum", {{"axes", Ints{0, 2}}, {"keepdims", false}}));
    CHECK_THROWS(ProgramError, "holds 3, must lie in [0, 2]",
                 single("gather", {{"axis", std::int64_t{1}}, {"indices", IntArray{{1}, {3}}}}));
    CHECK_THROWS(ProgramError, "0 <= start < stop <= extent on axis 1",
                 single("slice", {{"starts", Ints{0, 0}}, {"stops", Ints{2, 4}}, {"steps", Ints{1, 1}}}));
    CHECK_THROWS(ProgramError, "positive extents and at most 2**24 elements",
                 single("broadcast", {{"shape", Ints{std::int64_t{1} << 40, 2, 3}}}));
    CHECK_THROWS(ProgramError, "has other elements", single("reshape", {{"shape", Ints{7}}}));
    CHECK_THROWS(ProgramError, "window does not fit",
                 single("conv1d", {{"weights", IntArray{{1, 2, 2}, {1, 1, 1, 1}}},
                                   {"strides", Ints{1}},
                                   {"dilations", Ints{INT64_MAX}},
                                   {"groups", std::int64_t{1}}}));
    CHECK_THROWS(ProgramError, "groups=4 must divide",
                 single("conv1d", {{"weights", IntArray{{4, 1, 1}, {1, 1, 1, 1}}},
                                   {"strides", Ints{1}},
                                   {"dilations", Ints{1}},
                                   {"groups", std::int64_t{4}}}));
}

TEST("nodes must be known ops on earlier nodes with the shape that follows") {
    Builder builder = single("negate", {});
    CHECK_THROWS(ProgramError, "at least one output", fhelearn::decode_program(builder.specs, {}));
    CHECK_THROWS(ProgramError, "output 2 must be one of the 2 nodes", builder.build({2}));
    const auto broken = [&](auto change) {
        Builder copy = builder;
        change(copy.specs[1]);
        return copy.build();
    };
    CHECK_THROWS(ProgramError, "'softmax' is not an op", broken([](NodeSpec& s) { s.op = "softmax"; }));
    CHECK_THROWS(ProgramError, "operand 1 must be one of the 1 earlier nodes",
                 broken([](NodeSpec& s) { s.operands = {1}; }));
    CHECK_THROWS(ProgramError, "operand -1", broken([](NodeSpec& s) { s.operands = {-1}; }));
    CHECK_THROWS(ProgramError, "got 2 operands, takes 1", broken([](NodeSpec& s) { s.operands = {0, 0}; }));
    CHECK_THROWS(ProgramError, "shape (3, 2) was given, (2, 3) was inferred",
                 broken([](NodeSpec& s) { s.shape = {3, 2}; }));
    CHECK_THROWS(ProgramError, "does not broadcast", broken([](NodeSpec& s) { s.lo = {{4}, {0, 0, 0, 0}}; }));
    CHECK_THROWS(ProgramError, "empty bounds [5, 4]", broken([](NodeSpec& s) {
                     s.lo = scalar(5);
                     s.lo.shape = {};
                     s.hi = scalar(4);
                 }));
    CHECK_THROWS(ProgramError, "provenance is 'guess'", broken([](NodeSpec& s) { s.provenance = "guess"; }));
    CHECK_THROWS(ProgramError, "do not fit its region's width 2", broken([](NodeSpec& s) { s.width = 2; }));
    CHECK_THROWS(ProgramError, "must lie in [1, 64]", broken([](NodeSpec& s) { s.width = 65; }));
    CHECK_THROWS(ProgramError, "shape has 17 axes, must have at most 16",
                 broken([](NodeSpec& s) { s.shape = Shape(17, 1); }));
}
