# make demo   set up, forget "Santa Claus" on the embedded model, measure it, write the report
# make test   set up with the development tools and run the tests; make test LONG=1 runs those that take long as
#             well, the studio in Chromium and the documentation's build
#
# Torch from PyPI brings its CUDA libraries. On a machine without a GPU this saves gigabytes:
#   PIP_EXTRA_INDEX_URL=https://download.pytorch.org/whl/cpu make demo

SHELL       := bash
.SHELLFLAGS := -eu -o pipefail -c
.ONESHELL:

PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
RUN    ?= runs/santa-claus

# One line a package instead of pip's pages; pip's errors still arrive on stderr.
TERSE  := awk '/^Collecting/ { printf "  + %s\n", $$2; fflush() } /^Successfully installed/ { print "  installed"; fflush() }'
# How pytest deals the tests out: a process for each core, at most four, and a file of tests to one process.
SPREAD := --numprocesses auto --maxprocesses 4 --dist loadfile --no-loadscope-reorder
PIP    := $(BIN)/python -m pip install --disable-pip-version-check --progress-bar off -c constraints.txt

GRADIO_NEEDS := brotli fastapi gradio-client groovy hf-gradio httpx orjson pandas pydub python-multipart pytz safehttpx \
	semantic-version starlette tomlkit uvicorn

.DEFAULT_GOAL := help
.PHONY: help demo test browser chromium-begun fuzz lint types docs reference clean

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "  make %-9s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

$(VENV)/.installed-core: pyproject.toml constraints.txt
	@test -x $(BIN)/python || { echo "creating $(VENV)"; $(PYTHON) -m venv $(VENV); }
	echo "installing aizheimer into $(VENV)"
	$(PIP) -e . | $(TERSE)
	touch $@

$(VENV)/.installed-dev: $(VENV)/.installed-core
	@echo "installing the development tools into $(VENV)"
	$(PIP) -e '.[dev]' | $(TERSE)
	touch $@

# What the long tests run for real beside that: Ray, NudeNet with its network, parquet, 8-bit Adam. 350 MB.
$(VENV)/.installed-extras: $(VENV)/.installed-dev
	@echo "installing Ray, NudeNet, pyarrow and bitsandbytes into $(VENV)"
	$(PIP) -e '.[ray,safety,parquet,8bit]' | $(TERSE)
	touch $@

# Gradio's own metadata wants a pillow below the pinned one, on which it runs all the same (tests/browser); so what it
# needs is installed first, and then Gradio without a look at what it needs.
$(VENV)/.installed-studio: $(VENV)/.installed-dev
	@echo "installing the studio and what its tests need into $(VENV)"
	$(PIP) $(GRADIO_NEEDS) playwright | $(TERSE)
	$(PIP) --no-deps gradio | $(TERSE)
	touch $@

# Not every chromium that is there runs: Ubuntu's is a script that asks for a snap.
HAS_CHROMIUM := { chromium --version || chromium-browser --version || google-chrome --version; } &>/dev/null
GETTING      := $(VENV)/.chromium

# Where Chromium is missing and can be installed, that is begun here and goes on while pip works.
chromium-begun:
	@mkdir -p $(VENV)
	if ! $(HAS_CHROMIUM) && [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
		echo "installing Chromium for the browser tests"
		get() { apt-get update -qq && apt-get install -yqq --no-install-recommends chromium; }
		{ DEBIAN_FRONTEND=noninteractive get </dev/null &>$(GETTING).log; rm -f $(GETTING).pid; } &
		echo $$! >$(GETTING).pid
	fi

# Waits for the installation that was begun, and says whether the browser tests will run.
define CHROMIUM
while [ -f $(GETTING).pid ] && kill -0 "$$(<$(GETTING).pid)" 2>/dev/null; do sleep 1; done
if $(HAS_CHROMIUM); then
	export AIZHEIMER_BROWSER=required
else
	echo "browser tests left out: no Chromium, and it cannot be installed here (as root: apt-get install chromium)"
	tail -n 3 $(GETTING).log 2>/dev/null || true
fi
endef

$(VENV)/.installed-docs: $(VENV)/.installed-core
	@echo "installing the documentation tools into $(VENV)"
	$(PIP) -e '.[docs]' | $(TERSE)
	touch $@

demo: $(VENV)/.installed-core ## forget "Santa Claus" and show what happened
	@$(BIN)/aizheimer forget "Santa Claus" --out $(RUN) --overwrite
	$(BIN)/aizheimer evaluate $(RUN)
	$(BIN)/aizheimer report $(RUN)

test: $(if $(LONG),chromium-begun $(VENV)/.installed-extras $(VENV)/.installed-studio $(VENV)/.installed-docs,$(VENV)/.installed-dev) ## run the tests; LONG=1 for those that take long, the browser's and the docs' build as well, as CI does
	@$(if $(LONG),$(CHROMIUM))
	$(BIN)/python -m pytest $(if $(LONG),,-m 'not browser and not long') $(SPREAD)

browser: chromium-begun $(VENV)/.installed-studio ## test the studio in Chromium
	@$(CHROMIUM)
	$(BIN)/python -m pytest tests/browser -m browser -rs

fuzz: $(VENV)/.installed-dev ## run 10,000 fuzzed inputs, other ones every time
	@AIZHEIMER_FUZZ_CASES=$${AIZHEIMER_FUZZ_CASES:-10000} $(BIN)/python -m pytest tests/fuzz --timeout 7200

lint: $(VENV)/.installed-dev ## check style and formatting
	@$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(VENV)/.installed-dev ## check the types
	@$(BIN)/pyright

docs: $(VENV)/.installed-docs ## build the documentation into site/
	@NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

reference: $(VENV)/.installed-core ## write what the documentation takes from the code
	@$(BIN)/python docs/reference.py

clean: ## remove what the other targets made, the environment too
	@rm -rf $(VENV) site build dist .pytest_cache .ruff_cache .hypothesis
	find src tests -name __pycache__ -type d -prune -exec rm -rf {} +
