"""How long a first visit takes: a fresh clone, then `make setup`, `make check` and `make demo`, by the clock.

    python benchmarks/large/first_visit.py [--keep FOLDER]

Horovod is built anew; packages come from the network or pip's cache. `load` is the mean number of other processes that
wanted a core in the minute before: figures hold for a machine like this one, and a load of 0. A table, then one line of
JSON.
"""

import argparse
import json
import os
import shutil
import subprocess
import tempfile
import time
from pathlib import Path

CHECKOUT = Path(__file__).parents[2]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--keep", type=Path, metavar="FOLDER", help="clone to here, and leave it (default: removed)")
    args = parser.parse_args()
    figures: dict[str, float] = {"load": round(os.getloadavg()[0], 1)}
    folder = args.keep or Path(tempfile.mkdtemp())
    clone = folder / "clone"
    try:
        subprocess.run(["git", "clone", "-q", CHECKOUT, clone], check=True)
        for target in ("setup", "check", "demo"):
            figures[f"{target}_min"] = round(timed(target, clone) / 60, 2)
            print(f"make {target:<6} {figures[f'{target}_min']:6.2f} minutes", flush=True)
    finally:
        if not args.keep:
            shutil.rmtree(folder)
    print(json.dumps(figures))


def timed(target: str, clone: Path) -> float:
    """Seconds that `make TARGET` takes, as from a login shell: without this process's environment of the project."""
    began = time.monotonic()
    outer = {key: value for key, value in os.environ.items() if not key.startswith(("HTR_", "PYTHON", "VIRTUAL_ENV"))}
    outer["PATH"] = ":".join(part for part in outer["PATH"].split(":") if ".venv" not in part)
    outer["HTR_CACHE"] = str(clone.parent / "cache")
    done = subprocess.run(["make", target], cwd=clone, env=outer, stdout=subprocess.DEVNULL)
    if done.returncode:
        raise SystemExit(f"make {target} failed with {done.returncode}")
    return time.monotonic() - began


if __name__ == "__main__":
    main()
