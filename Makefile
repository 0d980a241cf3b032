# Needs Python 3.11 to 3.13 and make; everything else goes into .venv by itself.
PYTHON ?= python3
SPEC = experiments/vanishing.toml
OUT = results/$(basename $(notdir $(SPEC)))
ARGS =
DATA =
SEED = 0

# Threads of a small factorization wait for each other wherever the cores are shared.
export OPENBLAS_NUM_THREADS ?= 1

BIN = .venv/bin
# Named by what it depends on: a touched file does not rebuild the environment, a changed one or a moved folder does.
STAMP := .venv/installed-$(shell { echo '$(CURDIR)'; cat pyproject.toml requirements.txt; } | cksum | cut -d' ' -f1)
DOCS = .venv-docs/bin
DOCS_STAMP := .venv-docs/installed-$(shell { echo '$(CURDIR)'; cat pyproject.toml requirements.txt docs/requirements.txt; } | cksum | cut -d' ' -f1)
# Python compiles a module when it is first imported: half of pip's time went into all the others.
# So it has to keep what it compiled, or each process compiles all of it again, for 13 seconds.
unexport PYTHONDONTWRITEBYTECODE
PIP = -m pip install -qq --disable-pip-version-check --no-compile
# uv fetches and unpacks side by side, in a sixth of pip's processor time. It reads none of pip's
# configuration: where packages come from is handed on. Where uv cannot, pip does it.
UV = uv==0.13.9
UV_INSTALL = pip install -q --native-tls --index-strategy unsafe-best-match
PLACES = awk -F "'" '/[.]no-index=.(true|1|yes|on)/ { print "--no-index" } \
    /[.](index-url|extra-index-url|find-links)=/ { gsub(/.*[.]|=/, "", $$1); gsub(/\\n/, " ", $$2); \
    n = split($$2, place, " "); for (i = 1; i <= n; i++) print "--" $$1, place[i] }'
IN_RANGE = import sys; sys.exit(not (3, 11) <= sys.version_info[:2] < (3, 14))

.DEFAULT_GOAL := help
.PHONY: help venv sweep figures report reproduce theory published coverage training sentiment translation weather test test-long test-latest docs release lint bench clean

help: ## list the commands
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-12s %s\n", $$1, $$2 }' Makefile

venv: $(STAMP) ## make the environment of all that follows, in .venv

sweep: $(STAMP) ## measure the grid SPEC into OUT; a second call runs only what is missing
	@$(BIN)/gradlab sweep $(SPEC) --out $(OUT)

figures: $(STAMP) ## redraw the figures of OUT from its dataframes
	@$(BIN)/gradlab figures $(OUT)

report: $(STAMP) ## one HTML page of OUT's results, to be mailed
	@$(BIN)/gradlab report $(OUT)

reproduce: $(STAMP) ## run the default sweep afresh and compare with the committed results
	@$(BIN)/gradlab reproduce experiments/vanishing.toml results/reference/summary.csv

# Idle threads of the linear algebra would wait by spinning, and take the cores from JAX.
THEORY = rate_against_gain minimal_rnn tied_untied largest_exponent full_spectrum exponent_coverage deviations
theory: $(STAMP) ## published curves against theory, into results/theory
	@for name in $(THEORY); do $(BIN)/python experiments/$$name.py || exit 1; done

# Figures whose rows stand in the table are left out, unless they are named.
FIGURE =
published: $(STAMP) ## published figures measured again, into results/published.csv (FIGURE="adding")
	@PYTHONPATH=experiments $(BIN)/python -m published $(FIGURE)

coverage: $(STAMP) ## how often two errors cover the truth, into results/theory/coverage.md
	@$(BIN)/python experiments/coverage.py

# Each a spec or a script of its name; two at a time, one for each of two cores.
EXPERIMENTS = temporal_order adding copying flossing flossed_order
training: $(STAMP) ## what training was published to do, into results/training (EXPERIMENTS="adding")
	@$(MAKE) --no-print-directory -j 2 $(addprefix train-,$(EXPERIMENTS))
	@$(BIN)/python experiments/training.py

train-%:
	@if [ -f experiments/$*.py ]; then $(BIN)/python experiments/$*.py; \
	else $(BIN)/gradlab sweep experiments/$*.toml --out results/training/$*; fi

sentiment: $(STAMP) ## sentiment of the packaged review snippets (DATA=PATH for whole reviews)
	@$(BIN)/python experiments/sentiment.py $(DATA)

translation: $(STAMP) ## numbers in words, English to Portuguese, with attention and without (DATA=PATH for sentences)
	@$(BIN)/python experiments/translation.py $(DATA)

weather: $(STAMP) ## the next hour and day in Seattle, three cells against three rules (DATA=PATH for a CSV)
	@$(BIN)/python experiments/weather.py $(DATA)

test: $(STAMP) ## run the tests, one case of each law (ARGS="-k name" goes to pytest)
	@$(BIN)/python -m pytest -n 2 --cases 1 $(ARGS)

