# The rest of every script beside it: run a verb where this is, in a job or on this machine, in the folder that it was
# started from. Sourced with the verb and the user's options; HTR_HOME is the checkout.
verb=$1; shift
. "$HTR_HOME/slurm/env.sh"

# --- without a job: help, a dry run, or the same on this machine
if [ -z "${SLURM_JOB_ID:-}" ] || [ -n "${SLURM_STEP_ID:-}" ]; then
  for option in "$@"; do
    case $option in
      -h | --help) exec python -m jobs "$verb" --help ;;
      --dry-run) exec python -m jobs submit "$verb" "$@" ;;
    esac
  done
  exec python -m jobs submit "$verb" --cluster local "$@"
fi

# --- in a job: ranks a node = GPUs a node, else what --ntasks-per-node or --ntasks says, else one
fail() { echo "error: $*" >&2; exit 1; }
[ "${SLURM_HET_SIZE:-1}" = 1 ] || fail "a heterogeneous job: its parts don't see each other's ranks, ask for nodes of one kind"
nodes=${SLURM_JOB_NUM_NODES:-1}
gpus=${SLURM_GPUS_ON_NODE:-0}
if [ "$gpus" -gt 0 ]; then
  total=${SLURM_GPUS:-$((nodes * gpus))} # of --gpus, which Slurm may lay out as it likes
  [ "${total##*:}" = $((nodes * gpus)) ] ||
    fail "$total GPUs on $nodes nodes, $gpus of them here: nodes need the same number each, ask with --gpus-per-node"
  [ "${SLURM_NTASKS_PER_NODE:-$gpus}" = "$gpus" ] ||
    fail "$gpus GPUs and ${SLURM_NTASKS_PER_NODE} tasks a node: leave out --ntasks-per-node, a rank takes one GPU"
  ranks=$gpus tasks=$((nodes * gpus))
elif [ -n "${SLURM_NTASKS_PER_NODE:-}" ]; then
  ranks=$SLURM_NTASKS_PER_NODE tasks=$((nodes * ranks))
elif [ -n "${SLURM_NTASKS:-}" ]; then
  tasks=$SLURM_NTASKS ranks=$(((tasks + nodes - 1) / nodes))
else
  ranks=1 tasks=$nodes
fi
cpus=$(htr_cpus_per_rank "$ranks")
[ "$cpus" -gt 0 ] ||
  fail "$ranks ranks on a node but only ${SLURM_CPUS_ON_NODE:-1} CPUs: add --cpus-per-gpu=4, --cpus-per-task=4 or --exclusive"
step=(srun --kill-on-bad-exit=1 --unbuffered --distribution=block --nodes="$nodes" --ntasks="$tasks"
  --ntasks-per-node="$ranks" --cpus-per-task="$cpus" python -m jobs "$verb")

arguments=()
for option in "$@"; do
  case $option in
    -h | --help) exec python -m jobs "$verb" --help ;;
    --dry-run) dry=yes ;;
    *) arguments+=("$option") ;;
  esac
done
if [ -n "${dry:-}" ]; then
  echo "${step[*]} ${arguments[*]}"
  seconds=$((${SLURM_JOB_END_TIME:-0} - ${SLURM_JOB_START_TIME:-0}))
  awk -v n="$nodes" -v g="$gpus" -v s="$seconds" \
    'BEGIN { printf "GPU-hours: %.1f at most (%d nodes x %d GPUs x %.1f h)\n", n * g * s / 3600, n, g, s / 3600 }'
  exit 0
fi

# --- the folder that the verb works in keeps the log, too, beside the one that Slurm writes; options, a --config or a
# default name it. A wrong option ends the job here, in one line
folder=$(python -m jobs submit "$verb" --print-folder "${arguments[@]}")
if [ "$verb" = train ]; then
  # from here on the code is what it was when this job first started, also when it comes back from the queue
  snapshot=$(python -m jobs.launch.code_snapshot "$folder" "$SLURM_JOB_ID")
  . "$snapshot/slurm/env.sh"
fi
mkdir -p "$folder/logs"
log=$folder/logs/slurm-${SLURM_ARRAY_JOB_ID:-$SLURM_JOB_ID}${SLURM_ARRAY_TASK_ID:+_$SLURM_ARRAY_TASK_ID}.log
# through a pipe: where the folder's storage stops answering, what is said then still reaches Slurm's log; and where it
# takes no more, as a full disk does (tee -p goes on then)
exec > >(tee -p >(cat >>"$log" || echo "error: $log takes no more lines, this log goes on" >&2)) 2>&1
exec "${step[@]}" "${arguments[@]}"
