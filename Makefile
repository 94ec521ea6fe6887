# Two commands for everybody: `make demo` and `make test`. Everything else is for those who work on the project.
PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
PIP    := $(BIN)/pip install -q --disable-pip-version-check

.PHONY: demo test test-slow dev lint forms links types test-tf4 test-python test-golden test-lowest test-readers dist docs \
	site bench bench-peers bench-docs faults faults-docs clean

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
	$(PIP) -c constraints.txt -e '.[torch,tokenizers,train,logging,remote,test]'
	@touch $(VENV)/.dev $(BIN)/synthshards

dev: $(VENV)/.dev links

# Two files of tests at a time: the machine that they are made for has two cores.
test: dev lint
	$(BIN)/python -m pytest -n 2 --dist loadfile

# What CI runs beside the suite.
test-slow: site

lint: dev types forms
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

# Workflows, issue forms, citation and hooks against their published schemas, which the checker brings along.
SCHEMA := $(BIN)/check-jsonschema --quiet --builtin-schema

forms: dev
	$(SCHEMA) vendor.github-workflows .github/workflows/*.yml
	$(SCHEMA) vendor.dependabot .github/dependabot.yml
	$(SCHEMA) vendor.github-issue-config .github/ISSUE_TEMPLATE/config.yml
	$(SCHEMA) vendor.github-issue-forms $(filter-out %/config.yml,$(wildcard .github/ISSUE_TEMPLATE/*.yml))
	$(SCHEMA) vendor.citation-file-format --default-filetype yaml CITATION.cff
	$(BIN)/pre-commit validate-config
	$(BIN)/zizmor --offline --quiet --min-severity medium .github

# Links that join the four floors as the installed package does: mypy, the site's API reference and an editor's pyright
# find the floors by them.
links:
	@rm -rf build/typing && mkdir -p build/typing/synthshards
	@ln -s $(CURDIR)/synthshards/* $(CURDIR)/pipelines $(CURDIR)/loaders $(CURDIR)/train build/typing/synthshards/

types: dev links
	cd build/typing && $(CURDIR)/$(BIN)/mypy --config-file $(CURDIR)/pyproject.toml --cache-dir $(CURDIR)/.mypy_cache \
		-p synthshards

# The models and generation on the oldest transformers they support, in an environment of its own.
TF4 := .venv-tf4
TF4_TESTS := $(patsubst %,tests/train/test_%.py,recurrent_olmo3 recurrence canon_llama models pretrained logits generation \
	metrics_depo metrics_brevo metrics_mano metrics_lano metrics_capo)

$(TF4)/.ready: pyproject.toml constraints.txt
	test -x $(TF4)/bin/python || $(PYTHON) -m venv $(TF4)
	$(TF4)/bin/pip install -q --disable-pip-version-check -c constraints.txt -e '.[train]' 'transformers==4.57.*' 'pytest>=8'
	@touch $(TF4)/.ready

test-tf4: $(TF4)/.ready
	$(TF4)/bin/python -m pytest $(TF4_TESTS)

# The core's tests, which need no PyTorch, on another Python: make test-python PYTHON=python3.13
CORE := .venv-$(notdir $(PYTHON))
CORE_TESTS := tests/core tests/tasks tests/formats tests/storage tests/pipelines tests/compatibility

$(CORE)/.ready: pyproject.toml
	test -x $(CORE)/bin/python || $(PYTHON) -m venv $(CORE)
	$(CORE)/bin/pip install -q --disable-pip-version-check -e '.[remote,core-test]'
	@touch $(CORE)/.ready

test-python: $(CORE)/.ready
	$(CORE)/bin/python -m pytest -n 2 --dist loadfile $(CORE_TESTS)

# The golden rows alone: for systems and processors that the whole suite is not made for.
test-golden: $(CORE)/.ready
	$(CORE)/bin/python -m pytest tests/tasks/test_golden.py

# The core's tests on the lowest versions that pyproject.toml names for the core and for object stores.
LOWEST := .venv-lowest

$(LOWEST)/.ready: pyproject.toml
	test -x $(LOWEST)/bin/python || $(PYTHON) -m venv $(LOWEST)
	$(LOWEST)/bin/python -c 'import tomllib; project = tomllib.load(open("pyproject.toml", "rb"))["project"]; \
		extras = project["optional-dependencies"]; boto3 = [d for d in extras["core-test"] if d.startswith("boto3")]; \
		print(*project["dependencies"], *extras["remote"], *boto3, sep="\n")' \
		| sed 's/>=/==/' > $(LOWEST)/constraints.txt  # boto3, or pip looks for one that fits its library for minutes
	$(LOWEST)/bin/pip install -q --disable-pip-version-check -c $(LOWEST)/constraints.txt -e '.[remote,core-test]'
	@touch $(LOWEST)/.ready

test-lowest: $(LOWEST)/.ready
	$(LOWEST)/bin/python -m pytest -n 2 --dist loadfile $(CORE_TESTS)

# Our Parquet files in other people's readers, in environments of their own; Spark where Java is, hyparquet where npm is.
READERS     := .venv-readers
READERS_PIP := $(READERS)/bin/pip install -q --disable-pip-version-check

$(READERS)/.ready: Makefile pyproject.toml tests/support/readers/requirements.txt
	test -x $(READERS)/bin/python || $(PYTHON) -m venv $(READERS)
	$(READERS_PIP) -e . -r tests/support/readers/requirements.txt
	if command -v java > /dev/null; then $(READERS_PIP) pyspark==4.3.0; fi
	test -x $(READERS)/pyarrow10/bin/python || $(PYTHON) -m venv $(READERS)/pyarrow10
	$(READERS)/pyarrow10/bin/pip install -q --disable-pip-version-check pyarrow==10.0.1 'numpy<2'
	if command -v npm > /dev/null; then \
		npm install --silent --prefix $(READERS)/node hyparquet@1.33.0 hyparquet-compressors@1.1.2; fi
	@touch $(READERS)/.ready

test-readers: $(READERS)/.ready
	$(READERS)/bin/python -m pytest tests/formats/test_formats_readers.py

# What a release uploads.
dist: dev
	rm -rf dist
	$(BIN)/python -m build

# The generated parts and pictures of docs/ (a test fails where they are stale).
docs: dev
	$(BIN)/python docs/generate.py

# The docs as a site in build/site, with an API reference from docstrings, in an environment of its own. Open
# build/site/index.html; broken links and docstrings that do not fit their signatures fail.
SITE := .venv-site

$(SITE)/.ready: pyproject.toml
	test -x $(SITE)/bin/python || $(PYTHON) -m venv $(SITE)
	$(SITE)/bin/pip install -q --disable-pip-version-check -e '.[docs]'
	@touch $(SITE)/.ready

site: $(SITE)/.ready links
	NO_MKDOCS_2_WARNING=1 $(SITE)/bin/mkdocs build --strict

SECTIONS := start-up,builds,resume,generation,formats,loaders

bench: dev
	$(BIN)/synthshards bench

# The same rows read by litdata, HF datasets, webdataset and mosaicml-streaming, each in an environment under .peers/.
bench-peers: dev
	@mkdir -p build
	$(BIN)/synthshards bench --only peers --json > build/bench-peers.json
	$(BIN)/synthshards bench --from build/bench-peers.json --markdown docs/performance.md

# Every table of figures in the docs, measured anew: some minutes, on a machine where nothing else runs.
bench-docs: dev
	@mkdir -p build
	$(BIN)/synthshards bench --only $(SECTIONS),peers --json > build/bench.json
	for page in $$(grep -l '<!-- bench:' README.md docs/*.md); do \
		$(BIN)/synthshards bench --from build/bench.json --markdown $$page > /dev/null || exit 1; done

# Kills, full disks, damaged and crafted files, a store that fails, long streams: what docs/reliability.md tells of, as
# often as it says. FAULTS='--times 20' for hours, FAULTS='--only kill' for a part; exit code 1 where one is not survived.
FAULTS :=

faults: dev
	PYTHONPATH=tests/support $(BIN)/python -m faults $(FAULTS)

faults-docs: dev
	@mkdir -p build
	PYTHONPATH=tests/support $(BIN)/python -m faults --json build/faults.json --markdown docs/reliability.md $(FAULTS)

clean:
	rm -rf .venv .venv-* .peers build dist data *.egg-info .mypy_cache .pytest_cache .ruff_cache
