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
    compile    options of `train`, each beside none: torch.compile, CUDA graphs, packed LSTM, filters by channels, TF32
    nccl       worlds of one over NCCL through Horovod (also its async completion) and torch.distributed; two ranks on
               the one GPU over Gloo through both: losses as a world of one

A table as the results come, OUT/gpu_check.json, and a last line of JSON. --device cpu runs all of it in small, with the
CPU in the GPU's place and limits up to four times as long: what it measures then means nothing, that it runs does.
"""

import argparse
import contextlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
# name: seconds at most, with --quick and without
LIMITS = {
    "build": (150, 260),
    "data": (60, 90),
    "losses": (85, 150),
    "layers": (60, 90),
    "repeat": (40, 60),
    "readings": (60, 90),
    "resume": (110, 160),
    "speed": (75, 150),
    "compile": (60, 90),
    "nccl": (60, 100),
}
TOGETHER = (
    "data",
    "losses",
    "layers",
    "repeat",
    "readings",
    "resume",
)  # while Horovod is built: nothing is timed there
WHOLE = (225, 470)  # seconds of it all
REHEARSAL = 4  # times as long, with --device cpu
# the last two are for Horovod's build
PACKAGES = ("rapidfuzz", "defusedxml", "webdataset", "submitit", "braceexpand", "cloudpickle", "setuptools")
PACKAGES += ("cffi", "pycparser")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("--wheels", type=Path, default=Path(".gpu/wheels"), help="what is carried (default: %(default)s)")
    add("--out", type=Path, default=Path("gpu-check"), help="for the results (default: %(default)s)")
    add("--quick", action="store_true", help="fewer sizes and steps, shorter limits")
    add("--device", choices=["cuda", "cpu"], default="cuda")
    add("--only", help="sections, by commas")
    add("--prepare", type=Path, metavar="DIR", help="download what is to be carried, and end")
    args = parser.parse_args()
    if args.prepare:
        return prepare(args.prepare)
    chosen = ["data", *args.only.split(",")] if args.only else list(LIMITS)
    if unknown := set(chosen) - set(LIMITS):
        parser.error(f"no section {', '.join(sorted(unknown))}: there are {', '.join(LIMITS)}")
    if "build" in chosen and not sdists(args.wheels):
        what = "holds no horovod-*.tar.gz" if args.wheels.is_dir() else "is not there"
        parser.exit(
            2,
            f"gpu-check: {args.wheels} {what}: run bash benchmarks/gpu/gpu_check.sh --prepare {args.wheels} where a "
            f"network is and carry it here, or leave the build out: --only {','.join(list(LIMITS)[2:])}\n",
        )
    args.out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="gpu-check-") as folder:
        return Check(args, Path(folder), chosen).run()


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


class Check:
    """The sections, as processes; `folder` is for what they need and is thrown away."""

    def __init__(self, args: argparse.Namespace, folder: Path, chosen: list[str]):
        self.args, self.folder, self.chosen = args, folder, chosen
        self.began = time.monotonic()
        # a rehearsal on few cores, where Horovod is built beside all else, takes as long as it takes
        self.patience = REHEARSAL if args.device == "cpu" else 1
        self.end = self.began + self.patience * WHOLE[not args.quick]
        self.results: dict[str, dict] = {}
        self.site = folder / "site"  # packages that this machine lacks, and Horovod
        self.environ, cores = dict(os.environ), len(os.sched_getaffinity(0))
        paths = [str(ROOT), str(self.site), os.environ.get("PYTHONPATH", "")]
        self.environ |= {"PYTHONPATH": os.pathsep.join(filter(None, paths)), "PYTHONUNBUFFERED": "1"}
        self.environ |= {"GPU_CHECK_FOLDER": str(folder), "HTR_SCRATCH": "", "OMP_NUM_THREADS": str(max(cores // 4, 1))}
        self.running: dict[str, tuple[subprocess.Popen, float, Path]] = {}

    def run(self) -> int:
        with contextlib.ExitStack() as stack:
            stack.callback(self.stop_all)
            # a limit from outside ends it with what it has
            signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
            self.note("machine", machine())
            self.install(packages(self.args.wheels))
            self.start("build")
            for name in TOGETHER:
                self.start(name)
            self.wait_for([name for name in TOGETHER if name in self.running])
            self.wait_for(["build"])
            self.take_horovod()
            for name in ("speed", "nccl", "compile"):
                self.start(name)
                self.wait_for([name])
        failed = [name for name, found in self.results.items() if not found["ok"]]
        print(f"{len(self.results) - len(failed)} of {len(self.results)} good in {self.passed():.0f} s", flush=True)
        print(json.dumps({name: found for name, found in self.results.items() if name != "machine"}), flush=True)
        return 1 if failed else 0

    def passed(self) -> float:
        return time.monotonic() - self.began

    def install(self, wheels: list[Path]) -> None:
        """Unpack them into `site`, before what the machine has."""
        if not wheels:
            return
        pip = [sys.executable, "-m", "pip", "install", "-q", "--no-index", "--no-deps", "--no-compile"]
        pip += ["--no-cache-dir", "--disable-pip-version-check", "--upgrade", "--target", str(self.site)]
        done = subprocess.run([*pip, *map(str, wheels)], capture_output=True, text=True)
        if done.returncode:
            names = ", ".join(path.name for path in wheels)
            self.note(f"install {names}"[:40], {"ok": False, "error": done.stderr.strip()[-500:]})

    def start(self, name: str) -> None:
        if name not in self.chosen:
            return
        patience = self.patience if name in (*TOGETHER, "build") else 1
        limit = min(patience * LIMITS[name][not self.args.quick], self.end - time.monotonic())
        if limit < 5:
            self.note(name, {"ok": False, "error": "not begun: no time was left"})
            return
        log = self.folder / f"{name}.log"
        if name == "build":
            operations = ["NCCL"] if self.args.device == "cuda" else []
            script = str(ROOT / "slurm" / "build_horovod.sh")
            command = [
                "bash",
                script,
                sys.executable,
                str(sdists(self.args.wheels)[0]),
                str(self.folder / "wheel"),
                *operations,
            ]
        else:
            command = [sys.executable, str(ROOT / "benchmarks" / "gpu" / "gpu_sections.py"), name, self.args.device]
            command += [f"{limit:.0f}", *(["quick"] if self.args.quick else [])]
        with open(log, "wb") as output:
            # a process group of its own, so that its limit ends its children too
            process = subprocess.Popen(
                command, cwd=ROOT, env=self.environ, stdout=output, stderr=output, start_new_session=True
            )
        self.running[name] = process, time.monotonic() + limit, log

    def wait_for(self, names: list[str]) -> None:
        """Until each has ended or reached its limit."""
        while waiting := [name for name in names if name in self.running]:
            for name in waiting:
                process, limit, log = self.running[name]
                late = time.monotonic() > limit
                if process.poll() is None and not late:
                    continue
                if late:
                    self.kill(process)
                del self.running[name]
                self.note(name, self.read(name, process, log, late))
            time.sleep(0.1)

    def read(self, name: str, process: subprocess.Popen, log: Path, late: bool) -> dict:
        """What a section said: a line of JSON a finding, all of them together."""
        text = log.read_text(encoding="utf-8", errors="replace")
        with open(self.args.out / "gpu_check.log", "a", encoding="utf-8") as whole:
            whole.write(f"==== {name}\n{text[-200_000:]}\n")
        found: dict = {}
        for line in text.splitlines():
            if line.startswith('{"'):
                with contextlib.suppress(json.JSONDecodeError):
                    found |= json.loads(line)
        ok = not late and process.returncode == 0 and all(found.get("checks", {}).values())
        result = {"ok": ok, **found}
        if late:
            result["error"] = "its time limit ended it"
        elif process.returncode:
            lines = [line for line in text.strip().splitlines() if not line.startswith('{"')]
            errors = [line for line in lines if "error" in line.lower() and " -c " not in line]
            result["error"] = " | ".join([*errors[:3], *lines[-2:]])[:600] or f"ended by {process.returncode}"
        if name == "build":
            result["seconds"] = round(self.passed(), 1)
            result["horovod"] = "built here" if ok else "not built"
        return result

    def take_horovod(self) -> None:
        """Install what was built, else what was carried, else leave what the machine has."""
        built = sorted((self.folder / "wheel").glob("*.whl"))
        carried = [path for path in sorted((self.args.wheels / "built").glob("*.whl")) if fits(path)]
        if self.results.get("build", {}).get("ok") and built:
            self.install(built[:1])
        elif carried:
            self.install(carried[:1])
            known = self.results.setdefault("build", {"ok": "build" not in self.chosen})
            known["horovod"] = f"carried {carried[0].name}"

    def note(self, name: str, found: dict) -> None:
        """Print it, and write all that is known: whatever comes later, this is there."""
        self.results[name] = found
        print(f"\n== {name}: {'good' if found.get('ok') else 'BAD'} ({self.passed():.0f} s)", flush=True)
        for key, value in found.items():
            if key == "rows":
                print(table(value), flush=True)
            elif key != "ok":
                print(f"   {key}: {value}", flush=True)
        path = self.args.out / "gpu_check.json"
        path.with_suffix(".part").write_text(json.dumps(self.results, indent=1) + "\n", encoding="utf-8")
        path.with_suffix(".part").replace(path)

    def kill(self, process: subprocess.Popen) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()

    def stop_all(self) -> None:
        for process, _, _ in self.running.values():
            self.kill(process)


def sdists(folder: Path) -> list[Path]:
    return sorted(folder.glob("horovod-*.tar.gz"))


def packages(folder: Path) -> list[Path]:
    """Wheels of the folder that fit this Python and whose package it lacks."""
    import importlib.util

    tag = f"cp{sys.version_info[0]}{sys.version_info[1]}"
    found = []
    for path in sorted(folder.glob("*.whl")):
        name = path.name.partition("-")[0]
        lacks = importlib.util.find_spec(name) is None
        if lacks and ("none-any" in path.name or f"-{tag}-" in path.name):
            found.append(path)
    return found


def fits(wheel: Path) -> bool:
    return f"-cp{sys.version_info[0]}{sys.version_info[1]}-" in wheel.name


def machine() -> dict:
    """Where this runs."""
    nvcc = shutil.which("nvcc") or "/usr/local/cuda/bin/nvcc"
    said = {"ok": True, "python": sys.version.split()[0], "cores": len(os.sched_getaffinity(0))}
    for name, command in {
        "gpu": ["nvidia-smi", "--query-gpu=name,driver_version,memory.total", "--format=csv,noheader"],
        "nvcc": [nvcc, "--version"],
        "cmake": ["cmake", "--version"],
        "compiler": ["g++", "--version"],
    }.items():
        try:
            done = subprocess.run(command, capture_output=True, text=True, timeout=20)
            lines = [line for line in done.stdout.splitlines() if name != "nvcc" or "release" in line]
            said[name] = lines[0].strip() if lines else "says nothing"
        except (OSError, subprocess.TimeoutExpired) as error:
            said[name] = f"missing ({type(error).__name__})"
    said["date"] = time.strftime("%Y-%m-%d")
    return said


def table(rows: list[dict]) -> str:
    """Rows of figures with the same names, as columns."""
    names = list(dict.fromkeys(name for row in rows for name in row))
    cells = [names, *([f"{row.get(name, '')}" for name in names] for row in rows)]
    widths = [max(len(row[column]) for row in cells) for column in range(len(names))]
    return "\n".join(
        "   " + "  ".join(cell.rjust(width) for cell, width in zip(row, widths, strict=True)) for row in cells
    )


if __name__ == "__main__":
    sys.exit(main())
