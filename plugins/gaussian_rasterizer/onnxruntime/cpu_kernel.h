// GaussianRasterize for ONNX Runtime's CPU provider: talksplat.rasterize, the same bits.
#pragma once

#include <memory>
#include <mutex>
#include <vector>

#include "../cpu/rasterizer.h"
#include "api.h"

namespace talksplat::onnxruntime {

// Workspaces that wait for their next call. A session may be run by several threads at a time; each
// call has one to itself.
class Workspaces {
 public:
  std::unique_ptr<Workspace> borrow();
  void give_back(std::unique_ptr<Workspace> workspace);

 private:
  std::mutex mutex_;
  std::vector<std::unique_ptr<Workspace>> free_;
};

// One node of a session.
class CpuKernel {
 public:
  // Throws std::invalid_argument if an attribute has a wrong type or range.
  CpuKernel(const OrtApi& api, const OrtKernelInfo* info, int threads);

  // Throws std::invalid_argument if inputs do not fit, are not finite, or cover too many tiles.
  void compute(OrtKernelContext* context);

  const OrtApi& api() const { return api_; }

 private:
  const OrtApi& api_;
  op::Settings settings_;
  int threads_;
  Workspaces workspaces_;
};

}  // namespace talksplat::onnxruntime
