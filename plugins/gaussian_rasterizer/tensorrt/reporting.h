// Where messages go: TensorRT's logger, the context's error recorder, and the last error of the
// thread. Nothing here throws; exceptions end at TensorRT's interfaces.
#pragma once

#include <NvInferRuntime.h>

#include <exception>
#include <string>

namespace talksplat::tensorrt {

void set_logger_finder(nvinfer1::ILoggerFinder* finder) noexcept;

// Makes `message` the last error of this thread.
void remember(const std::string& message) noexcept;

// Remembers, and tells the recorder, if there is one, and the logger; where there is no logger, the
// standard error.
void report(const std::string& message, nvinfer1::IErrorRecorder* recorder = nullptr,
            nvinfer1::ErrorCode code = nvinfer1::ErrorCode::kINVALID_ARGUMENT) noexcept;

// Empty if there was none.
const char* last_error() noexcept;

// The result of `work`; what it throws is reported and `failed` returned.
template <class Work, class Result>
Result reported(nvinfer1::IErrorRecorder* recorder, Result failed, const Work& work) noexcept {
  try {
    return work();
  } catch (const std::exception& error) {
    report(error.what(), recorder);
  } catch (...) {
    report("met an unknown exception", recorder);
  }
  return failed;
}

}  // namespace talksplat::tensorrt
