#!/usr/bin/env bash
# make test: the fast tests, then those marked slurm on a four-node cluster of this machine. Arguments go to pytest.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
. slurm/env.sh
export OMP_NUM_THREADS=1   # ranks that share few cores must not spin for each other's
if [ "${1:-}" = --check ]; then # make check: how the house is built, settings, and what the rooms at the bottom do
  shift
  exec python -m pytest -m "not slurm" tests/test_house.py tests/test_settings.py tests/test_docs.py tests/test_plain_words.py \
    tests/htr/lines tests/htr/metrics tests/htr/io tests/jobs/test_runs.py tests/jobs/test_collect.py tests/jobs/test_status.py tests/jobs/test_console.py "$@"
fi
if [ "$(id -u)" != 0 ] && [ -z "${CI:-}" ]; then
  echo "make test: not root, so the tests on a real Slurm cluster are left out" >&2
  exec python -m pytest -m "not slurm" "$@"
fi
exec python -m pytest "$@"
