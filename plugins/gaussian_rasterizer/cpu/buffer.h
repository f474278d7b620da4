// Memory that is kept between frames: grows, never shrinks, and is not initialised.
#pragma once

#include <cstddef>
#include <cstdlib>
#include <new>
#include <utility>

#if defined(__linux__)
#include <sys/mman.h>
#endif

namespace talksplat {

template <class T>
class Buffer {
 public:
  Buffer() = default;
  Buffer(Buffer&& other) noexcept { swap(other); }
  Buffer& operator=(Buffer&& other) noexcept {
    swap(other);
    return *this;
  }
  ~Buffer() { std::free(data_); }

  // Room for `size` elements, contents unspecified, aligned to a cache line.
  T* reserve(std::size_t size) {
    if (size > capacity_) {
      std::free(data_);
      data_ = nullptr;
      capacity_ = 0;
      const std::size_t room = size + size / 4 + 64;  // so that slow growth does not reallocate
      const std::size_t wanted = room * sizeof(T);
      const std::size_t alignment = wanted < kHugePage ? kCacheLine : kHugePage;
      const std::size_t bytes = (wanted + alignment - 1) / alignment * alignment;
      data_ = static_cast<T*>(std::aligned_alloc(alignment, bytes));
      if (data_ == nullptr) throw std::bad_alloc();
#if defined(__linux__)
      // Splats are read in no order, and would miss the address translation more than the caches.
      // Where the system refuses, it is only slower.
      if (alignment == kHugePage) madvise(data_, bytes, MADV_HUGEPAGE);
#endif
      capacity_ = room;
    }
    return data_;
  }
  T* data() { return data_; }
  const T* data() const { return data_; }
  std::size_t bytes() const { return capacity_ * sizeof(T); }

 private:
  static constexpr std::size_t kCacheLine = 64, kHugePage = std::size_t{2} << 20;

  void swap(Buffer& other) {
    std::swap(data_, other.data_);
    std::swap(capacity_, other.capacity_);
  }
  T* data_ = nullptr;
  std::size_t capacity_ = 0;
};

}  // namespace talksplat
