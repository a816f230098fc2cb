PYTHON ?= $(shell command -v python3.11 || command -v python3)
BIN := .venv/bin
READY := .venv/ready

.PHONY: run test slow lint docs containers cluster clean

run: $(READY)  ## the main job on embedded data: a smaller network, its accuracy, its CPU latency, a report
	OMP_NUM_THREADS=1 $(BIN)/pfs run --compare dense,uniform  # more are no quicker on digits, and far slower on a busy machine

test: lint docs  ## everything that must hold
	$(BIN)/python -m pytest --numprocesses logical --maxprocesses 8 --dist worksteal

slow: $(READY)  ## the proofs that take longer
	$(BIN)/python -m pytest -m slow

lint: $(READY)  ## style, types and layers
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/mypy --config-file benchmarks/mypy.ini benchmarks
	$(BIN)/lint-imports

docs: $(READY)  ## the documentation as a site in build/site; a link that leads nowhere is an error
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

$(READY): requirements.txt requirements-dev.txt pyproject.toml
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "pfs needs Python 3.11 or newer; name one with make PYTHON=...")'
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -r requirements.txt -r requirements-dev.txt
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e .
	mkdir -p .venv/names && ln -sfn ../../components .venv/names/pfs_components && ln -sfn ../../pipelines .venv/names/pfs_pipelines
	touch $(READY)

containers: $(READY)  ## the image, and the pipeline in it, a container a step; needs Docker or podman
	tests/containers.sh

cluster: $(READY)  ## the packages on the Kubeflow Pipelines that PFS_TEST_KFP_ENDPOINT names
	$(BIN)/python -m pytest -v -rs tests/cluster

clean:  ## remove the environment, not the runs
	rm -rf .venv build
