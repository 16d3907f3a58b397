#!/usr/bin/env bash
# Preprocess, train, evaluate: three jobs, each waiting for the one before to succeed. Run it on a login node:
#   NODES=4 GPUS=4 slurm/pipeline.sh /data/certificates.csv runs/ctc-16 [options of train]
# NODES and GPUS are those of the training (default: one node, no GPU), TASKS those of the two job arrays (default 4),
# PREPROCESS the options of preprocess, such as "--unit field --rows 2000";
# further options of sbatch come from SBATCH_… variables or slurm/site.env. Without Slurm it runs all three here.
# Paths are relative to the folder that it is started from; a wrong option is said before anything is queued.
set -euo pipefail
case ${1:-} in
  "" | -h | --help) sed -n '2,/^set/s/^# \{0,1\}//p' "$0"; exit 0 ;;
esac
scripts=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
. "$scripts/env.sh"
[ $# -ge 2 ] || { echo "error: a source and a run folder are needed, see $0 --help" >&2; exit 1; }
source=$1 run=$2; shift 2
name=$(basename "$source") # ../scans has no ending, lines.csv has
dataset=${DATASET:-data/${name%.*}}
split=${SPLIT:-val} tasks=${TASKS:-4} nodes=${NODES:-1} gpus=${GPUS:-0}

[ -e "$source" ] || { echo "error: $source: no such file or folder" >&2; exit 1; }
# shellcheck disable=SC2086 # several options
python -m jobs submit preprocess "$source" --out "$dataset" ${PREPROCESS:-} --print-folder >/dev/null
python -m jobs submit train "$dataset" --run "$run" "$@" --print-folder >/dev/null
python -m jobs submit evaluate "$dataset" --run "$run" --split "$split" --print-folder >/dev/null

if ! command -v sbatch >/dev/null; then
  # shellcheck disable=SC2086 # several options
  bash "$scripts/preprocess.sh" "$source" --out "$dataset" ${PREPROCESS:-}
  bash "$scripts/train.sh" "$dataset" --run "$run" "$@"
  exec bash "$scripts/evaluate.sh" "$dataset" --run "$run" --split "$split"
fi
# a job whose forerunner failed is cancelled instead of waiting for ever
after() { echo --parsable --kill-on-invalid-dep=yes --dependency="afterok:$1"; }
cpus=${HTR_CPUS_PER_GPU:+--cpus-per-gpu=$HTR_CPUS_PER_GPU}
# what was queued before a later submission was refused would only fail, or work for nothing
first= second=
trap 'code=$?; if [ $code != 0 ] && [ -n "$first" ]; then
  echo "error: cancelled again: job $first${second:+ and job $second}" >&2; scancel $first $second || true; fi' EXIT
# shellcheck disable=SC2046,SC2086 # several options each
first=$(sbatch --parsable --array=0-$((tasks - 1)) "$scripts/preprocess.sh" "$source" --out "$dataset" ${PREPROCESS:-})
first=${first%%;*} # of several clusters sbatch names its own, too
# shellcheck disable=SC2046,SC2086
second=$(sbatch $(after "$first") --nodes="$nodes" $([ "$gpus" = 0 ] || echo --gpus-per-node="$gpus" $cpus) \
  ${TRAIN_OPTIONS:-} "$scripts/train.sh" "$dataset" --run "$run" "$@")
second=${second%%;*}
third=$(sbatch $(after "$second") --array=0-$((tasks - 1)) "$scripts/evaluate.sh" "$dataset" --run "$run" --split "$split")
third=${third%%;*}
echo "preprocess $first, train $second, evaluate $third; then: python -m jobs runs"
