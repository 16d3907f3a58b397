#!/usr/bin/env bash
#SBATCH --job-name=htr-preprocess
#SBATCH --output=slurm-%x-%j.out
#SBATCH --open-mode=append
# Scans to shards, as a job array or on several nodes.
#   sbatch --array=0-15 slurm/preprocess.sh /data/certificates.csv --out data/certificates
#   sbatch --nodes=4 slurm/preprocess.sh /data/certificates.csv --out data/certificates
# Tasks own shards by number; run it again and it does only what is missing.
# Options after the script's name are those of: python -m jobs preprocess --help
set -euo pipefail
# sbatch runs a copy of this file from its spool: the checkout is where it was submitted from, or HTR_HOME
for HTR_HOME in "${HTR_HOME:-}" "${SLURM_SUBMIT_DIR:-}" "$(dirname "${BASH_SOURCE[0]}")/.." ""; do
  if [ -n "$HTR_HOME" ] && [ -f "$HTR_HOME/slurm/run.sh" ]; then break; fi
done
[ -n "$HTR_HOME" ] || { echo "error: submit from the checkout's folder, or set HTR_HOME to it" >&2; exit 1; }
. "$HTR_HOME/slurm/run.sh" preprocess "$@"
