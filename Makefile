# Two commands for a newcomer: `make demo` and `make test`. Each sets up its own environment.

PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
# Any build of torch 2.6 or later will do; this is the one talksplat is tested with.
TORCH ?= torch==2.13.0

CHECKPOINT := samples/avatars/ada.pt
SPEECH := samples/speech/hello.wav

# Of ONNX Runtime, for its custom operator; without them talksplat is built without it. Downloaded
# unless ONNXRUNTIME_INCLUDE_DIR or ONNXRUNTIME_ROOT say where others are.
HEADERS := $(CURDIR)/build/onnxruntime
ifndef ONNXRUNTIME_ROOT
export ONNXRUNTIME_INCLUDE_DIR ?= $(HEADERS)
endif
ifeq ($(ONNXRUNTIME_INCLUDE_DIR),$(HEADERS))
DOWNLOADED := $(HEADERS)/onnxruntime_c_api.h
endif

.PHONY: demo test check native format clean

demo: $(VENV)/.installed
	mkdir -p out
	$(BIN)/talksplat export $(CHECKPOINT) -o out/ada.avatar --overwrite
	$(BIN)/talksplat verify out/ada.avatar $(CHECKPOINT) --probe $(SPEECH)
	$(BIN)/talksplat demo out/ada.avatar $(SPEECH) -o out

test: $(VENV)/.installed-dev
	$(BIN)/python -m pytest

check: $(VENV)/.installed-dev
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/clang-format --dry-run --Werror $$(git ls-files '*.h' '*.cpp' '*.cu' '*.cuh')

format: $(VENV)/.installed-dev
	$(BIN)/ruff check --fix
	$(BIN)/ruff format
	$(BIN)/clang-format -i $$(git ls-files '*.h' '*.cpp' '*.cu' '*.cuh')

# For work on the C++: build in place, next to the Python sources.
native: | $(DOWNLOADED)
	cmake -S . -B build/dev -G Ninja -DPython_EXECUTABLE=$$(command -v $(PYTHON))
	cmake --build build/dev
	cmake --install build/dev --prefix sdk

$(VENV)/bin/python:
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --upgrade pip

$(HEADERS)/onnxruntime_c_api.h:
	-$(PYTHON) plugins/gaussian_rasterizer/onnxruntime/fetch_headers.py $(HEADERS)

# Everything that makes the installed package what it is.
SOURCES := pyproject.toml CMakeLists.txt $(shell git ls-files plugins sdk export)

$(VENV)/.installed: $(VENV)/bin/python $(SOURCES) | $(DOWNLOADED)
	$(BIN)/pip install --quiet "$(TORCH)"
	$(BIN)/pip install --quiet ".[export]"
	touch $@

$(VENV)/.installed-dev: $(VENV)/.installed
	$(BIN)/pip install --quiet ".[export,capture,dev]"
	touch $@

clean:
	rm -rf build out $(VENV)
