/* libtalksplat_tensorrt_plugin.so, beside what TensorRT itself looks for in it (getCreators and
 * setLoggerFinder). Plain C, no header of TensorRT needed; nothing here throws. */
#ifndef TALKSPLAT_TENSORRT_PLUGIN_H
#define TALKSPLAT_TENSORRT_PLUGIN_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#define TALKSPLAT_TENSORRT_PLUGIN_ABI 1

typedef struct {
  int32_t abi;                    /* TALKSPLAT_TENSORRT_PLUGIN_ABI of the library */
  int32_t tensorrt_version;       /* of the headers: major * 10000 + minor * 100 + patch */
  int32_t cuda_version;           /* of the CUDA toolkit: major * 1000 + minor * 10 */
  const char* talksplat_version;  /* "0.1.0" */
  const char* cuda_architectures; /* what there is machine code or PTX for: "75-real 80-real ..." */
} talksplat_tensorrt_plugin_facts;

enum {
  TALKSPLAT_TENSORRT_PLUGIN_OK = 0,
  TALKSPLAT_TENSORRT_PLUGIN_OTHER_ABI = 1,      /* `size` is not that of the library's facts */
  TALKSPLAT_TENSORRT_PLUGIN_OTHER_MAJOR = 2,    /* compiled for another major version */
  TALKSPLAT_TENSORRT_PLUGIN_TOO_OLD = 3,        /* TensorRT is older than 10.3 */
  TALKSPLAT_TENSORRT_PLUGIN_NO_TENSORRT = 4,    /* no TensorRT is loaded in this process */
  TALKSPLAT_TENSORRT_PLUGIN_NOT_REGISTERED = 5, /* the registry refused: most often there is one */
  TALKSPLAT_TENSORRT_PLUGIN_FAILED = 6          /* something else, as when there is no memory */
};

/* Fills `facts`; `size` is sizeof(talksplat_tensorrt_plugin_facts) of the caller. */
int32_t talksplat_tensorrt_plugin_info(talksplat_tensorrt_plugin_facts* facts, size_t size);

/* Whether the plugin fits a TensorRT of `version` (what getInferLibVersion() answers), or, with 0,
 * the one loaded in this process. */
int32_t talksplat_tensorrt_plugin_check(int32_t version);

/* Registers talksplat::GaussianRasterize with `registry`, an nvinfer1::IPluginRegistry*, or, with
 * NULL, with that of the TensorRT loaded in this process. IPluginRegistry::loadLibrary does the
 * same; use one of the two. */
int32_t talksplat_tensorrt_plugin_register(void* registry);

/* What this thread was told last, in words: after a code other than 0, or after TensorRT was
 * refused something. Empty if nothing; valid until the thread's next call. */
const char* talksplat_tensorrt_plugin_last_error(void);

#ifdef __cplusplus
}
#endif

#endif /* TALKSPLAT_TENSORRT_PLUGIN_H */
