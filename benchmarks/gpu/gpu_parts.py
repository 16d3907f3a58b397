"""The parts of gpu_check.py as processes: whatever one of them does, the others run, and all are told of in time.

Each part has a process group and a limit. A part may use what the parts before it left, but no time that those after
it need at least. A part that hangs is killed with what it has said so far; one that even that does not end (in the
driver) is left behind. A timer over it all, a signal, or an error here ends in the same table and line.
"""

import argparse
import contextlib
import importlib.util
import json
import os
import signal
import subprocess
import sys
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
    "nccl": (60, 100),
    "compile": (60, 90),
}
LEAST = {"speed": (45, 75), "nccl": (40, 60), "compile": (30, 50)}  # seconds that the parts before leave to it
AT_ONCE = ("build", "data", "losses", "layers", "repeat", "readings", "resume")  # nothing is timed there
WHOLE = (225, 465)  # seconds of it all
REHEARSAL = 6  # times as long, with --device cpu: on few cores all of it takes longer
TOO_SHORT_S = 5.0  # a part is not begun
DIES_S = 5.0  # from SIGKILL to the end of a process that is not stuck in the driver
INSTALL_S = 60.0
SAID_BYTES = 200_000  # of a part's log that are kept


class EndedEarly(Exception):
    """From outside, or since all the time is over."""


