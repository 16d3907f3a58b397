"""python tests/mutants.py [NUMBER …]: do the tests see small faults? Each of tests/mutants.toml is put into a copy of
the tree, one at a time, and the tests that it names are run there. -> a table, the share seen; exit 1 where one is not.

    python tests/mutants.py 3 21 77           these alone
    python tests/mutants.py --file shards/     those of files whose names begin so
    python tests/mutants.py --check            that all faults fit their files and have their tests; runs nothing

Faults with a note are equal code, or nearly: no test can see them, and they are left out.
"""

import argparse
import os
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


def is_seen(copy: Path, fault: Fault, seconds: float) -> str:
    """How the fault's tests ended in the copy of the tree: seen, NOT SEEN, or seen by the time limit."""
    path = copy / fault.file
    source = path.read_text(encoding="utf-8")
    command = [sys.executable, "-m", "pytest", "-x", "-m", "not slurm", "-p", "no:cacheprovider", *fault.tests]
    environ = os.environ | {"PYTHONPATH": str(copy), "PYTHONDONTWRITEBYTECODE": "1", "OMP_NUM_THREADS": "1"}
    environ.pop("HTR_HOME", None)
    try:
        path.write_text(fault.put_into(source), encoding="utf-8")
        done = subprocess.run(command, cwd=copy, env=environ, capture_output=True, text=True, timeout=seconds)
    except subprocess.TimeoutExpired:
        return "seen by the time limit"
    finally:
        path.write_text(source, encoding="utf-8")
    if done.returncode not in (0, 1):  # of pytest: all passed, some failed
        return f"seen, pytest ends with {done.returncode}: {done.stdout.strip().splitlines()[-1][:80]}"
    return "seen" if done.returncode else "NOT SEEN"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("numbers", type=int, nargs="*", help="of faults (default: all)")
    parser.add_argument("--file", default="", metavar="BEGINNING", help="only faults of these files")
    parser.add_argument("--check", action="store_true", help="run nothing")
    parser.add_argument("--timeout", type=float, default=600, help="seconds for the tests of a fault (%(default)s)")
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
    ends = []
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder) / "tree"
        shutil.copytree(HOME, copy, ignore=shutil.ignore_patterns(*LEFT_OUT), symlinks=True)
        for fault in asked:
            ends.append(is_seen(copy, fault, args.timeout))
            short = " ".join(fault.before.split())[:60]
            print(f"{fault.number:4d}  {fault.file:34s}  {short:60s}  {ends[-1]}", flush=True)
    seen = sum(end != "NOT SEEN" for end in ends)
    share, equal = 100 * seen / max(len(ends), 1), len(faults) - len(asked)
    print(f"{seen} of {len(ends)} seen ({share:.0f} %), {equal} are equal code")
    return int(seen < len(ends))


if __name__ == "__main__":
    sys.exit(main())
