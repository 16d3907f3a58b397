#!/usr/bin/env bash
# The environment: packages pinned in pyproject.toml, and Horovod built from its sdist for the torch that is installed.
#   slurm/setup.sh                     into .venv of this checkout, or into the conda environment that is active
#   HOROVOD_GPU_OPERATIONS=NCCL slurm/setup.sh     on a login node without a GPU, for compute nodes that have them
# Where there is a GPU it builds for NCCL by itself, with the nvcc of a module (HTR_MODULES), conda or /usr/local/cuda.
# Does nothing when nothing changed. The built wheel of Horovod is kept under ~/.cache (HTR_CACHE moves it).
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
fail() { echo "setup: $*" >&2; exit 1; }

# --- where to: conda's environment if it is active, else a .venv
if [ -n "${CONDA_PREFIX:-}" ] && [ "${CONDA_DEFAULT_ENV:-base}" != base ]; then
  home=$CONDA_PREFIX
else
  home=$PWD/.venv
fi
python=$home/bin/python
stamp=$home/.htr-setup
. slurm/toolchain.sh
gpu=$(htr_operations "$stamp")
want=$(cat pyproject.toml slurm/setup.sh slurm/build_horovod.sh slurm/toolchain.sh | sha256sum | cut -c1-16)-$gpu-$PWD
if [ "$(head -n 1 "$stamp" 2>/dev/null)" = "$want" ] && [ -x "$python" ]; then exit 0; fi

htr_read_site .
htr_load_modules >&2 || fail "the site's modules could not be loaded"
said=$(htr_missing_tools); [ -z "$said" ] || fail "$said"
if [ ! -x "$python" ]; then
  base=$(command -v python3.11 || command -v python3) || fail "Python 3.11 is missing"
  "$base" -c 'import sys; sys.exit(sys.version_info[:2] != (3, 11))' || fail "Python 3.11 is needed, $base is $("$base" -V)"
  echo "setup: a virtual environment in $home"
  "$base" -m venv "$home" || fail "python -m venv failed: apt-get install python3.11-venv"
fi
log=$home/setup.log
quietly() { "$@" >>"$log" 2>&1 || { tail -n 30 "$log" >&2; fail "'$1 ${*:2:4} …' failed, see $log"; }; }
: >"$log"

# --- packages
echo "setup: packages pinned in pyproject.toml"
quietly "$python" -m pip install --disable-pip-version-check -e '.[simulate,onnx,test]'

# --- Horovod: a wheel for this torch, this Python and these operations, built once
read -r horovod torch < <("$python" - <<'E'
import tomllib, torch
pins = tomllib.load(open("pyproject.toml", "rb"))["project"]["optional-dependencies"]["ring"]
print(pins[0].removeprefix("horovod=="), torch.__version__)
E
)
if [ "$gpu" = NCCL ]; then
  "$python" -c 'import sys, torch; sys.exit(not torch.version.cuda)' ||
    fail "torch $torch has no CUDA, so Horovod can't have NCCL: install a torch for this CUDA, or set HOROVOD_GPU_OPERATIONS=cpu"
  HOROVOD_CUDA_HOME=$(htr_cuda_home)
  [ -n "$HOROVOD_CUDA_HOME" ] || fail "nvcc is missing: name the site's CUDA module in HTR_MODULES (slurm/site.env) or set HOROVOD_CUDA_HOME; without it, HOROVOD_GPU_OPERATIONS=cpu slurm/setup.sh and train with --backend torch"
  export HOROVOD_CUDA_HOME
fi
tag=$("$python" -c 'import sys, platform; print(f"cp{sys.version_info[0]}{sys.version_info[1]}-{platform.machine()}")')
cache=${HTR_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/htr-hpc}/$(htr_wheel_key "$horovod" "$torch" "$tag" "$gpu")
if ! compgen -G "$cache/*.whl" >/dev/null; then
  echo "setup: Horovod $horovod for torch $torch ($gpu, about three minutes)"
  work=$(mktemp -d); trap 'rm -rf "$work"' EXIT
  quietly "$python" -m pip download --disable-pip-version-check --no-deps --no-build-isolation --no-binary :all: \
    -d "$work" "horovod==$horovod"
  quietly bash slurm/build_horovod.sh "$python" "$work"/horovod-*.tar.gz "$work/wheel" "$gpu"
  mkdir -p "$(dirname "$cache")"
  # whole or not at all: another set-up may run beside this one
  mv -T "$work/wheel" "$cache.$$" && { mv -T "$cache.$$" "$cache" 2>/dev/null || rm -rf "$cache.$$"; }
fi
quietly "$python" -m pip install --disable-pip-version-check --no-deps --force-reinstall "$cache"/*.whl
"$python" -c 'import horovod.torch' 2>>"$log" || fail "Horovod was built but cannot be imported, see $log"
printf '%s\n%s\n' "$want" "$gpu on $(hostname), $(date +%Y-%m-%d)" >"$stamp"
echo "setup: ready in $home"
