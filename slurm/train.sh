#!/usr/bin/env bash
#SBATCH --job-name=htr-train
#SBATCH --output=slurm-%x-%j.out
#SBATCH --open-mode=append
#SBATCH --requeue
#SBATCH --signal=USR1@120
# Train a reader on as many nodes and GPUs as the command line says; one rank a GPU.
#   sbatch slurm/train.sh                  the demo's data set, or the one that HTR_DATASET names, on one node
#   sbatch --nodes=4 --gpus-per-node=4 --cpus-per-gpu=8 slurm/train.sh data/certificates --model ctc --run runs/ctc-16
#   sbatch --nodes=2 --ntasks-per-node=2 --cpus-per-task=4 slurm/train.sh data/certificates --run runs/cpu-4
# The same run folder again resumes it. Two minutes before the time limit the run writes a checkpoint and its job goes
# back into the queue (--requeues). On a machine without Slurm: bash slurm/train.sh … does the same there.
# Options after the script's name are those of: python -m jobs train --help
set -euo pipefail
# sbatch runs a copy of this file from its spool: the checkout is where it was submitted from, or HTR_HOME
for HTR_HOME in "${HTR_HOME:-}" "${SLURM_SUBMIT_DIR:-}" "$(dirname "${BASH_SOURCE[0]}")/.." ""; do
  if [ -n "$HTR_HOME" ] && [ -f "$HTR_HOME/slurm/run.sh" ]; then break; fi
done
[ -n "$HTR_HOME" ] || { echo "error: submit from the checkout's folder, or set HTR_HOME to it" >&2; exit 1; }
. "$HTR_HOME/slurm/run.sh" train "$@"
