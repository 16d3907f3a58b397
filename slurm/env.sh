# The environment of every job, and this site's settings. Sourced by the scripts beside it, and by submitit's jobs.
#   . slurm/env.sh        in a login shell too, so that `sbatch slurm/train.sh` knows the site's partition and account
# The site's settings live in slurm/site.env (see site.env.example), or in the file that HTR_SITE names.
htr_home=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
export HTR_HOME=$htr_home
. "$htr_home/slurm/toolchain.sh"
htr_read_site "$htr_home"

# what sbatch reads from its environment; an option on its command line still wins
htr_export() { if [ -n "$2" ] && [ -z "$(eval "echo \${$1:-}")" ]; then export "$1=$2"; fi; }
htr_export SBATCH_PARTITION "${HTR_PARTITION:-}"
htr_export SBATCH_ACCOUNT "${HTR_ACCOUNT:-}"
htr_export SBATCH_QOS "${HTR_QOS:-}"
htr_export SBATCH_CONSTRAINT "${HTR_CONSTRAINT:-}"
htr_export SBATCH_TIMELIMIT "${HTR_TIME:-}"
htr_export SBATCH_CPUS_PER_GPU "${HTR_CPUS_PER_GPU:-}"

htr_load_modules >&2 || return 1
# The .venv that slurm/setup.sh made wins over a conda environment that happens to be active (sbatch passes it on), unless
# set-up made that one and not the .venv. HTR_SAID: said once, not by every script that sources this one.
conda=${CONDA_PREFIX:-}
if [ "${CONDA_DEFAULT_ENV:-base}" = base ]; then conda=; fi
if [ -x "$htr_home/.venv/bin/python" ] &&
  { [ -z "$conda" ] || [ -f "$htr_home/.venv/.htr-setup" ] || [ ! -f "$conda/.htr-setup" ]; }; then
  PATH=$htr_home/.venv/bin:$PATH
  said="$conda is active, but .venv is used, which slurm/setup.sh made: conda deactivate, or remove .venv to use conda's"
elif [ -n "$conda" ] && [ ! -f "$conda/.htr-setup" ]; then
  said="$conda is active and was not made by slurm/setup.sh, and there is no .venv: conda deactivate and run slurm/setup.sh"
else
  said=
fi
if [ -n "$conda" ] && [ -n "$said" ] && [ -z "${HTR_SAID:-}" ]; then echo "htr: $said" >&2; export HTR_SAID=1; fi
unset conda said
export PYTHONUTF8=1 # names of files and what programs say, whatever the locale of a node
unset PYTHONHOME # of another Python, whose library this one can't use
case :${PYTHONPATH:-}: in *:$htr_home:*) ;; *) export PYTHONPATH=$htr_home${PYTHONPATH:+:$PYTHONPATH} ;; esac
# the snapshot of a run: python would look into the folder that the job works in first
if [ -f "$htr_home/SNAPSHOT" ]; then export PYTHONSAFEPATH=1; fi
# In a batch script: CPUs of each rank, for srun's --cpus-per-task, which it does not take over from sbatch. What was asked
# for; else the CPUs of the job on its smallest node, shared out. 0 where there are too few.
htr_cpus_per_rank() { # RANKS-A-NODE
  local part least= total=0 count times cpus
  if [ -n "${SLURM_CPUS_PER_TASK:-}" ]; then echo "$SLURM_CPUS_PER_TASK"; return; fi
  for part in $(echo "${SLURM_JOB_CPUS_PER_NODE:-${SLURM_CPUS_ON_NODE:-1}}" | tr , ' '); do # 8(x3),4
    count=${part%%(*} times=1
    case $part in *x*) times=${part##*x} times=${times%)} ;; esac
    total=$((total + count * times))
    if [ -z "$least" ] || [ "$count" -lt "$least" ]; then least=$count; fi
  done
  # Slurm counts hardware threads here, also where one of each core may be used
  times=1
  if [ "${SLURM_HINT:-}" = nomultithread ] || [ "${SLURM_THREADS_PER_CORE:-}" = 1 ]; then
    times=$(lscpu 2>/dev/null | sed -n 's/^Thread(s) per core: *//p')
  fi
  cpus=$((least / ${times:-1} / $1))
  # tasks that don't divide by the nodes: the smallest node has fewer of them, too
  if [ "$cpus" = 0 ] && [ "${SLURM_NTASKS:-0}" -gt 0 ]; then cpus=$((total / ${times:-1} / SLURM_NTASKS)); fi
  echo "$cpus"
}

if [ -n "${HTR_SCRATCH:-}" ]; then export TMPDIR=$HTR_SCRATCH; fi
umask 027
