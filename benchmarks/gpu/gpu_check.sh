#!/usr/bin/env bash
# Everything that needs a GPU, on any machine with one, without Slurm and without a network (make gpu-check):
#   bash benchmarks/gpu/gpu_check.sh --wheels .gpu/wheels --out OUT [--quick]     --quick: under four minutes, else eight
#   bash benchmarks/gpu/gpu_check.sh --prepare .gpu/wheels                        first, where there is a network
# HTR_PYTHON names the Python to use (default: .venv's, else python3), which must have torch. See gpu_check.py.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
python=${HTR_PYTHON:-}
if [ -z "$python" ]; then
  python=.venv/bin/python
  [ -x "$python" ] || python=python3
fi
export PYTHONPATH=$PWD${PYTHONPATH:+:$PYTHONPATH} PYTHONUNBUFFERED=1
exec "$python" benchmarks/gpu/gpu_check.py "$@"
