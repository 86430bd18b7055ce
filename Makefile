# The words everyone uses: people, README, hooks and CI call the same targets. `make` alone lists them.
PYTHON := .venv/bin/python
ONCE ?=
PORT ?=
# one lock for every platform and Python; a library keeps the version that it has in requirements.lock
COMPILE := uv pip compile --quiet --universal --generate-hashes --no-emit-index-url --python-version 3.11 \
	--group build --extra demo
PLATFORMS := x86_64-unknown-linux-gnu aarch64-unknown-linux-gnu aarch64-apple-darwin
PYTHONS := 3.11 3.12 3.13
BENCHMARKS := score_file retrain features scaler_fit latency warm_runs tick burst forecast history_growth service drift watching cluster kept

# what builds images and what reads compose.yaml; podman has both, too: make stack BUILD="podman build" COMPOSE=podman-compose
BUILD ?= docker build
COMPOSE ?= docker compose
DOCKER ?= $(firstword $(BUILD))
SITE ?= localhost

# without byte code every process starts three times slower
unexport PYTHONDONTWRITEBYTECODE
MAKEFLAGS += --no-print-directory
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:

.PHONY: help venv demo dev test faults bombs nightly experiments kubernetes lint types wheel bench golden model schema settings docs examples lock \
	platforms infrastructure deploy promotion images stack containers clean

help: ## list the targets
	@sed -n 's/^\([a-z]*\):.*## /  make \1\t/p' $(MAKEFILE_LIST) | expand -t 16

venv: .venv/.made ## make .venv with all there is, from requirements-dev.lock (3 GB)

# the first Python that will do; $(1) is the lock file
define install
	@for python in python3 python3.13 python3.12 python3.11; do \
		$$python -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))' 2>/dev/null && break; python=; done; \
	test -n "$$python" || \
		{ echo "crypto_ml needs Python 3.11, 3.12 or 3.13, and none is on the PATH: install one first." >&2; exit 1; }; \
	$$python scripts/make_venv.py $(1)
	@touch $@
endef

.venv/.made: pyproject.toml requirements-dev.lock
	$(call install,requirements-dev.lock)

# no TensorFlow, which only training needs, and nothing that only work on the project needs
.venv/.demo: pyproject.toml requirements-demo.lock
	$(call install,requirements-demo.lock)

demo: $(if $(wildcard .venv/.made),venv,.venv/.demo) ## start everything, drop a sample file, show its answer (ONCE=1: and stop again; PORT=n: the UI's port)
	@.venv/bin/crypto-ml demo $(if $(filter-out 0,$(ONCE)),--once) $(if $(PORT),--port $(PORT))

dev: venv ## Dagster for everyday work, on the S3 that the AWS variables lead to (PORT=n: the UI's port)
	@.venv/bin/crypto-ml dev $(if $(PORT),--port $(PORT))

# three processes for two cores: a third of what they do is waiting
test: venv ## the whole test suite
	@$(PYTHON) -m pytest -q -n 3 --dist loadfile --no-loadscope-reorder

faults: venv ## kill daemons, workers and the store in the middle of a delivery, fill a disk
	@$(PYTHON) -m pytest -q -m faults crypto_ml_tests/dropbox crypto_ml_tests/engine

bombs: venv ## clean files that are made to take all memory, and see that they don't
	@$(PYTHON) -m pytest -q -n 2 -m bombs crypto_ml_tests/forecasting

nightly: venv ## 2,000 random histories, 10,000 mutated files, 1,000 simulated markets, and the faults
	@HYPOTHESIS_PROFILE=nightly $(PYTHON) -m pytest -q -n 2 --timeout=7200 -m "faults or not faults" crypto_ml_tests/dropbox crypto_ml_tests/engine crypto_ml_tests/golden \
		crypto_ml_tests/storage/series crypto_ml_tests/storage/test_known_series.py
	@$(PYTHON) -m pytest -q -n 2 --timeout=7200 -m simulations crypto_ml_tests/forecasting crypto_ml_tests/stages

experiments: venv ## mirror trainings to a real MLflow server, which gets an environment of its own (0.9 GB)
	@test -x .crypto_ml/mlflow/bin/mlflow || { \
		$(PYTHON) -m venv .crypto_ml/mlflow && \
		.crypto_ml/mlflow/bin/pip install --quiet "mlflow==$$($(PYTHON) -c 'from importlib.metadata import version; print(version("mlflow-skinny"))')"; }
	@$(PYTHON) -m pytest -q -n 0 -m experiments crypto_ml_tests/stages/test_experiments.py

kubernetes: venv ## hold the manifests of deploy/kubernetes against schemas and rules, and run them with podman where it is
	@test -x .crypto_ml/kubernetes/bin/kubernetes-validate || { \
		$(PYTHON) -m venv .crypto_ml/kubernetes && .crypto_ml/kubernetes/bin/pip install --quiet kubernetes-validate==1.37.0; }
	@$(PYTHON) -m pytest -q -n 0 -m kubernetes crypto_ml_tests/kubernetes

lint: venv ## ruff: rules and layout; import-linter: which room may import which
	@.venv/bin/ruff check
	@.venv/bin/ruff format --check
	@.venv/bin/lint-imports --no-logo --no-cache

