# One command for each task. Every target depends on the set-up, so that a fresh clone needs no other command.
#
#     make          the virtual environment .venv, with fastgan built and installed editable
#     make demo     train the StegaStamp demo on photographs, hide a message, decode it from a real JPEG
#     make test     all tests
#     make test-fast  without the long ones, which tests/slow.txt lists
#     make lint     ruff, mypy, clang-format, numbers in the docs against benchmarks/results, workflows
#     make tables   write the numbers in README and docs from benchmarks/results
#     make docs     build the documentation's site in build/site
#     make support  write the table of supported combinations, as tested, to docs/support.md; OPS="blur conv2d": only
#                   the rows of these ops anew
#     make budgets  write the costs of GPU launches, computed without a GPU, to docs/gpu-budgets.md; OPS likewise
#     make bench    benchmarks of every op against its peers, into benchmarks/results/
#     make stress   20 000 valid calls, native against reference, and 20 000 with invalid arguments; kill training runs
#                   200 times, damage them 140 times, and let one of several processes fail 50 times
#     make wheel    wheel and sdist, installed and smoke-tested beside three versions of torch
#     make gpu      on a machine with an NVIDIA GPU: build with nvcc, GPU tests, GPU benchmarks (no network needed;
#                   docs/gpu.md)

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# Processes of the tests. They run with OMP_WAIT_POLICY=passive, because waiting threads that spin would take the cores
# from the other process.
WORKERS ?= 2
# No recipe calls make. With `make -j`, ninja would complain that it cannot reach make's job server.
unexport MAKEFLAGS MFLAGS
SOURCES := CMakeLists.txt setup.py pyproject.toml $(shell find csrc -type f)

# `make` alone sets up the virtual environment, with fastgan built in it.
.DEFAULT_GOAL := $(VENV)/installed
.PHONY: demo test test-fast lint format tables docs support budgets bench stress wheel gpu clean

$(VENV)/tools: pyproject.toml
	$(PYTHON) -c 'import sys; assert sys.version_info >= (3, 10), "fastgan needs Python 3.10 or newer, this is " + sys.version'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet "torch>=2.10" "setuptools>=77" cmake ninja pybind11
	touch $@

# The compiled libraries, rebuilt whenever a source changes.
$(VENV)/installed: $(VENV)/tools $(SOURCES)
	$(BIN)/python -m pip install --quiet --no-build-isolation --editable ".[dev]"
	touch $@

# The C++ tests, the bindings through which pytest checks csrc/math, and the CUDA kernels as C++. They link the CPU
# kernels that the installation has just compiled; a pure-Python one compiles none, and leaves those of an older one.
build/tests/built: $(VENV)/installed
	$(BIN)/cmake -G Ninja -S . -B build/tests -DFASTGAN_TEST_BINDINGS=ON -DCMAKE_MAKE_PROGRAM="$(CURDIR)/$(BIN)/ninja" \
	    -DFASTGAN_CPU_LIBRARY="$(if $(filter none,$(FASTGAN_BUILD)),,$(CURDIR)/build/editable/cmake/libfastgan_cpu.a)" \
	    -DPython_EXECUTABLE="$(CURDIR)/$(BIN)/python" \
	    -Dpybind11_DIR="$$($(BIN)/python -c 'import pybind11; print(pybind11.get_cmake_dir())')" \
	    -DFASTGAN_EMULATION_TORCH_DIR="$$($(BIN)/python -c 'import torch; print(torch.__path__[0])')" > /dev/null
	$(BIN)/cmake --build build/tests
	touch $@

# Checks that the sources also compile with the oldest torch's headers, whenever a source changes.
build/headers-checked: $(VENV)/tools tools/check_headers.py $(SOURCES)
	$(BIN)/python tools/check_headers.py
	touch $@

demo: $(VENV)/installed
	$(BIN)/fastgan demo

test: $(VENV)/installed build/tests/built build/headers-checked
	$(BIN)/ctest --test-dir build/tests --output-on-failure
	PYTHONPATH=build/tests OMP_WAIT_POLICY=passive $(BIN)/python -m pytest -n $(WORKERS) --dist worksteal \
	    --junitxml build/tests.xml

# Skips the tests in tests/slow.txt, which tools/slow_tests.py writes from the durations of the last `make test`.
test-fast: $(VENV)/installed build/tests/built
	PYTHONPATH=build/tests OMP_WAIT_POLICY=passive $(BIN)/python -m pytest -n $(WORKERS) --dist worksteal --fast

support: $(VENV)/installed
	$(BIN)/python -m tests.support_table $(OPS) > build/support.md && mv build/support.md docs/support.md

budgets: $(VENV)/installed
	$(BIN)/python -m tests.kernels.budgets $(OPS)

lint: $(VENV)/installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/clang-format --dry-run --Werror $$(find csrc -name '*.h' -o -name '*.cpp' -o -name '*.cu')
	$(BIN)/python tools/tables.py --check
	$(BIN)/python tools/check_workflows.py

format: $(VENV)/installed
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .
	$(BIN)/clang-format -i $$(find csrc -name '*.h' -o -name '*.cpp' -o -name '*.cu')

tables: $(VENV)/installed
	$(BIN)/python tools/tables.py

# Installs mkdocs-material and mkdocstrings, the extra `docs`.
$(VENV)/docs: $(VENV)/installed
	$(BIN)/python -m pip install --quiet --no-build-isolation --editable ".[docs]"
	touch $@

docs: $(VENV)/docs
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --quiet --strict --site-dir build/site
	$(BIN)/python tools/check_docs.py build/site

bench: $(VENV)/installed
	$(BIN)/fastgan bench --output benchmarks/results

stress: $(VENV)/installed
	$(BIN)/python -m tests.stress --output benchmarks/results

wheel: $(VENV)/installed build/headers-checked
	$(BIN)/python tools/check_wheel.py

# Uses the Python in which torch is installed: nothing is downloaded. PHASES="build tests" runs only these phases.
gpu:
	$(PYTHON) tools/gpu.py $(PHASES)

clean:
	rm -rf $(VENV) .editable build dist runs fastgan/_C*.so *.egg-info
