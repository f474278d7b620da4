#include "thread_pool.h"

#include <unistd.h>
#if defined(__linux__)
#include <sched.h>
#endif
#if defined(__SSE__)
#include <xmmintrin.h>
#endif

namespace talksplat {

int available_processors() {
#if defined(__linux__)
  cpu_set_t set;
  if (sched_getaffinity(0, sizeof(set), &set) == 0) return CPU_COUNT(&set);
#endif
  const unsigned count = std::thread::hardware_concurrency();
  return count == 0 ? 1 : static_cast<int>(count);
}

ThreadPool::~ThreadPool() {
  {
    std::lock_guard lock(mutex_);
    stopping_ = true;
  }
  start_.notify_all();
  for (std::thread& worker : workers_) worker.join();
}

void ThreadPool::run_erased(int threads, Function function, const void* work) {
  std::lock_guard caller(callers_);
  {
    std::lock_guard lock(mutex_);
    while (static_cast<int>(workers_.size()) < threads - 1) {
      const int index = static_cast<int>(workers_.size()) + 1;
      workers_.emplace_back([this, index] { worker_main(index); });
    }
    function_ = function;
    work_ = work;
    wanted_ = threads;
    unfinished_ = threads - 1;
    ++round_;
  }
  start_.notify_all();
  function(work, 0);
  std::unique_lock lock(mutex_);
  finish_.wait(lock, [this] { return unfinished_ == 0; });
}

void ThreadPool::worker_main(int index) {
  const FlushDenormals flush;
  uint64_t seen = 0;
  std::unique_lock lock(mutex_);
  while (true) {
    start_.wait(lock, [&] { return stopping_ || (round_ != seen && unfinished_ > 0); });
    if (stopping_) return;
    seen = round_;
    if (index >= wanted_) continue;
    const Function function = function_;
    const void* work = work_;
    lock.unlock();
    function(work, index);
    lock.lock();
    if (--unfinished_ == 0) finish_.notify_one();
  }
}

ThreadPool& thread_pool() {
  static std::mutex mutex;
  static ThreadPool* pool = nullptr;
  static pid_t owner = 0;
  std::lock_guard lock(mutex);
  if (pool == nullptr || owner != getpid()) {
    // Left to the operating system at exit, and after a fork, where its threads do not exist.
    pool = new ThreadPool;
    owner = getpid();
  }
  return *pool;
}

#if defined(__SSE__)
FlushDenormals::FlushDenormals() : saved_(_mm_getcsr()) {
  _mm_setcsr(static_cast<unsigned>(saved_) | 0x8040);  // FTZ and DAZ
}
FlushDenormals::~FlushDenormals() { _mm_setcsr(static_cast<unsigned>(saved_)); }
#elif defined(__aarch64__)
FlushDenormals::FlushDenormals() {
  asm volatile("mrs %0, fpcr" : "=r"(saved_));
  asm volatile("msr fpcr, %0" ::"r"(saved_ | (1ul << 24)));
}
FlushDenormals::~FlushDenormals() { asm volatile("msr fpcr, %0" ::"r"(saved_)); }
#else
FlushDenormals::FlushDenormals() : saved_(0) {}
FlushDenormals::~FlushDenormals() {}
#endif

}  // namespace talksplat
