#!/usr/bin/env bash
# make test: the fast tests, then those marked slurm on a four-node cluster of this machine. Arguments go to pytest.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
. slurm/env.sh
export OMP_NUM_THREADS=1   # ranks that share few cores must not spin for each other's
if [ "$(id -u)" != 0 ] && [ -z "${CI:-}" ]; then
  echo "make test: not root, so the tests on a real Slurm cluster are left out" >&2
  exec python -m pytest -m "not slurm" "$@"
fi
exec python -m pytest "$@"
