"""python tests/mutants.py [NUMBER …]: do the tests see small faults? Each of tests/mutants.toml is put into a copy of
the tree, one at a time, and the tests that it names are run there. -> a table, the share seen; exit 1 where one is not.

    python tests/mutants.py 3 21 77            these alone
    python tests/mutants.py --file shards/     those of files whose names begin so
    python tests/mutants.py --record FILE      keeps the outcomes; called again, those seen before are not run again
    python tests/mutants.py --check            that all faults fit their files and have their tests; runs nothing

A fault is seen where its tests pass without it and fail with it. Faults with a note are equal code, or nearly: no test
can see them, and they are left out.
"""

import argparse
import hashlib
import json
import os
import resource
import shutil
import subprocess
import sys
import tempfile
import textwrap
import tomllib
from dataclasses import dataclass
from pathlib import Path

HOME = Path(__file__).resolve().parent.parent
FAULTS = Path(__file__).with_name("mutants.toml")
LEFT_OUT = (".git", ".venv", "demo", "runs", "__pycache__", ".pytest_cache", ".ruff_cache", ".hypothesis")
DEEPEST = 40  # columns that a statement is indented by, at most
NOT_SEEN, FAILS_ANYWAY = "NOT SEEN", "its tests fail without it"
MOST_CPU_S = 3600  # of the tests of a fault


@dataclass(frozen=True)
class Fault:
    number: int
    file: str
    before: str  # stands once in the file
    after: str
    tests: list[str]
    note: str = ""  # why no test can see it

    def put_into(self, source: str) -> str:
        """The file's text with the fault. Raises ValueError where it does not stand there exactly once."""
        found = []
        if "\n" not in self.before.rstrip("\n"):
            found = [source.replace(self.before, self.after)] * source.count(self.before)
        else:
            for columns in range(0, DEEPEST + 1, 4):
                before, after = (f"\n{textwrap.indent(text, ' ' * columns)}" for text in (self.before, self.after))
                found += [source.replace(before, after)] * source.count(before)
        if len(found) != 1:
            raise ValueError(f"stands {len(found)} times in {self.file}, not once")
        compile(found[0], self.file, "exec")
        return found[0]

    def misfit(self) -> str:
        """Why the fault cannot be put in, or its tests not be run; empty where it fits."""
        why = [f"no test {test}" for test in self.tests if not (HOME / test.partition("::")[0]).exists()]
        try:
            self.put_into((HOME / self.file).read_text(encoding="utf-8"))
        except (OSError, ValueError, SyntaxError) as error:
            why.append(str(error))
        return f"fault {self.number}: {'; '.join(why)}" if why else ""


def read_faults() -> list[Fault]:
    with open(FAULTS, "rb") as file:
        entries = tomllib.load(file)["fault"]
    return [Fault(before=entry.pop("from"), after=entry.pop("to"), **entry) for entry in entries]


def run(copy: Path, tests: list[str], cpu_seconds: float) -> tuple[int, float]:
    """Run these tests of the copy. -> pytest's exit status, CPU seconds used. What computes for longer than
    `cpu_seconds` is ended by the system; how busy the machine is makes no difference."""
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-x",
        "-m",
        "not slurm",
        "-p",
        "no:cacheprovider",
        "-o",
        "timeout=0",
        *tests,
    ]
    environ = os.environ | {"PYTHONPATH": str(copy), "PYTHONDONTWRITEBYTECODE": "1", "OMP_NUM_THREADS": "1"}
    environ.pop("HTR_HOME", None)

    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_CPU, (round(cpu_seconds), round(cpu_seconds) + 5))

    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    done = subprocess.run(command, cwd=copy, env=environ, capture_output=True, text=True, preexec_fn=limit)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return done.returncode, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def outcome(copy: Path, fault: Fault, cpu_seconds: float) -> str:
    """How the fault's tests end in the copy of the tree: seen, seen by an endless loop, or NOT SEEN."""
    path = copy / fault.file
    source = path.read_text(encoding="utf-8")
    try:
        path.write_text(fault.put_into(source), encoding="utf-8")
        status, _ = run(copy, fault.tests, cpu_seconds)
    finally:
        path.write_text(source, encoding="utf-8")
    return NOT_SEEN if status == 0 else "seen" if status > 0 else "seen by an endless loop"


