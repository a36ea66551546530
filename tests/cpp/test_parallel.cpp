#include <sys/wait.h>
#include <unistd.h>

#include <atomic>
#include <cstdint>
#include <cstdlib>
#include <stdexcept>
#include <thread>
#include <vector>

#include "check.hpp"
#include "fhelearn/parallel.hpp"

using fhelearn::parallel_for;

namespace {

std::size_t count_chunks(std::size_t chunks, std::size_t threads) {
    std::vector<std::atomic<int>> seen(chunks);
    std::atomic<bool> distinct{true};
    std::vector<std::atomic<int>> busy(threads);
    parallel_for(chunks, threads, [&](std::size_t chunk, std::size_t worker) {
        if (busy[worker].fetch_add(1) != 0) distinct = false;
        seen[chunk].fetch_add(1);
        busy[worker].fetch_sub(1);
    });
    std::size_t once = 0;
    for (const auto& count : seen) once += count == 1;
    return distinct ? once : 0;
}

}  // namespace

TEST("every chunk runs once, and no two threads share a worker number") {
    for (std::size_t threads : {1, 2, 3, 8}) {
        for (std::size_t chunks : {0, 1, 2, 7, 1000}) CHECK(count_chunks(chunks, threads) == chunks);
    }
}

TEST("several callers at once all finish") {
    std::vector<std::thread> callers;
    std::atomic<int> right{0};
    for (int i = 0; i < 8; ++i) {
        callers.emplace_back([&] {
            for (int round = 0; round < 50; ++round) right += count_chunks(20, 3) == 20;
        });
    }
    for (std::thread& caller : callers) caller.join();
    CHECK(right == 400);
}

TEST("a task may start tasks") {
    std::atomic<int> sum{0};
    parallel_for(4, 3, [&](std::size_t, std::size_t) { parallel_for(5, 3, [&](std::size_t, std::size_t) { ++sum; }); });
    CHECK(sum == 20);
}

TEST("the first exception of a task reaches the caller, and the pool lives on") {
    for (std::size_t threads : {1, 4}) {
        CHECK_THROWS(std::runtime_error, "chunk 3", parallel_for(100, threads, [](std::size_t chunk, std::size_t) {
                         if (chunk == 3) throw std::runtime_error("chunk 3");
                     }));
        CHECK(count_chunks(50, threads) == 50);
    }
}

#if !defined(__SANITIZE_THREAD__)  // its runtime does not support threads in forked children
TEST("a forked child starts its own threads") {
    CHECK(count_chunks(50, 4) == 50);
    const pid_t child = fork();
    if (child == 0) _exit(count_chunks(50, 4) == 50 ? 0 : 1);
    int status = -1;
    waitpid(child, &status, 0);
    CHECK(WIFEXITED(status) && WEXITSTATUS(status) == 0);
}
#endif

TEST("no number of threads is too large") {
    for (const char* name : {"OMP_NUM_THREADS", "FHELEARN_NUM_THREADS"}) {
        for (const char* huge : {"4611686018427387904", "9223372036854775807", "999999999999999999999999"}) {
            setenv(name, huge, 1);
            CHECK(fhelearn::default_num_threads() == fhelearn::kMaxThreads);
            CHECK(fhelearn_get_num_threads() == 1024);
            unsetenv(name);
        }
    }
    CHECK(fhelearn::set_num_threads(SIZE_MAX) == 0);
    CHECK(fhelearn::set_num_threads(0) == fhelearn::kMaxThreads);
    std::atomic<int> ran{0};
    parallel_for(10, SIZE_MAX, [&](std::size_t, std::size_t) { ++ran; });
    CHECK(ran == 10);
}

TEST("the default number of threads follows setting, own variable, OpenMP's, CPUs") {
    unsetenv("FHELEARN_NUM_THREADS");
    unsetenv("OMP_NUM_THREADS");
    CHECK(fhelearn::default_num_threads() == fhelearn::available_cpus());
    setenv("OMP_NUM_THREADS", "3,2", 1);
    CHECK(fhelearn::default_num_threads() == 3);
    setenv("OMP_NUM_THREADS", "many", 1);
    CHECK(fhelearn::default_num_threads() == fhelearn::available_cpus());
    setenv("FHELEARN_NUM_THREADS", "5", 1);
    CHECK(fhelearn::default_num_threads() == 5);
    CHECK(fhelearn::set_num_threads(7) == 0);
    CHECK(fhelearn::default_num_threads() == 7 && fhelearn_get_num_threads() == 7);
    CHECK(fhelearn::set_num_threads(0) == 7);
    setenv("FHELEARN_NUM_THREADS", "none", 1);
    CHECK_THROWS(std::invalid_argument, "FHELEARN_NUM_THREADS='none' must be a positive integer",
                 fhelearn::default_num_threads());
    CHECK(fhelearn_get_num_threads() == static_cast<int>(fhelearn::available_cpus()));
    unsetenv("FHELEARN_NUM_THREADS");
}
