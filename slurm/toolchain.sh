# What slurm/setup.sh builds with: modules, compilers, CUDA, and whether for GPUs. Sourced by it; functions alone.

# The modules that the site's settings name. `module` is a function of login shells, which a script may lack.
htr_load_modules() {
  local site=${HTR_SITE:-slurm/site.env} init
  if [ -f "$site" ]; then set -a; . "$site"; set +a; fi
  if [ -z "${HTR_MODULES:-}" ]; then return 0; fi
  if ! command -v module >/dev/null; then
    for init in "${LMOD_PKG:-/nowhere}/init/bash" "${MODULESHOME:-/nowhere}/init/bash" /etc/profile.d/modules.sh /etc/profile.d/lmod.sh; do
      if [ -r "$init" ]; then set +u; . "$init"; set -u; break; fi
    done
  fi
  command -v module >/dev/null || { echo "HTR_MODULES=$HTR_MODULES, but this machine has no 'module'"; return 1; }
  set +u
  # shellcheck disable=SC2086
  module load $HTR_MODULES 2>&1 || { set -u; echo "module load $HTR_MODULES failed: see 'module avail', mend HTR_MODULES"; return 1; }
  set -u
}

# What is missing to build with, one line; empty if nothing. conda's compilers are named by CXX, not g++.
htr_missing_tools() {
  local tool
  for tool in "${CXX:-g++}" cmake make; do
    command -v "${tool%% *}" >/dev/null || { echo "$tool is missing: apt-get install build-essential cmake, a module of the site (HTR_MODULES), or conda env create -f environment.yml"; return 0; }
  done
}

# NCCL or cpu: what is asked for (HOROVOD_GPU_OPERATIONS); where there is a GPU, NCCL; a build with NCCL stays one when
# set-up runs again on a login node. The stamp's second line says what was built.
htr_operations() { # STAMP [DEVICES]
  local devices=${2:-/dev/nvidia}
  if [ -n "${HOROVOD_GPU_OPERATIONS:-}" ]; then echo "$HOROVOD_GPU_OPERATIONS"
  elif compgen -G "$devices[0-9]*" >/dev/null; then echo NCCL
  elif [ "$(sed -n '2s/ .*//p' "$1" 2>/dev/null)" = NCCL ]; then echo NCCL
  else echo cpu; fi
}

# The CUDA toolkit's folder; empty where nvcc is not found.
htr_cuda_home() {
  local nvcc
  if [ -n "${HOROVOD_CUDA_HOME:-}" ]; then echo "$HOROVOD_CUDA_HOME"; return; fi
  nvcc=$(command -v nvcc || true)
  for nvcc in "$nvcc" "${CUDA_HOME:-/nowhere}/bin/nvcc" "${CUDA_PATH:-/nowhere}/bin/nvcc" "${CONDA_PREFIX:-/nowhere}/bin/nvcc" /usr/local/cuda/bin/nvcc; do
    if [ -n "$nvcc" ] && [ -x "$nvcc" ]; then dirname "$(dirname "$(readlink -f "$nvcc")")"; return; fi
  done
}
