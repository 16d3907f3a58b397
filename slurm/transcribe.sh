#!/usr/bin/env bash
#SBATCH --job-name=htr-transcribe
#SBATCH --output=slurm-%x-%j.out
#SBATCH --open-mode=append
# Scans to texts, as a job array or on several nodes.
#   sbatch --array=0-15 slurm/transcribe.sh scans/ --unit field --model runs/ctc-16 --decode beam --out texts.parquet
# Every scan is read once, whatever the number of tasks; the one that ends last writes the table.
# Run it again and it does only what is missing.
# Options after the script's name are those of: python -m jobs transcribe --help
set -euo pipefail
# sbatch runs a copy of this file from its spool: the checkout is where it was submitted from, or HTR_HOME
for HTR_HOME in "${HTR_HOME:-}" "${SLURM_SUBMIT_DIR:-}" "$(dirname "${BASH_SOURCE[0]}")/.." ""; do
  if [ -n "$HTR_HOME" ] && [ -f "$HTR_HOME/slurm/run.sh" ]; then break; fi
done
[ -n "$HTR_HOME" ] || { echo "error: submit from the checkout's folder, or set HTR_HOME to it" >&2; exit 1; }
. "$HTR_HOME/slurm/run.sh" transcribe "$@"
