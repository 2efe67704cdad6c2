# Calliope. "make run" serves, "make test" tests; "make help" lists the rest.
# ARGS goes to what is run: make run ARGS="--server-tls self-signed"; make test ARGS="tests/test_ring.py"

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
.PHONY: help run demo test bench bench-report load load-report lint format types wheel lock clean

ARGS ?=
PY := .venv/bin/python
READY := .venv/ready-to-run
TEST_READY := .venv/ready-to-test
# What checks the page comes from npm.
NODE_READY := node_modules/.package-lock.json

# libfribidi0 lets names in Arabic, Hebrew and Devanagari take their shape.
RUN_PACKAGES := libfribidi0
TEST_PACKAGES := libfribidi0 chromium firefox-esr fonts-dejavu-core fonts-noto-core fonts-noto-cjk \
    fonts-noto-color-emoji tesseract-ocr
# Lossy links between network namespaces.
LOAD_PACKAGES := iproute2 iptables

help: ## list these targets
	@sed -n 's/^\([a-z-]*\):.*## /  make \1\t/p' Makefile | expand -t 20

run: $(READY) ## serve on http://0.0.0.0:8050
	@.ci/need $(RUN_PACKAGES) || echo "Going on without: some scripts are drawn unshaped." >&2
	@exec $(PY) -m calliope serve $(ARGS)

demo: $(READY) ## serve, with eight synthetic participants in the room "demo"
	@.ci/demo $(ARGS)

test: $(TEST_READY) $(NODE_READY) ## run every test
	@.ci/need $(TEST_PACKAGES)
	@$(if $(ARGS),$(PY) -m pytest $(ARGS),.ci/test)

bench: $(TEST_READY) ## run every benchmark into artefacts/; ARGS=--quick: the mixer's goals in a minute
	@mkdir -p artefacts
	@$(PY) -m bench.compositor_goals --json artefacts/compositor.json $(ARGS)
	@$(PY) -m bench.plots artefacts/compositor.json artefacts
	@[[ "$(ARGS)" == *--quick* ]] || $(PY) -m pytest bench -o python_files='bench_*.py' \
	    --benchmark-sort=name --benchmark-columns=min,median,stddev,rounds \
	    --benchmark-json=artefacts/bench.json

bench-report: $(TEST_READY) ## measure the mixer's goals; renew the README's table and plots with them
	@mkdir -p artefacts
	@$(PY) -m bench.compositor_goals --json artefacts/compositor.json
	@$(PY) -m bench.report artefacts/compositor.json

load: $(TEST_READY) ## measure whole calls against their goals; ARGS="--quick" for six minutes
	@.ci/need $(LOAD_PACKAGES) || echo "Going on without network namespaces." >&2
	@$(PY) -m bench.load $(ARGS)

load-report: $(TEST_READY) ## renew the README's table and plot with what "make load" measured
	@$(PY) -m bench.load_report

lint: $(TEST_READY) ## check style and format
	@$(PY) -m ruff check .
	@$(PY) -m ruff format --check .

format: $(TEST_READY) ## format
	@$(PY) -m ruff check --fix .
	@$(PY) -m ruff format .

types: $(TEST_READY) $(NODE_READY) ## check types, the page's too
	@$(PY) -m mypy
	@node_modules/.bin/tsc -p .

wheel: $(TEST_READY) ## build dist/calliope-*.whl
	@rm -rf build
	@$(PY) -m build --wheel --no-isolation

lock: $(TEST_READY) ## pin the newest versions that requirements*.in allow
	@$(PY) -m venv build/lock
	@build/lock/bin/pip install --quiet uv
	@for name in requirements requirements-test; do \
	    { echo "# Made by 'make lock' from $$name.in: exact versions for Python 3.11 to 3.13," \
	           "with the hash of every file."; \
	      build/lock/bin/uv pip compile --quiet --universal --python-version 3.11 --upgrade \
	          --fork-strategy fewest --generate-hashes --no-annotate --no-header \
	          --no-emit-index-url $$name.in; } > $$name.txt.new; \
	    mv $$name.txt.new $$name.txt; \
	done

clean: ## delete everything that was made here
	@rm -rf .venv node_modules build dist *.egg-info artefacts .benchmarks .hypothesis .mypy_cache .pytest_cache .ruff_cache
	@find calliope tests bench -name __pycache__ -prune -exec rm -rf {} +

# Touched last: an installation that was cut short is taken up again. The lock for tests holds the
# server's too.
$(READY): requirements.txt
	@.ci/venv requirements.txt
	@touch $@

$(TEST_READY): requirements.txt requirements-test.txt
	@.ci/venv requirements-test.txt
	@touch $@ $(READY)

# Nothing that comes along is run while it is installed.
$(NODE_READY): package-lock.json
	@command -v npm >/dev/null || .ci/need npm
	@npm ci --ignore-scripts --no-audit --no-fund --loglevel=error
	@touch $@
