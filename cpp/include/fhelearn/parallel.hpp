// A small pool of threads that sleep when idle.
#pragma once

#include <cstddef>
#include <functional>

namespace fhelearn {

// More threads are never started, however many a caller or the environment asks for.
inline constexpr std::size_t kMaxThreads = 1024;

// Threads used where a call asks for the default: what set_num_threads set, else FHELEARN_NUM_THREADS, else
// OMP_NUM_THREADS, else the CPUs this process may run on. Throws std::invalid_argument if FHELEARN_NUM_THREADS is no
// positive integer.
std::size_t default_num_threads();

// Set the process-wide default, at most kMaxThreads; 0 returns to the environment's. Returns the previous setting (0 if
// there was none).
std::size_t set_num_threads(std::size_t num_threads);

// CPUs this process may run on (its affinity mask).
std::size_t available_cpus();

// Call task(chunk, worker) for every chunk in [0, num_chunks) on at most min(num_threads, kMaxThreads) threads, the
// caller among them; `worker` < num_threads is distinct for threads that run at the same time. Returns when all chunks
// are done. The first exception of a task ends the remaining chunks and is thrown here. Safe to call from several
// threads at once, and in the child of a fork (which starts its own threads).
void parallel_for(std::size_t num_chunks, std::size_t num_threads,
                  const std::function<void(std::size_t chunk, std::size_t worker)>& task);

}  // namespace fhelearn

// Found by threadpoolctl, which looks up C symbols.
extern "C" {
__attribute__((visibility("default"))) int fhelearn_get_num_threads();
__attribute__((visibility("default"))) void fhelearn_set_num_threads(int num_threads);
}
