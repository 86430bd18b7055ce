# The words everyone uses: people, README, hooks and CI call the same targets. `make` alone lists them.
PYTHON := .venv/bin/python
ONCE ?=
PORT ?=
COMPILE := uv pip compile --quiet --generate-hashes --no-emit-index-url --python-version 3.11 \
	--extra training --extra demo --extra docker
BENCHMARKS := score_file features scaler_fit latency tick burst forecast

# without byte code every process starts three times slower
unexport PYTHONDONTWRITEBYTECODE
MAKEFLAGS += --no-print-directory
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:

.PHONY: help venv demo dev test faults nightly lint types bench golden model schema settings lock clean

help: ## list the targets
	@sed -n 's/^\([a-z]*\):.*## /  make \1\t/p' $(MAKEFILE_LIST) | expand -t 16

venv: .venv/.made ## make .venv from requirements-dev.lock

.venv/.made: pyproject.toml requirements-dev.lock
	@for python in python3.11 python3; do \
		$$python -c 'import sys; sys.exit(sys.version_info[:2] != (3, 11))' 2>/dev/null && break; python=; done; \
	test -n "$$python" || { echo "crypto_ml needs Python 3.11, and none is on the PATH: install it first." >&2; exit 1; }; \
	echo "Making .venv from requirements-dev.lock (3 GB, a few minutes the first time)" >&2; \
	$$python -m venv .venv
	@$(PYTHON) -m pip install --quiet --disable-pip-version-check --no-deps --require-hashes -r requirements-dev.lock
	@$(PYTHON) -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --editable .
	@touch $@

demo: venv ## start everything, drop a sample file, show its answer (ONCE=1: and stop again; PORT=n: the UI's port)
	@.venv/bin/crypto-ml demo $(if $(filter-out 0,$(ONCE)),--once) $(if $(PORT),--port $(PORT))

dev: venv ## Dagster for everyday work, on the S3 that the AWS variables lead to
	@DAGSTER_HOME="$(CURDIR)" .venv/bin/dagster dev

test: venv ## the whole test suite
	@$(PYTHON) -m pytest -q -n 2 --dist loadfile

faults: venv ## kill daemons, workers and the store in the middle of a delivery, fill a disk
	@$(PYTHON) -m pytest -q -m faults crypto_ml_tests/dropbox

nightly: venv ## 2,000 random histories, 10,000 mutated files, and the faults
	@HYPOTHESIS_PROFILE=nightly $(PYTHON) -m pytest -q -n 2 --timeout=7200 -m "faults or not faults" crypto_ml_tests/dropbox

lint: venv ## ruff: rules and layout; import-linter: which room may import which
	@.venv/bin/ruff check
	@.venv/bin/ruff format --check
	@.venv/bin/lint-imports --no-logo --no-cache

types: venv ## mypy, strict
	@.venv/bin/mypy --no-error-summary

bench: venv ## measure speed and memory
	@for name in $(BENCHMARKS); do $(PYTHON) -m benchmarks.$$name || exit 1; done

model: venv ## remake model_out/ from the simulated market
	@.venv/bin/crypto-ml make-model

golden: venv ## keep the evidence of a real run of this release, for the tests of later ones
	@$(PYTHON) -m crypto_ml_tests.golden.make

schema: venv ## write the JSON Schemas of receipts in docs/ anew
	@$(PYTHON) -c "import json; from crypto_ml.ledger.receipts import receipt_schema as made; print(json.dumps(made(), indent=2))" \
		> docs/receipt.schema.json
	@$(PYTHON) -c "import json; from crypto_ml.ledger.forecasts import forecast_receipt_schema as made; print(json.dumps(made(), indent=2))" \
		> docs/forecast_receipt.schema.json

settings: venv ## write README's table of settings anew
	@$(PYTHON) -m crypto_ml_tests.readme

lock: ## resolve both lock files anew (needs uv)
	@command -v uv >/dev/null || { echo "make lock needs uv on the PATH." >&2; exit 1; }
	@$(COMPILE) pyproject.toml -o requirements.lock >/dev/null
	@$(COMPILE) --extra dev -c requirements.lock pyproject.toml -o requirements-dev.lock >/dev/null

clean: ## remove the environment, the caches, and the state and data of `make demo` and `make dev`
	@rm -rf .venv .crypto_ml .hypothesis .pytest_cache .mypy_cache .ruff_cache *.egg-info
	@find . -name __pycache__ -type d -prune -exec rm -rf {} +
