# Two commands for everybody: `make demo` and `make test`. Everything else is for those who work on the project.
PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
PIP    := $(BIN)/pip install -q --disable-pip-version-check

.PHONY: demo test dev lint types docs bench clean

# The core alone: numpy, numba, pyarrow, click, msgspec. No torch.
$(BIN)/synthshards: pyproject.toml
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(PIP) -e .
	@touch $(BIN)/synthshards

demo: $(BIN)/synthshards
	$(BIN)/synthshards build depo --shards 64
	$(BIN)/synthshards verify data/depo/train
	$(BIN)/synthshards inspect data/depo/train --show 1 --max-tokens 120

# Every extra and test tool, in the same environment. The constraints pin what would otherwise be a download of gigabytes.
$(VENV)/.dev: pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(PIP) -c constraints.txt -e '.[torch,tokenizers,remote,test]'
	@touch $(VENV)/.dev $(BIN)/synthshards

dev: $(VENV)/.dev

test: dev lint
	$(BIN)/python -m pytest

lint: dev types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

# mypy finds the four floors through links that join them as the installed package does.
types: dev
	@rm -rf build/typing && mkdir -p build/typing/synthshards
	@ln -s $(CURDIR)/synthshards/* $(CURDIR)/pipelines $(CURDIR)/loaders $(CURDIR)/train build/typing/synthshards/
	cd build/typing && $(CURDIR)/$(BIN)/mypy --config-file $(CURDIR)/pyproject.toml -p synthshards

# The generated parts of docs/tasks.md (a test fails where they are stale).
docs: dev
	$(BIN)/python docs/generate.py

bench: dev
	$(BIN)/synthshards bench

clean:
	rm -rf $(VENV) build dist data *.egg-info .mypy_cache .pytest_cache .ruff_cache
