# make demo      label the lesions of the example scan, with the runtime dependencies only
# make test      run the tests that take seconds
# make test-all  run every test
# make fuzz      run 5,000 spoilt inputs, with a report
# make check     ruff and mypy
# make docs      build the guide into site/; a broken link is an error
# make release-check  build wheel and sdist, install them into clean environments, and look at what they hold

PYTHON ?= python3
# Twice quiet: errors, but no warnings about this machine's own settings.
PIP = -m pip --quiet --quiet --disable-pip-version-check
NEEDS = import sys; sys.exit(None if sys.version_info >= (3, 11) else \
  "situs needs Python 3.11 or newer, this is " + sys.version.split()[0] + ": make PYTHON=python3.11 ...")

# A process for each core; the tests of a file share what they make, so they stay together.
PYTEST = .venv/bin/python -m pytest -n auto --maxprocesses 8 --dist loadfile

# Which spoilt inputs: make fuzz COUNT=2000 FIRST=100000
COUNT ?= 5000
FIRST ?= 0

.PHONY: demo test test-all fuzz check docs release-check clean

demo: .venv-demo/installed
	@mkdir -p demo-output
	@.venv-demo/bin/situs label src/situs/data/example/head.nii.gz --roi src/situs/data/example/lesions.nii.gz \
	  --json demo-output/findings.json --csv demo-output/findings.csv --png demo-output
	@echo "One picture a lesion, findings.json and findings.csv are in $(CURDIR)/demo-output"

test: .venv/installed
	$(PYTEST) -m "not slow"

test-all: .venv/installed
	$(PYTEST)

fuzz: .venv/installed
	PYTHONPATH=tests OMP_NUM_THREADS=1 .venv/bin/python -m fuzz $(COUNT) $(FIRST)

check: .venv/installed
	.venv/bin/python -m ruff check .
	.venv/bin/python -m ruff format --check .
	.venv/bin/python -m mypy

docs: .venv/installed
	NO_MKDOCS_2_WARNING=1 .venv/bin/python -m mkdocs build --quiet
	@echo "The guide is in $(CURDIR)/site: open index.html"

release-check: .venv/installed
	.venv/bin/python .ci/release_check.py

# A stamp is older than what it was made from when the dependencies changed: then they are installed again.
.venv-demo/installed: pyproject.toml constraints.txt
	@$(PYTHON) -c '$(NEEDS)'
	@echo "Preparing .venv-demo (once)"
	@$(PYTHON) -m venv .venv-demo
	@.venv-demo/bin/python $(PIP) install -c constraints.txt -e .
	@touch $@

.venv/installed: pyproject.toml constraints.txt
	@$(PYTHON) -c '$(NEEDS)'
	@echo "Preparing .venv (once; with torch, some minutes)"
	@$(PYTHON) -m venv .venv
	@.venv/bin/python $(PIP) install -c constraints.txt -e '.[dev]'
	@touch $@

clean:
	rm -rf .venv .venv-demo demo-output site dist build .mypy_cache .pytest_cache .ruff_cache
