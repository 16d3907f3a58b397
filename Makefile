# make demo   the whole way on simulated certificates      make test     the fast tests and, as root, those on Slurm
# make setup  the environment alone                        make lint     ruff
# make check  lint, how the house is built, and some fast tests
# make test-faults  what may happen to a training, all of it: as root, on a Slurm cluster of this machine
# make gpu-check  what needs a GPU, on a machine that has one: no Slurm, no network, eight minutes
# env.sh is bash
SHELL = /bin/bash

.PHONY: setup demo check test test-faults gpu-check figures lint clean

setup:
	@bash slurm/setup.sh

demo: setup
	@. slurm/env.sh && python -m jobs demo

check: lint
	@bash tests/run.sh --check

test: setup
	@bash tests/run.sh

test-faults: setup
	@HTR_FAULTS=1 bash tests/run.sh tests/faults/test_faults_train.py tests/faults/test_false_alarms.py tests/faults/test_faults_storage.py tests/faults/test_faults_parts.py tests/faults/test_faults.py

# on a machine with one GPU; without a network, bash benchmarks/gpu/gpu_check.sh --prepare .gpu/wheels is to be run before
gpu-check:
	@bash benchmarks/gpu/gpu_check.sh --out gpu-check

# every figure of README and docs: its command, date and commit; what is missing; benchmarks/figures.py --run measures
figures:
	@. slurm/env.sh && python benchmarks/figures.py

lint: setup
	@. slurm/env.sh && ruff check . && ruff format --check .

clean:
	rm -rf demo .pytest_cache .ruff_cache
