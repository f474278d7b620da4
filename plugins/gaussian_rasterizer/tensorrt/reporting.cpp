#include "reporting.h"

#include <atomic>
#include <cstdio>
#include <cstring>

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

void report(const std::string& message, nvinfer1::IErrorRecorder* recorder,
            nvinfer1::ErrorCode code) noexcept {
  char* text = t_last_error;
  std::snprintf(text, kMaxMessage, "talksplat::%s: %s", op::kName, message.c_str());
  if (recorder != nullptr) recorder->reportError(code, text);
  if (nvinfer1::ILogger* logger = find_logger()) {
    logger->log(nvinfer1::ILogger::Severity::kERROR, text);
  } else {
    std::fprintf(stderr, "%s\n", text);
  }
}

const char* last_error() noexcept { return t_last_error; }

}  // namespace talksplat::tensorrt
