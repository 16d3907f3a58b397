# The site's settings and modules, and what slurm/setup.sh builds with: compilers, CUDA, whether for GPUs. Functions alone,
# sourced by slurm/env.sh, setup.sh and build_horovod.sh.

# The site's settings, exported: the file that HTR_SITE names, else the checkout's slurm/site.env.
htr_read_site() { # CHECKOUT
  local site=${HTR_SITE:-$1/slurm/site.env}
  if [ -f "$site" ]; then set -a; . "$site"; set +a; fi
}

# The modules that the site's settings name. `module` is a function of login shells, which a script may lack, and it reads
# variables that are not set.
htr_load_modules() {
  local init failed strict=
  if [ -z "${HTR_MODULES:-}" ]; then return 0; fi
  case $- in *u*) strict=yes ;; esac
  set +u
  if ! command -v module >/dev/null; then
    for init in "${LMOD_PKG:-/nowhere}/init/bash" "${MODULESHOME:-/nowhere}/init/bash" /etc/profile.d/modules.sh /etc/profile.d/lmod.sh; do
      if [ -r "$init" ]; then . "$init"; break; fi
    done
  fi
  failed=
  if ! command -v module >/dev/null; then
    failed="HTR_MODULES=$HTR_MODULES, but this machine has no 'module'"
  elif ! module load $HTR_MODULES 2>&1; then
    failed="module load $HTR_MODULES failed: see 'module avail', mend HTR_MODULES"
  fi
  if [ -n "$strict" ]; then set -u; fi
  if [ -n "$failed" ]; then echo "$failed"; return 1; fi
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

# What names a built wheel in the cache: how it is built, and for what.
htr_wheel_key() { # HOROVOD TORCH PYTHON OPERATIONS
  local built
  built=$({ cat slurm/build_horovod.sh; echo "${HOROVOD_CUDA_HOME:-} ${HOROVOD_NCCL_HOME:-} ${HOROVOD_BUILD_CUDA_CC_LIST:-}"; } | sha256sum)
  echo "horovod-$1-torch-$2-$3-$4-${built:0:8}"
}
