# `make demo` and `make test` set everything up in .venv on the first call.
#
#   make demo   the whole loop in the simulated world, and its report    ARGS="--quick" is passed on
#   make test   every test                                               ARGS="-k runs" is passed on
#   make fast   the tests that take little time
#   make check  form, types and layers of the code
#   make docs   writes docs/commands.md anew, from the help of the commands
#   make loop   the whole experiment: more prompts, three seeds (most of an hour)
#   make bench  how fast scoring is, beside its peers (hours, 15 GB)     ARGS="--quick" is passed on

PYTHON ?= python3
WORKERS ?= 2
ARGS ?=

VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
PALATE := $(BIN)/palate
# A file's tests stay in one process, so that what they share is made once.
PYTEST := OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n $(WORKERS) --dist loadfile

# Compiled bytecode takes seconds off every start of torch and transformers.
export UV_COMPILE_BYTECODE := 1
unexport PYTHONDONTWRITEBYTECODE

.PHONY: help demo loop bench test fast check docs clean

help:
	@sed -n 's/^#   //p' Makefile

demo: $(STAMP)
	$(PALATE) demo $(ARGS)

loop: $(STAMP)
	$(PALATE) demo --full --out runs/loop $(ARGS)

bench: $(STAMP)
	$(BIN)/python benchmarks/scoring.py $(ARGS)

test: $(STAMP)
	$(PYTEST) $(ARGS)

fast: $(STAMP)
	$(PYTEST) -m "not slow" $(ARGS)

check: $(STAMP)
	$(BIN)/ruff format --check
	$(BIN)/ruff check
	$(BIN)/mypy
	$(BIN)/lint-imports

docs: $(STAMP)
	$(BIN)/python docs/write_commands.py docs/commands.md

clean:
	rm -rf $(VENV) .mypy_cache .pytest_cache .ruff_cache .import_linter_cache .hypothesis

$(STAMP): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
	  || { echo "Palate needs Python 3.11 or newer; name one: make PYTHON=python3.12" >&2; exit 1; }
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV) \
	  || { rm -rf $(VENV); echo "Python lacks its venv module: apt-get install python3-venv" >&2; exit 1; }
	@test -x $(BIN)/uv || $(BIN)/python -m pip install -q -c constraints.txt uv \
	  || echo "uv could not be installed; pip does its work, more slowly" >&2
	@# uv does not read pip's configuration: hand it the local wheels, if pip has any.
	@links="$${UV_FIND_LINKS:-$${PIP_FIND_LINKS:-$$($(BIN)/python -m pip config get global.find-links 2>/dev/null)}}"; \
	links="$$(echo $$links | tr ' ' ',')"; \
	set -- -c constraints.txt -e '.[demo,dev,openvino,ray,s3,sheets]'; \
	UV_FIND_LINKS="$$links" $(BIN)/uv pip install -q --python $(BIN)/python "$$@" \
	  || $(BIN)/python -m pip install -q "$$@"
	@touch $@