class Record:
    """Outcomes of earlier calls, a line of JSON each, so that an interrupted run goes on."""

    def __init__(self, file: str):
        self.path = Path(file) if file else None
        lines = self.path.read_text(encoding="utf-8").splitlines() if self.path and self.path.exists() else []
        self.outcomes = {entry["key"]: entry["outcome"] for entry in map(json.loads, lines)}

    @staticmethod
    def key(fault: Fault) -> str:
        return hashlib.sha256(json.dumps([fault.file, fault.before, fault.after, fault.tests]).encode()).hexdigest()

    def seen(self, fault: Fault) -> bool:
        return self.outcomes.get(self.key(fault), NOT_SEEN) != NOT_SEEN

    def add(self, fault: Fault, end: str) -> None:
        if self.path:
            with open(self.path, "a", encoding="utf-8") as file:
                file.write(json.dumps({"number": fault.number, "key": self.key(fault), "outcome": end}) + "\n")


def run_all(faults: list[Fault], record: Record) -> int:
    """Puts them in one by one and prints how each ended. -> how many were not seen. Tests that fail without any fault
    can tell nothing: theirs count as not seen."""
    unseen, limits = 0, {}
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder) / "tree"
        shutil.copytree(HOME, copy, ignore=shutil.ignore_patterns(*LEFT_OUT), symlinks=True)
        for fault in faults:
            if record.seen(fault):
                end = "seen before"
            else:
                tests = tuple(fault.tests)
                if tests not in limits:
                    status, taken = run(copy, fault.tests, MOST_CPU_S)
                    limits[tests] = 0.0 if status else 3 * taken + 20
                end = outcome(copy, fault, limits[tests]) if limits[tests] else FAILS_ANYWAY
                if end != FAILS_ANYWAY:
                    record.add(fault, end)
            unseen += end in (NOT_SEEN, FAILS_ANYWAY)
            short = " ".join(fault.before.split())[:60]
            print(f"{fault.number:4d}  {fault.file:34s}  {short:60s}  {end}", flush=True)
    return unseen


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("numbers", type=int, nargs="*", help="of faults (default: all)")
    parser.add_argument("--file", default="", metavar="BEGINNING", help="only faults of these files")
    parser.add_argument("--record", default="", metavar="FILE", help="keep outcomes there; skip what was seen before")
    parser.add_argument("--check", action="store_true", help="run nothing")
    args = parser.parse_args()
    faults = [fault for fault in read_faults() if fault.file.startswith(args.file)]
    unknown = set(args.numbers) - {fault.number for fault in faults}
    if unknown:
        parser.error(f"no such faults: {sorted(unknown)}")
    faults = [fault for fault in faults if not args.numbers or fault.number in args.numbers]
    unfit = [why for fault in faults if (why := fault.misfit())]
    if unfit:
        print(*unfit, f"{len(unfit)} of {len(faults)} faults do not fit: mend {FAULTS.name}", sep="\n", file=sys.stderr)
        return 1
    asked = [fault for fault in faults if not fault.note]
    if args.check:
        print(f"{len(faults)} faults fit their files, {len(asked)} of them are to be seen")
        return 0
    unseen = run_all(asked, Record(args.record))
    seen, equal = len(asked) - unseen, len(faults) - len(asked)
    print(f"{seen} of {len(asked)} seen ({100 * seen / max(len(asked), 1):.0f} %), {equal} are equal code")
    return int(unseen > 0)


if __name__ == "__main__":
    sys.exit(main())
