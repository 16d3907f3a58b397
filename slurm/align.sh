#!/usr/bin/env bash
#SBATCH --job-name=htr-align
#SBATCH --output=slurm-%x-%j.out
#SBATCH --open-mode=append
# Where each text stands: words, lines of fields, labels that fit badly; as a job array or on several nodes.
#   sbatch --array=0-7 slurm/align.sh data/certificates --run runs/ctc-16 --to words
# Run it again and it does only what is missing.
# Options after the script's name are those of: python -m jobs align --help
set -euo pipefail
# sbatch runs a copy of this file from its spool: the checkout is where it was submitted from, or HTR_HOME
for HTR_HOME in "${HTR_HOME:-}" "${SLURM_SUBMIT_DIR:-}" "$(dirname "${BASH_SOURCE[0]}")/.." ""; do
  if [ -n "$HTR_HOME" ] && [ -f "$HTR_HOME/slurm/run.sh" ]; then break; fi
done
[ -n "$HTR_HOME" ] || { echo "error: submit from the checkout's folder, or set HTR_HOME to it" >&2; exit 1; }
. "$HTR_HOME/slurm/run.sh" align "$@"
