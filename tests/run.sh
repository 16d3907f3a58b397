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
marked=()
if [ "$(id -u)" != 0 ] && [ -z "${CI:-}" ]; then
  echo "make test: not root, so the tests on a real Slurm cluster are left out" >&2
  marked=(-m "not slurm")
fi
if [ $# != 0 ]; then exec python -m pytest "${marked[@]}" "$@"; fi

# All of it. First what asks for no cluster and no clock, in two processes at once; then, alone, what does: ranks that are
# taken away, watchdogs, Slurm. The second process speaks when the first has ended.
one=(tests/htr tests/shards tests/jobs/keying tests/jobs/html tests/test_skips.py tests/test_encodings.py)
other=(tests/jobs/evaluation tests/jobs/scaling tests/jobs/training tests/jobs/transcription tests/jobs/test_*.py
  tests/test_benchmarks.py)
said=$(mktemp) failed=0
env --default-signal=INT python -m pytest -p no:cacheprovider "${marked[@]}" "${other[@]}" >"$said" 2>&1 &
beside=$!
trap 'kill $beside 2>/dev/null || :; rm -f "$said"' EXIT
python -m pytest "${marked[@]}" "${one[@]}" || failed=$?
wait $beside || failed=$?
cat "$said"
python -m pytest "${marked[@]}" tests "${one[@]/#/--ignore=}" "${other[@]/#/--ignore=}" || failed=$?
[ $failed = 0 ] || echo "make test: a part of it failed, see above" >&2
exit $failed