test-long: $(STAMP) ## all tests with all their cases (SEED=1), 10^8 rows, memory, a thousand kills and odd files
	@GRADLAB_LONG=1 $(BIN)/python -m pytest -n 2 --hypothesis-seed=$(SEED)
	@$(BIN)/python experiments/memory_store.py --out build --tasks consolidate figures "read one point"
	@$(BIN)/python experiments/memory.py --out build
	@$(BIN)/python experiments/reliability.py --seed $(SEED)

test-latest: ## run the tests on the newest Python and the newest JAX in range, in .venv-latest
	@latest=; \
	for p in python3.13 "$$HOME"/.pyenv/versions/3.13.*/bin/python3 \
	         python3.12 "$$HOME"/.pyenv/versions/3.12.*/bin/python3 \
	         python3.11 "$$HOME"/.pyenv/versions/3.11.*/bin/python3 '$(PYTHON)'; do \
	    if "$$p" -c '$(IN_RANGE)' 2>/dev/null; then latest=$$p; break; fi; \
	done; \
	if [ -z "$$latest" ]; then echo 'no Python 3.11 to 3.13 found' >&2; exit 1; fi; \
	"$$latest" -m venv --clear .venv-latest
	@.venv-latest/bin/python $(PIP) -e '.[test]'
	@.venv-latest/bin/python -c 'import jax, sys; print("Python", sys.version.split()[0], "with JAX", jax.__version__)'
	@.venv-latest/bin/python -m pytest -n 2 $(ARGS)

docs: $(DOCS_STAMP) ## build the documentation site into build/docs, in .venv-docs
	@$(DOCS)/python docs/build.py

release: $(DOCS_STAMP) ## build wheel and sdist into dist, check them, and run the wheel in an empty environment
	@$(DOCS)/check-jsonschema --builtin-schema vendor.github-workflows .github/workflows/*.yml
	@$(DOCS)/check-jsonschema --builtin-schema vendor.citation-file-format CITATION.cff
	@rm -rf dist build/lib build/empty
	@$(DOCS)/python -m build
	@$(DOCS)/python -m twine check --strict dist/*
	@$(DOCS)/python -m venv build/empty/venv
	@build/empty/venv/bin/python $(PIP) dist/gradlab-*.whl
	@cd build/empty && for command in --version init 'sweep sweep.toml --out results' 'report results' 'sentiment predict good'; do \
	    echo "gradlab $$command"; venv/bin/gradlab $$command || exit 1; done

lint: $(STAMP) ## ruff, pyright and the import contracts
	@$(BIN)/ruff check .
	@$(BIN)/pyright --pythonpath $(BIN)/python
	@$(BIN)/lint-imports --no-cache

bench: $(STAMP) ## tables of what it costs (ARGS="sweep starts cost parallel torch long compile spectrum training", or gpu where one is)
	@$(BIN)/python -c 'import torch' 2>/dev/null || $(BIN)/python $(PIP) torch==2.13.0
	@$(if $(filter-out sweep starts gpu,$(or $(ARGS),all)),$(BIN)/python experiments/bench.py $(filter-out sweep starts gpu,$(ARGS)))
	@$(if $(filter sweep,$(or $(ARGS),sweep)),$(BIN)/python experiments/bench_sweep.py)
	@$(if $(filter starts,$(or $(ARGS),starts)),$(BIN)/python experiments/bench_starts.py)
	@$(if $(filter gpu,$(ARGS)),$(BIN)/python experiments/bench_gpu.py)

clean: ## remove the environments and caches, keep the results
	rm -rf .venv .venv-latest .venv-docs build dist *.egg-info .pytest_cache .ruff_cache .hypothesis
	find gradlab tests docs experiments -name __pycache__ -prune -exec rm -rf {} +

define MAKE_VENV
	@$(PYTHON) -c '$(IN_RANGE)' 2>/dev/null || { \
	    echo 'gradlab needs Python 3.11, 3.12 or 3.13, but $(PYTHON) is not one of them' \
	         "($$($(PYTHON) --version 2>&1 | head -n 1)); try: make PYTHON=/path/to/python3.12 $(MAKECMDGOALS)" >&2; exit 1; }
	@echo 'making $(1) (once, a minute or two)'
	@rm -rf $(1)
	@$(PYTHON) -m venv $(1)
	@{ $(1)/bin/python $(PIP) $(UV) && \
	    $(1)/bin/uv $(UV_INSTALL) --python $(1)/bin/python $$($(1)/bin/python -m pip config list | $(PLACES)) $(2) && \
	    $(1)/bin/uv $(UV_INSTALL) --python $(1)/bin/python --no-build-isolation --no-deps -e .; } 2>/dev/null || \
	    { $(1)/bin/python $(PIP) $(2) && $(1)/bin/python $(PIP) --no-build-isolation --no-deps -e .; }
	@touch $@
endef

$(STAMP):
	$(call MAKE_VENV,.venv,-r requirements.txt)

$(DOCS_STAMP):
	$(call MAKE_VENV,.venv-docs,-r requirements.txt -r docs/requirements.txt)
