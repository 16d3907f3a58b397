# make demo   the whole way on simulated certificates      make test     the fast tests and, as root, those on Slurm
# make setup  the environment alone                        make lint     ruff
# env.sh is bash
SHELL = /bin/bash

.PHONY: setup demo test lint clean

setup:
	@bash slurm/setup.sh

demo: setup
	@. slurm/env.sh && python -m jobs demo

test: setup
	@bash tests/run.sh

lint: setup
	@. slurm/env.sh && ruff check . && ruff format --check .

clean:
	rm -rf demo .pytest_cache .ruff_cache
