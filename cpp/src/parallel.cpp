#include "fhelearn/parallel.hpp"

#include <pthread.h>

#include <algorithm>
#include <atomic>
#include <condition_variable>
#include <cstdlib>
#include <exception>
#include <list>
#include <mutex>
#include <optional>
#include <stdexcept>
#include <string>
#include <system_error>
#include <thread>
#include <vector>

#if defined(__linux__)
#include <sched.h>
#endif

namespace fhelearn {

namespace {

using Task = std::function<void(std::size_t, std::size_t)>;

// One parallel_for in flight: `next` and `failed` are atomic, the rest is only touched with the pool's mutex held.
struct Job {
    const Task* task;
    std::size_t num_chunks;
    std::size_t max_helpers;
    std::atomic<std::size_t> next{0};
    std::atomic<bool> failed{false};
    std::size_t joined = 0;
    std::size_t active = 0;
    std::exception_ptr error{};

    bool wants_help() const {
        return joined < max_helpers && next.load(std::memory_order_relaxed) < num_chunks && !failed.load();
    }
};

class Pool {
  public:
    void run(std::size_t num_chunks, std::size_t num_threads, const Task& task) {
        Job job{&task, num_chunks, num_threads - 1};
        {
            std::lock_guard lock(mutex_);
            add_threads(num_threads - 1);
            jobs_.push_back(&job);
        }
        for (std::size_t i = 0; i + 1 < std::min(num_threads, num_chunks); ++i) wake_.notify_one();
        work(job, 0);
        std::unique_lock lock(mutex_);
        jobs_.remove(&job);
        done_.wait(lock, [&] { return job.active == 0; });
        if (job.error) std::rethrow_exception(job.error);
    }

  private:
    // If the system refuses a thread, the caller and the threads there are do the work.
    void add_threads(std::size_t wanted) {
        try {
            for (; num_threads_ < wanted; ++num_threads_) std::thread([this] { serve(); }).detach();
        } catch (const std::system_error&) {
            return;
        }
    }

    void work(Job& job, std::size_t worker) {
        while (!job.failed.load(std::memory_order_relaxed)) {
            const std::size_t chunk = job.next.fetch_add(1, std::memory_order_relaxed);
            if (chunk >= job.num_chunks) return;
            try {
                (*job.task)(chunk, worker);
            } catch (...) {
                std::lock_guard lock(mutex_);
                if (!job.error) job.error = std::current_exception();
                job.failed.store(true);
            }
        }
    }

    [[noreturn]] void serve() {
        std::unique_lock lock(mutex_);
        for (;;) {
            const auto found =
                std::find_if(jobs_.begin(), jobs_.end(), [](const Job* job) { return job->wants_help(); });
            if (found == jobs_.end()) {
                wake_.wait(lock);
                continue;
            }
            Job& job = **found;
            const std::size_t worker = ++job.joined;
            ++job.active;
            lock.unlock();
            work(job, worker);
            lock.lock();
            if (--job.active == 0) done_.notify_all();
        }
    }

    std::mutex mutex_;
    std::condition_variable wake_;
    std::condition_variable done_;
    std::list<Job*> jobs_;
    std::size_t num_threads_ = 0;
};

// Never destroyed: its threads sleep on it until the process ends.
std::atomic<Pool*> g_pool{nullptr};
std::atomic<std::size_t> g_num_threads{0};

Pool& pool() {
    if (Pool* found = g_pool.load(std::memory_order_acquire)) return *found;
    // A forked child has none of the parent's threads and perhaps a locked mutex: it leaves that pool alone and makes
    // its own.
    static const int registered = pthread_atfork(nullptr, nullptr, [] { g_pool.store(nullptr); });
    static_cast<void>(registered);
    auto* fresh = new Pool;
    Pool* expected = nullptr;
    if (g_pool.compare_exchange_strong(expected, fresh)) return *fresh;
    delete fresh;
    return *expected;
}

// The number that `text` begins with, a comma or nothing after it; above kMaxThreads, also beyond 64 bits, kMaxThreads.
std::optional<std::size_t> positive_integer(const char* text) {
    char* end = nullptr;
    const long value = std::strtol(text, &end, 10);  // the greatest or least long if it does not fit
    if (end == text || (*end != '\0' && *end != ',') || value < 1) return std::nullopt;
    return std::min(static_cast<std::size_t>(value), kMaxThreads);
}

}  // namespace

std::size_t available_cpus() {
#if defined(__linux__)
    cpu_set_t mask;
    if (sched_getaffinity(0, sizeof mask, &mask) == 0) {
        return std::clamp<std::size_t>(static_cast<std::size_t>(CPU_COUNT(&mask)), 1, kMaxThreads);
    }
#endif
    return std::clamp<std::size_t>(std::thread::hardware_concurrency(), 1, kMaxThreads);
}

std::size_t default_num_threads() {
    if (const std::size_t set = g_num_threads.load()) return set;
    if (const char* own = std::getenv("FHELEARN_NUM_THREADS"); own && *own) {
        if (const auto value = positive_integer(own)) return *value;
        throw std::invalid_argument("FHELEARN_NUM_THREADS='" + std::string(own) +
                                    "' must be a positive integer; unset it to use the available CPUs");
    }
    // A list "4,2" is per nesting level; its first entry counts. Like OpenMP's runtimes, ignore what is no number.
    if (const char* omp = std::getenv("OMP_NUM_THREADS"); omp && *omp) {
        if (const auto value = positive_integer(omp)) return *value;
    }
    return available_cpus();
}

std::size_t set_num_threads(std::size_t num_threads) {
    return g_num_threads.exchange(std::min(num_threads, kMaxThreads));
}

void parallel_for(std::size_t num_chunks, std::size_t num_threads, const Task& task) {
    const std::size_t threads = std::min({num_threads, num_chunks, kMaxThreads});
    if (threads <= 1) {
        for (std::size_t chunk = 0; chunk < num_chunks; ++chunk) task(chunk, 0);
        return;
    }
    pool().run(num_chunks, threads, task);
}

}  // namespace fhelearn

int fhelearn_get_num_threads() {
    try {
        return static_cast<int>(fhelearn::default_num_threads());
    } catch (const std::invalid_argument&) {  // callers of a C symbol cannot take an exception; every run() reports it
        return static_cast<int>(fhelearn::available_cpus());
    }
}

void fhelearn_set_num_threads(int num_threads) {
    fhelearn::set_num_threads(num_threads > 0 ? static_cast<std::size_t>(num_threads) : 0);
}