types: venv ## mypy, strict: for Linux and the oldest Python, for macOS and the newest
	@.venv/bin/mypy --no-error-summary
	@.venv/bin/mypy --no-error-summary --platform darwin --python-version 3.13

wheel: venv ## build the wheel into dist/, and use one in an environment of its own, from an empty folder
	@rm -rf build dist
	@$(PYTHON) -m pip wheel --quiet --no-deps --no-build-isolation --wheel-dir dist .
	@rm -rf build # the next one would take in what this one left there
	@$(PYTHON) -m pytest -q -n 0 -m "wheel or not wheel" crypto_ml_tests/test_wheel.py

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

docs: venv ## the documents as a site in .crypto_ml/site; a link that leads nowhere ends it
	@$(PYTHON) docs/pictures.py
	@NO_MKDOCS_2_WARNING=1 .venv/bin/mkdocs build --quiet
	@echo "open .crypto_ml/site/index.html" >&2

examples: venv ## run every command that docs/commands.md shows, and write what they print (some minutes)
	@$(PYTHON) -m crypto_ml_tests.examples.make

lock: ## resolve the lock files anew (needs uv)
	@command -v uv >/dev/null || { echo "make lock needs uv on the PATH." >&2; exit 1; }
	@$(COMPILE) --extra training --extra docker --extra kubernetes pyproject.toml -o requirements.lock >/dev/null
	@$(COMPILE) --extra training --extra docker --extra kubernetes --extra dev -c requirements.lock \
		pyproject.toml -o requirements-dev.lock >/dev/null
	@$(COMPILE) -c requirements.lock pyproject.toml -o requirements-demo.lock >/dev/null
	@$(subst --extra demo,--extra serve --extra page,$(COMPILE)) --extra docker --extra kubernetes -c requirements.lock \
		pyproject.toml -o requirements-scoring.lock >/dev/null

platforms: ## every library of the lock files has a build for each platform and Python (asks the registry; needs uv)
	@command -v uv >/dev/null || { echo "make platforms needs uv on the PATH." >&2; exit 1; }
	@nowhere=$$(mktemp -d); trap 'rm -r "$$nowhere"' EXIT; \
	for platform in $(PLATFORMS); do for python in $(PYTHONS); do for lock in requirements*.lock; do \
		echo "$$platform, Python $$python, $$lock"; \
		MACOSX_DEPLOYMENT_TARGET=14.0 uv pip install --quiet --dry-run --target "$$nowhere" --only-binary :all: \
			--python-platform $$platform --python-version $$python --require-hashes -r $$lock || exit 1; \
	done; done; done

infrastructure: venv ## templates and workflows: linters, an emulated account, every role at work (actionlint, where it is on the PATH)
	@.venv/bin/cfn-lint --non-zero-exit-code informational \
		$(filter-out %/dagster.yaml %/workspace.yaml,$(wildcard deploy/aws/*.yaml))
	@if command -v actionlint >/dev/null; then actionlint; else echo "actionlint is not on the PATH: the workflows are not looked at" >&2; fi
	@$(PYTHON) -m pytest -q -n 0 -m account crypto_ml_tests/deploy

deploy: $(if $(wildcard .venv/.made),venv,.venv/.demo) ## deploy to AWS (ENV=dev|preprod|prod IMAGE=by digest, GIVEN=file of parameters)
	@$(PYTHON) -m scripts.deploy_aws $(ENV) --image $(IMAGE) $(if $(SERVE_IMAGE),--serve-image $(SERVE_IMAGE)) $(if $(GIVEN),--given $(GIVEN))

# what people write goes through the environment, where no shell reads it
promotion: $(if $(wildcard .venv/.made),venv,.venv/.demo) ## make a model the champion on AWS (ENV= VERSION= BY= WHY=)
	@$(PYTHON) -m scripts.deploy_aws $(ENV) --promote "$$VERSION" --by "$$BY" --why "$$WHY"

images: ## build the images: for scoring, with everything, and the stack's database and proxy
	@$(BUILD) --target scoring --tag crypto_ml:scoring .
	@$(BUILD) --target full --tag crypto_ml:full .
	@$(BUILD) --target database --tag crypto_ml_database deploy
	@$(BUILD) --target proxy --tag crypto_ml_proxy deploy

stack: ## put up crypto_ml on this host, in containers, or upgrade it (SITE=host; as root; docs/deployment.md)
	@DOCKER="$(DOCKER)" COMPOSE="$(COMPOSE)" deploy/check before
	@$(MAKE) images
	@DOCKER="$(DOCKER)" deploy/prepare $(SITE)
	@DOCKER="$(DOCKER)" COMPOSE="$(COMPOSE)" deploy/check
	@$(COMPOSE) -f deploy/compose.yaml up -d

containers: venv ## the stack for real, in a container engine: drops, kills, upgrade, backup (needs one; some minutes)
	@$(PYTHON) -m pytest -q -n 0 -m containers crypto_ml_tests/deploy

clean: ## remove the environment, the caches, and the state and data of `make demo` and `make dev`
	@rm -rf .venv .crypto_ml build dist .hypothesis .pytest_cache .mypy_cache .ruff_cache *.egg-info
	@find . -name __pycache__ -type d -prune -exec rm -rf {} +