class Check:
    """The parts, as processes; `folder` is for what they need and is thrown away."""

    def __init__(self, args: argparse.Namespace, folder: Path, chosen: list[str]):
        self.args, self.folder, self.chosen = args, folder, chosen
        self.began = time.monotonic()
        self.patience = REHEARSAL if args.device == "cpu" else 1
        self.whole = self.patience * WHOLE[not args.quick]
        self.results: dict[str, dict] = {}
        self.site = folder / "site"  # packages that this machine lacks, and Horovod
        paths = [str(ROOT), str(self.site), os.environ.get("PYTHONPATH", "")]
        self.environ = dict(os.environ) | {"PYTHONPATH": os.pathsep.join(filter(None, paths)), "PYTHONUNBUFFERED": "1"}
        self.environ |= {"GPU_CHECK_FOLDER": str(folder), "HTR_SCRATCH": ""}
        self.environ["OMP_NUM_THREADS"] = str(max(cores() // 4, 1))
        self.running: dict[str, tuple[subprocess.Popen, float, float, Path]] = {}  # begun, at most until

    def run(self, machine: dict) -> int:
        (self.args.out / "gpu_check.log").unlink(missing_ok=True)
        for number, why in ((signal.SIGALRM, "all the time was over"), (signal.SIGTERM, "ended from outside")):
            signal.signal(number, lambda *_, why=why: self.end_early(why))
        signal.setitimer(signal.ITIMER_REAL, self.whole + 2 * DIES_S)
        why = "not begun"
        try:
            self.note("machine", machine)
            self.go()
        except EndedEarly as ended:
            why = str(ended)
        except Exception as error:  # of this program: what the parts said is told all the same
            why = f"{type(error).__name__}: {error}"
        finally:
            for number in (signal.SIGALRM, signal.SIGTERM):
                signal.signal(number, signal.SIG_IGN)
            self.stop(why)
            code = self.report(why)
        return code

    def end_early(self, why: str) -> None:
        raise EndedEarly(why)

    def go(self) -> None:
        self.install(packages(self.args.wheels))
        for name in AT_ONCE:
            self.start(name)
        self.wait()
        self.take_horovod()
        for name in LEAST:
            self.start(name)
            self.wait()

    def passed(self) -> float:
        return time.monotonic() - self.began

    def limit(self, name: str) -> float:
        """Seconds that a part has from now on."""
        parts = list(LEAST)
        later = parts[parts.index(name) + 1 :] if name in LEAST else parts
        kept = sum(LEAST[part][not self.args.quick] for part in later if part in self.chosen)
        return min(self.patience * LIMITS[name][not self.args.quick], self.whole - self.passed() - self.patience * kept)

    def start(self, name: str) -> None:
        if name not in self.chosen:
            return
        limit, log = self.limit(name), self.folder / f"{name}.log"
        if limit < TOO_SHORT_S:
            self.note(name, {"ok": False, "how": "not begun", "error": "no time was left"})
            return
        try:
            with open(log, "wb") as output:
                # a process group of its own: its limit ends its children too
                process = subprocess.Popen(
                    self.command(name, limit), cwd=ROOT, env=self.environ, stdin=subprocess.DEVNULL, stdout=output,
                    stderr=output, start_new_session=True,
                )  # fmt: skip
        except OSError as error:
            self.note(name, {"ok": False, "how": "not begun", "error": str(error)})
            return
        self.running[name] = process, time.monotonic(), time.monotonic() + limit, log

    def command(self, name: str, limit: float) -> list[str]:
        if name == "build":
            script, wheels = str(ROOT / "slurm" / "build_horovod.sh"), str(self.folder / "wheel")
            operations = "NCCL" if self.args.device == "cuda" else "cpu"
            return ["bash", script, sys.executable, str(sdists(self.args.wheels)[0]), wheels, operations]
        command = [sys.executable, str(ROOT / "benchmarks" / "gpu" / "gpu_sections.py"), name, self.args.device]
        return [*command, f"{limit:.0f}", *(["quick"] if self.args.quick else [])]

    def wait(self) -> None:
        """Until each part that runs has ended or reached its limit."""
        while self.running:
            for name, (process, _, until, _) in list(self.running.items()):
                late = time.monotonic() > until
                if process.poll() is not None or late:
                    self.take(name, "its time limit ended it" if late and process.poll() is None else "")
            time.sleep(0.1)

    def take(self, name: str, killed: str = "", dies_s: float = DIES_S) -> None:
        """Note what a part said that has ended, or is `killed` here."""
        process, began, _, log = self.running.pop(name)
        kill(process)  # its children too: some may be left of one that died
        try:
            process.wait(dies_s)
        except subprocess.TimeoutExpired:
            killed += ", SIGKILL did not"
        self.note(name, self.read(name, process, log, killed) | {"s": round(time.monotonic() - began, 1)})
        if name == "data" and not self.results[name]["ok"]:
            (self.folder / "no-data").touch()  # nobody waits for it any longer

    def read(self, name: str, process: subprocess.Popen, log: Path, killed: str) -> dict:
        """What a part said: a line of JSON a finding, all of them together."""
        text = log.read_text(encoding="utf-8", errors="replace")
        self.keep("gpu_check.log", f"==== {name}\n{text[-SAID_BYTES:]}\n", "a")
        on_gpu = self.args.device == "cuda" or name == "data"
        found: dict = {"ok": False, "how": "ran" if on_gpu else "stand-in"}
        if name == "build" and not on_gpu:
            found["needs_gpu"] = ["NCCL"]
        for line in text.splitlines():
            if line.startswith('{"'):
                with contextlib.suppress(json.JSONDecodeError):
                    found |= json.loads(line)
        found["ok"] = not killed and process.returncode == 0 and all(found.get("checks", {}).values())
        if killed:
            found["error"] = killed
        elif process.returncode:
            lines = [line for line in text.strip().splitlines() if not line.startswith('{"')]
            errors = [line for line in lines if "error" in line.lower() and " -c " not in line]
            found["error"] = " | ".join([*errors[:3], *lines[-2:]])[:600] or f"ended by {process.returncode}"
        if name == "build":
            found["horovod"] = "built here" if found["ok"] else "not built"
        return found

    def install(self, wheels: list[Path]) -> None:
        """Unpack them into `site`, before what the machine has."""
        if not wheels:
            return
        pip = [sys.executable, "-m", "pip", "install", "-q", "--no-index", "--no-deps", "--no-compile"]
        pip += ["--no-cache-dir", "--disable-pip-version-check", "--upgrade", "--target", str(self.site)]
        try:
            limit = self.patience * INSTALL_S
            done = subprocess.run([*pip, *map(str, wheels)], capture_output=True, text=True, timeout=limit)
            said = done.stderr.strip() if done.returncode else ""
        except subprocess.TimeoutExpired:
            said = "pip did not end"
        if said:
            names = ", ".join(path.name for path in wheels)
            self.note("install", {"ok": False, "how": "ran", "wheels": names, "error": said[-500:]})

    def take_horovod(self) -> None:
        """Install what was built, else what was carried, else leave what the machine has."""
        built = sorted((self.folder / "wheel").glob("*.whl"))
        carried = [path for path in sorted((self.args.wheels / "built").glob("*.whl")) if fits(path)]
        if self.results.get("build", {}).get("ok") and built:
            self.install(built[:1])
        elif carried:
            self.install(carried[:1])
            known = self.results.setdefault("build", {"ok": True, "how": "not asked"})
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
        self.keep("gpu_check.json", json.dumps(self.results, indent=1) + "\n")

    def keep(self, name: str, text: str, mode: str = "w") -> None:
        """In a file for later; what is printed counts, so that a full disk ends nothing."""
        path = self.args.out / name
        try:
            if mode == "w":
                path.with_suffix(".part").write_text(text, encoding="utf-8")
                path.with_suffix(".part").replace(path)
            else:
                with open(path, mode, encoding="utf-8") as file:
                    file.write(text)
        except OSError as error:
            print(f"   {path} is not written: {error}", flush=True)

    def stop(self, why: str) -> None:
        processes, until = [process for process, *_ in self.running.values()], time.monotonic() + DIES_S
        for process in processes:
            kill(process)
        while any(process.poll() is None for process in processes) and time.monotonic() < until:
            time.sleep(0.05)
        for name in list(self.running):
            self.take(name, why, dies_s=0.1)

    def report(self, why: str) -> int:
        """The table of the parts, and the line of JSON."""
        for name in self.chosen:
            if name not in self.results:
                self.note(name, {"ok": False, "how": "not begun", "error": why})
        parts = {name: found for name, found in self.results.items() if name != "machine"}
        rows = []
        for name, found in parts.items():
            row = {"part": name, "how": found["how"], "good": "yes" if found["ok"] else "NO", "s": found.get("s", "")}
            rows.append(row | {"needs a GPU": ", ".join(found.get("needs_gpu", []))})
        print(f"\n{table(rows)}")
        good = sum(found["ok"] for found in parts.values())
        print(f"{good} of {len(parts)} good in {self.passed():.0f} s", flush=True)
        print(json.dumps(parts), flush=True)
        return int(good < len(parts))


def kill(process: subprocess.Popen) -> None:
    """It and its children."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)


def cores() -> int:
    return len(os.sched_getaffinity(0))


def sdists(folder: Path) -> list[Path]:
    return sorted(folder.glob("horovod-*.tar.gz"))


def packages(folder: Path) -> list[Path]:
    """Wheels of the folder that fit this Python and whose package it lacks."""
    found = []
    for path in sorted(folder.glob("*.whl")):
        lacks = importlib.util.find_spec(path.name.partition("-")[0]) is None
        if lacks and ("none-any" in path.name or fits(path)):
            found.append(path)
    return found


def fits(wheel: Path) -> bool:
    return f"-cp{sys.version_info[0]}{sys.version_info[1]}-" in wheel.name


def table(rows: list[dict]) -> str:
    """Rows of figures with the same names, as columns."""
    names = list(dict.fromkeys(name for row in rows for name in row))
    cells = [names, *([f"{row.get(name, '')}" for name in names] for row in rows)]
    widths = [max(len(row[column]) for row in cells) for column in range(len(names))]
    return "\n".join(
        "   " + "  ".join(cell.rjust(width) for cell, width in zip(row, widths, strict=True)) for row in cells
    )
