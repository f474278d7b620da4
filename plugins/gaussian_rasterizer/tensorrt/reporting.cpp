#include "reporting.h"

#include <atomic>
#include <cstdio>

#include "../operator.h"

namespace talksplat::tensorrt {
namespace {

std::atomic<nvinfer1::ILoggerFinder*> g_finder = nullptr;

constexpr size_t kMaxMessage = 1024;
thread_local char t_last_error[kMaxMessage] = "";

nvinfer1::ILogger* find_logger() noexcept {
  nvinfer1::ILoggerFinder* finder = g_finder.load();
  if (finder == nullptr) return nullptr;
  try {
    return finder->findLogger();
  } catch (...) {
    return nullptr;
  }
}

}  // namespace

void set_logger_finder(nvinfer1::ILoggerFinder* finder) noexcept { g_finder.store(finder); }

void remember(const std::string& message) noexcept {
  std::snprintf(t_last_error, kMaxMessage, "%s::%s: %s", op::kDomain, op::kName, message.c_str());
}

void report(const std::string& message, nvinfer1::IErrorRecorder* recorder,
            nvinfer1::ErrorCode code) noexcept {
  remember(message);
  if (recorder != nullptr) recorder->reportError(code, t_last_error);
  if (nvinfer1::ILogger* logger = find_logger()) {
    logger->log(nvinfer1::ILogger::Severity::kERROR, t_last_error);
  } else {
    std::fprintf(stderr, "%s\n", t_last_error);
  }
}

const char* last_error() noexcept { return t_last_error; }

}  // namespace talksplat::tensorrt
