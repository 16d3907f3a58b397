#!/usr/bin/env bash
# Build a wheel of Horovod from its sdist, for the torch that PYTHON has: PyTorch alone, over Gloo and, if asked, NCCL.
#   slurm/build_horovod.sh PYTHON SDIST WHEELS [NCCL|cpu]      the wheel is put into the folder WHEELS
# What the build prints goes to its output. HOROVOD_CUDA_HOME names the CUDA toolkit, HOROVOD_NCCL_HOME NCCL's folder;
# HOROVOD_BUILD_CUDA_CC_LIST the compute capabilities to build for (default: of the GPUs here, else all of nvcc's).
set -euo pipefail
[ $# -ge 3 ] || { sed -n 2,5p "$0" >&2; exit 2; }
python=$1 sdist=$2 wheels=$3 gpu=${4:-}
if [ "$gpu" = cpu ]; then gpu=; fi
. "$(dirname "${BASH_SOURCE[0]}")/toolchain.sh"
work=$(mktemp -d); trap 'rm -rf "$work"' EXIT
mkdir -p "$wheels"
case $python in */*) PATH=$(dirname "$python"):$PATH ;; esac # a cmake that pip installed
tar -xzf "$sdist" -C "$work"
source=$(echo "$work"/horovod-*)

# torch's headers need C++20, Horovod asks for 14, and for 11 of nvcc: CUDA 13 knows 17 and later
sed -i 's/set(CMAKE_CXX_STANDARD 14)/set(CMAKE_CXX_STANDARD 20)/' "$source/CMakeLists.txt" "$source/horovod/torch/CMakeLists.txt"
sed -i 's/set(CMAKE_CUDA_STANDARD 11)/set(CMAKE_CUDA_STANDARD 17)/' "$source/horovod/common/ops/cuda/CMakeLists.txt"
# the name without a number belongs to the toolkit, not to the driver: a compute node may lack it
sed -i 's/"libcuda.so"/"libcuda.so.1"/' "$source/horovod/torch/cuda_util.cc"

if [ "$gpu" = NCCL ]; then
  HOROVOD_CUDA_HOME=$(htr_cuda_home)
  [ -n "$HOROVOD_CUDA_HOME" ] || { echo "build_horovod: nvcc is missing: load the site's CUDA module or set HOROVOD_CUDA_HOME" >&2; exit 1; }
  # nvcc takes the system's g++ by itself: conda's, where that is what compiles the rest
  if [ -n "${CXX:-}" ]; then export CUDAHOSTCXX=${CUDAHOSTCXX:-$CXX}; fi
  export HOROVOD_CUDA_HOME CUDA_HOME=$HOROVOD_CUDA_HOME PATH=$HOROVOD_CUDA_HOME/bin:$PATH
  if [ -z "${HOROVOD_NCCL_HOME:-}" ]; then
    # pip's torch brings NCCL as a package: headers, and a library that lacks the name that a linker looks for
    nccl=$("$python" -c 'import nvidia.nccl as n; print(list(n.__path__)[0])' 2>/dev/null || true)
    if [ -n "$nccl" ]; then
      mkdir -p "$work/nccl/lib"
      ln -s "$nccl/include" "$work/nccl/include"
      ln -s "$nccl/lib/libnccl.so.2" "$work/nccl/lib/libnccl.so"
      export HOROVOD_NCCL_HOME=$work/nccl HOROVOD_NCCL_LINK=SHARED
    fi
  fi
  if [ -z "${HOROVOD_BUILD_CUDA_CC_LIST:-}" ]; then
    found=$(nvidia-smi --query-gpu=compute_cap --format=csv,noheader 2>/dev/null | tr -d . | sort -nu | paste -sd, || true)
    if [ -z "$found" ]; then
      found=$("$python" -c 'import torch; print("%d%d" % torch.cuda.get_device_capability())' 2>/dev/null || true)
    fi
    if [[ "$found" =~ ^[0-9,]+$ ]]; then export HOROVOD_BUILD_CUDA_CC_LIST=$found; fi
  fi
  if [ -n "${HOROVOD_BUILD_CUDA_CC_LIST:-}" ]; then export CUDAARCHS=${HOROVOD_BUILD_CUDA_CC_LIST//,/;}; fi
fi
env HOROVOD_WITH_PYTORCH=1 HOROVOD_WITH_GLOO=1 HOROVOD_WITHOUT_MPI=1 HOROVOD_WITHOUT_TENSORFLOW=1 \
  HOROVOD_WITHOUT_MXNET=1 ${gpu:+HOROVOD_GPU_OPERATIONS=$gpu} CMAKE_POLICY_VERSION_MINIMUM=3.5 \
  MAKEFLAGS="${MAKEFLAGS:--j$(nproc)}" "$python" -m pip wheel --disable-pip-version-check --no-deps --no-index \
  --no-build-isolation -v -w "$wheels" "$source"
