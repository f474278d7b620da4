// Fork and join without spinning: on machines whose second core comes and goes, waiting actively
// for it costs more than it brings.
#pragma once

#include <atomic>
#include <condition_variable>
#include <functional>
#include <memory>
#include <mutex>
#include <thread>
#include <vector>

namespace talksplat {

// Processors this process may run on.
int available_processors();

class ThreadPool {
 public:
  ~ThreadPool();

  // Calls work(worker) once for every worker in [0, threads), worker 0 on the calling thread, and
  // returns when all have finished. Calls from several threads wait for each other.
  template <class Work>
  void run(int threads, const Work& work) {
    if (threads <= 1) {
      work(0);
      return;
    }
    run_erased(threads, [](const void* w, int i) { (*static_cast<const Work*>(w))(i); }, &work);
  }

 private:
  using Function = void (*)(const void*, int);
  void run_erased(int threads, Function function, const void* work);
  void worker_main(int index);

  std::mutex callers_;
  std::mutex mutex_;
  std::condition_variable start_, finish_;
  std::vector<std::thread> workers_;
  Function function_ = nullptr;
  const void* work_ = nullptr;
  uint64_t round_ = 0;
  int wanted_ = 0;
  int unfinished_ = 0;
  bool stopping_ = false;
};

// The pool of this process; a forked child gets its own.
ThreadPool& thread_pool();

// Denormals are flushed to zero while this lives: transmittance and the tails of exponentials reach
// them, and they cost a hundred cycles each.
class FlushDenormals {
 public:
  FlushDenormals();
  ~FlushDenormals();

 private:
  unsigned long saved_;
};

}  // namespace talksplat
