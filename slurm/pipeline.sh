#!/usr/bin/env bash
# Preprocess, train, evaluate: three jobs, each waiting for the one before to succeed. Run it on a login node:
#   NODES=4 GPUS=4 slurm/pipeline.sh /data/certificates.csv runs/ctc-16 [options of train]
# NODES and GPUS are those of the training (default: one node, no GPU), TASKS those of the two job arrays (default 4),
# PREPROCESS the options of preprocess, such as "--unit field --rows 2000";
# further options of sbatch come from SBATCH_… variables or slurm/site.env. Without Slurm it runs all three here.
set -euo pipefail
case ${1:-} in
  "" | -h | --help) sed -n '2,/^set/s/^# \{0,1\}//p' "$0"; exit 0 ;;
esac
cd "$(dirname "${BASH_SOURCE[0]}")/.."
. slurm/env.sh
[ $# -ge 2 ] || { echo "error: a source and a run folder are needed, see $0 --help" >&2; exit 1; }
source=$1 run=$2; shift 2
dataset=${DATASET:-data/$(basename "${source%.*}")}
split=${SPLIT:-val} tasks=${TASKS:-4} nodes=${NODES:-1} gpus=${GPUS:-0}

if ! command -v sbatch >/dev/null; then
  # shellcheck disable=SC2086 # several options
  bash slurm/preprocess.sh "$source" --out "$dataset" ${PREPROCESS:-}
  bash slurm/train.sh "$dataset" --run "$run" "$@"
  exec bash slurm/evaluate.sh "$dataset" --run "$run" --split "$split"
fi
# a job whose forerunner failed is cancelled instead of waiting for ever
after() { echo --parsable --kill-on-invalid-dep=yes --dependency="afterok:$1"; }
cpus=${HTR_CPUS_PER_GPU:+--cpus-per-gpu=$HTR_CPUS_PER_GPU}
# what was queued before a later submission was refused would only fail, or work for nothing
first= second=
trap 'code=$?; if [ $code != 0 ] && [ -n "$first" ]; then
  echo "error: cancelled again: job $first${second:+ and job $second}" >&2; scancel $first $second || true; fi' EXIT
# shellcheck disable=SC2046,SC2086 # several options each
first=$(sbatch --parsable --array=0-$((tasks - 1)) slurm/preprocess.sh "$source" --out "$dataset" ${PREPROCESS:-})
first=${first%%;*} # of several clusters sbatch names its own, too
# shellcheck disable=SC2046,SC2086
second=$(sbatch $(after "$first") --nodes="$nodes" $([ "$gpus" = 0 ] || echo --gpus-per-node="$gpus" $cpus) \
  ${TRAIN_OPTIONS:-} slurm/train.sh "$dataset" --run "$run" "$@")
second=${second%%;*}
third=$(sbatch $(after "$second") --array=0-$((tasks - 1)) slurm/evaluate.sh "$dataset" --run "$run" --split "$split")
third=${third%%;*}
echo "preprocess $first, train $second, evaluate $third; then: python -m jobs runs"
