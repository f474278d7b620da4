#include "cuda_on_host.h"

#include <dlfcn.h>
#include <sys/mman.h>

#include <algorithm>
#include <mutex>
#include <numeric>
#include <random>
#include <stdexcept>
#include <string>
#include <vector>

#if !defined(__x86_64__)
#include <ucontext.h>
#endif

// Begin and end of what is declared __shared__; absent where nothing is.
extern "C" __attribute__((weak)) char __start_cuda_shared[], __stop_cuda_shared[];

namespace cuda_on_host {

Thread* current = nullptr;
Launch launch;

namespace {

// By value, as kernels take theirs: C++ passes every struct of more than 16 bytes in the same
// place, whatever its size, so a kernel finds its own at the beginning of these bytes.
struct ArgumentBytes {
  alignas(8) char bytes[4096];
};
using Kernel = void (*)(ArgumentBytes);
constexpr size_t kLeastArgument = 17;

constexpr size_t kStackBytes = 256 << 10;
constexpr unsigned kMaxThreads = 1024, kWarp = 32;

#if defined(__x86_64__)
// Callee-saved registers on the stack, and the stack.
struct Context {
  void* stack_pointer = nullptr;
};
extern "C" void cuda_on_host_switch(void** save, void* load);
asm(R"(
.text
.type cuda_on_host_switch, @function
cuda_on_host_switch:
  pushq %rbp
  pushq %rbx
  pushq %r12
  pushq %r13
  pushq %r14
  pushq %r15
  movq %rsp, (%rdi)
  movq %rsi, %rsp
  popq %r15
  popq %r14
  popq %r13
  popq %r12
  popq %rbx
  popq %rbp
  ret
.size cuda_on_host_switch, .-cuda_on_host_switch
)");
void switch_context(Context& from, Context& to) {
  cuda_on_host_switch(&from.stack_pointer, to.stack_pointer);
}
void make_context(Context& context, char* stack, void (*entry)()) {
  void** top = reinterpret_cast<void**>(stack + kStackBytes);
  *--top = nullptr;  // a return address for entry, which does not return; aligns its stack
  *--top = reinterpret_cast<void*>(entry);
  for (int i = 0; i < 6; ++i) *--top = nullptr;
  context.stack_pointer = top;
}
#else
struct Context {
  ucontext_t context;
};
void switch_context(Context& from, Context& to) { swapcontext(&from.context, &to.context); }
void make_context(Context& context, char* stack, void (*entry)()) {
  getcontext(&context.context);
  context.context.uc_stack.ss_sp = stack;
  context.context.uc_stack.ss_size = kStackBytes;
  context.context.uc_link = nullptr;
  makecontext(&context.context, entry, 0);
}
#endif

enum class State { kReady, kAtBlock, kAtWarp, kDone };

struct Fiber : Thread {
  Context context;
  char* stack = nullptr;
  State state = State::kDone;
  unsigned mask = 0;  // of the lanes it waits for
};

// What was brought to a meeting. Two in turn: a thread that runs ahead to the next one must not
// overwrite what others have yet to read of this one.
struct Meeting {
  uint64_t brought[2][kMaxThreads];
  unsigned turn = 0;
};

class Machine {
 public:
  void run(Kernel kernel, const ArgumentBytes& argument, Index grid, Index block) {
    kernel_ = kernel;
    argument_ = &argument;
    launch = {grid, block};
    threads_ = block.x * block.y * block.z;
    while (fibers_.size() < threads_) {
      fibers_.emplace_back();
      void* stack = mmap(nullptr, kStackBytes, PROT_READ | PROT_WRITE,
                         MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
      if (stack == MAP_FAILED) throw std::runtime_error("no memory for the stack of a thread");
      fibers_.back().stack = static_cast<char*>(stack);
    }
    std::vector<uint64_t> blocks(static_cast<size_t>(grid.x) * grid.y * grid.z);
    std::iota(blocks.begin(), blocks.end(), 0);
    std::shuffle(blocks.begin(), blocks.end(), random_);
    for (const uint64_t rank : blocks) {
      run_block({static_cast<unsigned>(rank % grid.x),
                 static_cast<unsigned>(rank / grid.x % grid.y),
                 static_cast<unsigned>(rank / grid.x / grid.y)});
    }
  }

  void seed(uint64_t seed) { random_.seed(seed); }

  uint64_t* meet(State state, unsigned mask, uint64_t brought) {
    Fiber& fiber = static_cast<Fiber&>(*current);
    Meeting& meeting = state == State::kAtBlock ? at_block_ : at_warp_[fiber.rank / kWarp];
    uint64_t* values = meeting.brought[meeting.turn];
    values[state == State::kAtBlock ? fiber.rank : fiber.rank % kWarp] = brought;
    fiber.state = state;
    fiber.mask = mask;
    pause(fiber);
    return values;
  }

  [[noreturn]] void finish_thread() {
    Fiber& fiber = static_cast<Fiber&>(*current);
    fiber.state = State::kDone;
    pause(fiber);
    __builtin_unreachable();
  }

  void call_kernel() { kernel_(*argument_); }

 private:
  void pause(Fiber& fiber) { switch_context(fiber.context, scheduler_); }

  void run_block(Index block) {
    if (__start_cuda_shared != nullptr) {
      std::memset(__start_cuda_shared, 0xff,
                  static_cast<size_t>(__stop_cuda_shared - __start_cuda_shared));
    }
    for (unsigned rank = 0; rank < threads_; ++rank) {
      Fiber& fiber = fibers_[rank];
      fiber.thread = {rank % launch.block.x, rank / launch.block.x % launch.block.y,
                      rank / launch.block.x / launch.block.y};
      fiber.block = block;
      fiber.rank = rank;
      fiber.state = State::kReady;
      make_context(fiber.context, fiber.stack, [] { enter(); });
    }
    std::vector<unsigned> warps((threads_ + kWarp - 1) / kWarp);
    std::iota(warps.begin(), warps.end(), 0);
    unsigned done = 0;
    while (done < threads_) {
      std::shuffle(warps.begin(), warps.end(), random_);
      bool moved = false;
      for (const unsigned warp : warps) {
        // A warp goes on alone for as long as it can, or takes one step while others take theirs.
        bool goes_on = true;
        while (goes_on) {
          const bool stepped = step_warp(warp, done);
          moved |= stepped;
          goes_on = stepped && random_() % 8 != 0;
        }
      }
      if (done < threads_ && release_block()) moved = true;
      if (!moved) {
        throw std::runtime_error("threads of block (" + std::to_string(block.x) + ", " +
                                 std::to_string(block.y) + ", " + std::to_string(block.z) +
                                 ") wait at different barriers, or for lanes that have ended");
      }
    }
  }

  // Every lane that may, as far as its next meeting. Whether there was one.
  bool step_warp(unsigned warp, unsigned& done) {
    unsigned lanes[kWarp], count = 0;
    for (unsigned rank = warp * kWarp; rank < std::min((warp + 1) * kWarp, threads_); ++rank) {
      if (fibers_[rank].state == State::kReady) lanes[count++] = rank;
    }
    std::shuffle(lanes, lanes + count, random_);
    for (unsigned i = 0; i < count; ++i) {
      Fiber& fiber = fibers_[lanes[i]];
      current = &fiber;
      switch_context(scheduler_, fiber.context);
      done += fiber.state == State::kDone;
      if (fiber.state == State::kAtWarp) release_warp(warp, fiber.mask);
    }
    return count > 0;
  }

  static void enter();

  void release_warp(unsigned warp, unsigned mask) {
    const unsigned first = warp * kWarp;
    for (unsigned lane = 0; lane < kWarp; ++lane) {
      if ((mask >> lane & 1) == 0) continue;
      if (first + lane >= threads_) return;
      const Fiber& fiber = fibers_[first + lane];
      if (fiber.state != State::kAtWarp || fiber.mask != mask) return;
    }
    for (unsigned lane = 0; lane < kWarp; ++lane) {
      if (mask >> lane & 1) fibers_[first + lane].state = State::kReady;
    }
    at_warp_[warp].turn ^= 1;
  }

  // Threads that have ended are not waited for.
  bool release_block() {
    for (unsigned rank = 0; rank < threads_; ++rank) {
      const State state = fibers_[rank].state;
      if (state != State::kAtBlock && state != State::kDone) return false;
      if (state == State::kDone) at_block_.brought[at_block_.turn][rank] = 0;
    }
    for (unsigned rank = 0; rank < threads_; ++rank) {
      if (fibers_[rank].state == State::kAtBlock) fibers_[rank].state = State::kReady;
    }
    at_block_.turn ^= 1;
    return true;
  }

  Kernel kernel_ = nullptr;
  const ArgumentBytes* argument_ = nullptr;
  unsigned threads_ = 0;
  std::vector<Fiber> fibers_;
  Context scheduler_;
  Meeting at_block_;
  Meeting at_warp_[kMaxThreads / kWarp];
  std::mt19937_64 random_{0};
};

Machine& machine() {
  static Machine machine;
  return machine;
}

void Machine::enter() {
  machine().call_kernel();
  machine().finish_thread();
}

std::mutex one_launch_at_a_time;
std::string last_error;

}  // namespace

uint64_t* meet_block(uint64_t brought) { return machine().meet(State::kAtBlock, 0, brought); }
uint64_t* meet_warp(unsigned mask, uint64_t brought) {
  return machine().meet(State::kAtWarp, mask, brought);
}

}  // namespace cuda_on_host

using namespace cuda_on_host;

// Runs a kernel that takes one struct of 17 to 4096 bytes. 0, or 1 and talksplat_host_error says
// why.
extern "C" __attribute__((visibility("default"))) int talksplat_host_launch(
    const char* kernel, const unsigned grid[3], const unsigned block[3], unsigned shared_bytes,
    const void* arguments, size_t size) {
  const std::lock_guard<std::mutex> lock(one_launch_at_a_time);
  try {
    Dl_info library;
    dladdr(reinterpret_cast<void*>(&talksplat_host_launch), &library);
    void* handle = dlopen(library.dli_fname, RTLD_LAZY | RTLD_NOLOAD);
    if (handle == nullptr) handle = dlopen(nullptr, RTLD_LAZY);  // a program, not a library
    void* function = handle == nullptr ? nullptr : dlsym(handle, kernel);
    if (handle != nullptr) dlclose(handle);
    if (function == nullptr) throw std::runtime_error(std::string("no kernel ") + kernel);
    if (shared_bytes != 0) throw std::runtime_error("dynamic shared memory is not emulated");
    const uint64_t threads = uint64_t{block[0]} * block[1] * block[2];
    if (threads == 0 || threads > kMaxThreads)
      throw std::runtime_error("1 to 1024 threads a block");
    if (grid[0] == 0 || grid[1] == 0 || grid[2] == 0 || grid[1] > 65535 || grid[2] > 65535) {
      throw std::runtime_error("a grid of no blocks, or of too many");
    }
    if (size < kLeastArgument || size > sizeof(ArgumentBytes)) {
      throw std::runtime_error("arguments of 17 to 4096 bytes");
    }
    ArgumentBytes bytes;
    std::memcpy(bytes.bytes, arguments, size);
    machine().run(reinterpret_cast<Kernel>(function), bytes, {grid[0], grid[1], grid[2]},
                  {block[0], block[1], block[2]});
    return 0;
  } catch (const std::exception& error) {
    last_error = error.what();
    return 1;
  }
}

extern "C" __attribute__((visibility("default"))) const char* talksplat_host_error() {
  return last_error.c_str();
}

// The order of blocks and threads from here on.
extern "C" __attribute__((visibility("default"))) void talksplat_host_seed(uint64_t seed) {
  machine().seed(seed);
}
