"""What the training does on a GPU, measured: each part in a process of its own, with a limit, a failure recorded.

    bash benchmarks/gpu/gpu_check.sh --wheels .gpu/wheels --out OUT [--quick] [--device cpu] [--only losses,readings]

Needs Python with torch, nvcc, no network. --wheels is a folder that --prepare filled: Horovod's sdist, wheels of the
packages that a machine for torch may lack, and in `built` a wheel of Horovod that is taken where the build fails.

    build      Horovod with NCCL, on all cores, while the next six run
    data       a data set of drawn lines for the others
    losses     20 steps of each model on the CPU and on the GPU in fp32; bf16 and fp16 beside fp32
    layers     every layer in fp32, bf16 and fp16 beside fp64, at widths to 4 000 px
    repeat     each layer and optimizer under --deterministic: the same bits again
    readings   of the reader in htr/pretrained, on the CPU and on the GPU
    resume     a training killed (kill -9) and gone on with beside one that never was, bit for bit
    speed      lines/s of each size at batches of 64 to 512, with the loader and without; the share of the time that the
               GPU computes; its peak memory
    nccl       worlds of one over NCCL through Horovod (with its async completion and without, gradients as bf16) and
               torch.distributed; two ranks on the one GPU over Gloo through both: losses as a world of one
    compile    options of `train`, each beside none: torch.compile, CUDA graphs, packed LSTM, filters by channels, TF32

Results as they come, then a table of the parts and a last line of JSON, which is also in OUT/gpu_check.json. They come
in time whatever a part does: see gpu_parts.py. --device cpu runs all of it in small, with the CPU in the GPU's place
and six times the limits: what it measures then means nothing, that it runs does. The table says of each part whether
it ran, with a stand-in for the GPU or not at all, and what of it needs a GPU.
"""

import argparse
import re
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from gpu_parts import LIMITS, Check, cores, sdists

ROOT = Path(__file__).resolve().parents[2]
# the last two are for Horovod's build
PACKAGES = ("rapidfuzz", "defusedxml", "webdataset", "submitit", "braceexpand", "cloudpickle", "setuptools")
PACKAGES += ("cffi", "pycparser")
ASK_S = 60.0  # for an answer of a program that says what this machine has


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("--wheels", type=Path, default=Path(".gpu/wheels"), help="what is carried (default: %(default)s)")
    add("--out", type=Path, default=Path("gpu-check"), help="for the results (default: %(default)s)")
    add("--quick", action="store_true", help="fewer sizes and steps, shorter limits")
    add("--device", choices=["cuda", "cpu"], default="cuda")
    add("--only", help="parts, by commas")
    add("--prepare", type=Path, metavar="DIR", help="download what is to be carried, and end")
    args = parser.parse_args()
    if args.prepare:
        return prepare(args.prepare)
    chosen = ["data", *args.only.split(",")] if args.only else list(LIMITS)
    if unknown := set(chosen) - set(LIMITS):
        parser.error(f"no part {', '.join(sorted(unknown))}: there are {', '.join(LIMITS)}")
    if "build" in chosen and not sdists(args.wheels):
        what = "holds no horovod-*.tar.gz" if args.wheels.is_dir() else "is not there"
        parser.exit(
            2,
            f"gpu-check: {args.wheels} {what}: run bash benchmarks/gpu/gpu_check.sh --prepare {args.wheels} where a "
            f"network is and carry it here, or leave the build out: --only {','.join(list(LIMITS)[2:])}\n",
        )
    found = machine()
    if args.device == "cuda" and not found["cuda"]:
        how = "bash benchmarks/gpu/gpu_check.sh --device cpu"
        parser.exit(2, f"gpu-check: no GPU for torch here ({found['torch']}): {how} rehearses without one\n")
    args.out.mkdir(parents=True, exist_ok=True)
    # what a killed part still writes must not hide the last line
    with tempfile.TemporaryDirectory(prefix="gpu-check-", ignore_cleanup_errors=True) as folder:
        return Check(args, Path(folder), chosen).run(found)


def prepare(folder: Path) -> int:
    """Fill the folder with what a machine without a network needs, for Python 3.11 and 3.12."""
    folder.mkdir(parents=True, exist_ok=True)
    pins = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    found = {name: re.search(rf'"({name}[=<>][^"]*)"', pins) for name in (*PACKAGES, "horovod")}
    wanted = [match[1] if match else name for name, match in found.items()]
    pip = [sys.executable, "-m", "pip", "download", "-q", "--no-deps", "-d", str(folder)]
    for version in ("3.11", "3.12"):
        platforms = [f"--platform=manylinux_2_{n}_x86_64" for n in (28, 27, 17)]
        binary = ["--only-binary=:all:", f"--python-version={version}", "--implementation=cp", *platforms]
        subprocess.run([*pip, *binary, *wanted[:-1]], check=True)
    subprocess.run([*pip, "--no-binary=:all:", "--no-build-isolation", wanted[-1]], check=True)
    print(f"{sum(path.stat().st_size for path in folder.rglob('*') if path.is_file()) / 2**20:.1f} MiB in {folder}")
    return 0


def machine() -> dict:
    """Where this runs. `cuda`: whether torch sees a GPU."""
    nvcc = shutil.which("nvcc") or "/usr/local/cuda/bin/nvcc"
    sees = "import torch; print('torch', torch.__version__, 'sees a GPU' if torch.cuda.is_available() else 'sees none')"
    said = {"ok": True, "python": sys.version.split()[0], "cores": cores()}
    for name, command in {
        "gpu": ["nvidia-smi", "--query-gpu=name,driver_version,memory.total", "--format=csv,noheader"],
        "nvcc": [nvcc, "--version"],
        "cmake": ["cmake", "--version"],
        "compiler": ["g++", "--version"],
        "torch": [sys.executable, "-c", sees],
    }.items():
        try:
            done = subprocess.run(command, capture_output=True, text=True, timeout=ASK_S)
            lines = [line for line in done.stdout.splitlines() if name != "nvcc" or "release" in line]
            said[name] = lines[0].strip() if lines else "says nothing"
        except (OSError, subprocess.TimeoutExpired) as error:
            said[name] = f"missing ({type(error).__name__})"
    return said | {"cuda": said["torch"].endswith("sees a GPU"), "date": time.strftime("%Y-%m-%d")}


if __name__ == "__main__":
    sys.exit(main())
