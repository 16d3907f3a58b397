"""Every figure that the project gives of itself: from which command, when, on what machine, of which commit.

    python benchmarks/figures.py                      # all figures; says which are missing and which are of older code
    python benchmarks/figures.py --run stream plan    # run these benchmarks and keep their last line of JSON
    python benchmarks/figures.py --keep terms FILE    # keep the JSON that ends a log of that benchmark's command
    python benchmarks/figures.py --write              # write the tables of benchmarks/RESULTS.md and README.md anew

benchmarks/figures.toml lists the benchmarks, their commands and what is shown of each, and the rows of README's table;
benchmarks/figures.jsonl holds the measurements, a line each, the newest counts. Commands name what does not come with
the project by variables: $HANDWRITING (a folder with lines.csv), $PAGES (pages that are no form), $FONTS (handwriting
fonts).
"""

import argparse
import datetime
import json
import os
import platform
import re
import subprocess
import sys
import tomllib
from pathlib import Path

FOLDER = Path(__file__).parent
LIST, KEPT, RESULTS = FOLDER / "figures.toml", FOLDER / "figures.jsonl", FOLDER / "RESULTS.md"
README = FOLDER.parent / "README.md"
BEGIN, END = "<!-- figures.py writes from here -->", "<!-- to here -->"


def listed():
    return tomllib.loads(LIST.read_text(encoding="utf-8"))


def benchmarks():
    """The benchmarks of figures.toml: name -> {title, command, show: [[label, keys, format], ...], code: [folders]}."""
    return {name: entry for name, entry in listed().items() if name != "readme"}


def measurements():
    """The newest measurement of each benchmark: name -> {name, command, date, commit, machine, json}."""
    if not KEPT.exists():
        return {}
    return {row["name"]: row for row in map(json.loads, KEPT.read_text(encoding="utf-8").splitlines())}


def value(figures, keys, form):
    """One figure as text, or None where the measurement lacks it. keys: "rates.0" goes into objects and lists."""
    if keys in figures:  # a name may hold a dot itself
        return form.format(figures[keys])
    for key in keys.split("."):
        figures = figures[int(key)] if isinstance(figures, list) else (figures or {}).get(key)
        if figures is None:
            return None
    return form.format(figures)


def shown(entry, row):
    """[(label, text or None)] of a benchmark's measurement."""
    return [(label, value(row["json"], keys, form)) for label, keys, form in entry["show"]]


def last_json(text):
    """The object in the last line of a benchmark's output. Raises ValueError where there is none."""
    for line in reversed(text.strip().splitlines()):
        if line.startswith("{"):
            return json.loads(line)
    raise ValueError("the output does not end in a line of JSON")


def git(*arguments):
    return subprocess.run(["git", *arguments], cwd=FOLDER, capture_output=True, text=True)


def changed_since(commit, folders):
    """How many commits have touched these folders since; None where git does not know the commit."""
    answer = git("rev-list", "--count", f"{commit}..HEAD", "--", *(f":/{folder}" for folder in folders))
    return int(answer.stdout) if answer.returncode == 0 else None


def machine():
    about = Path("/proc/cpuinfo").read_text(encoding="utf-8")
    model = next((line.split(":")[1].strip() for line in about.splitlines() if line.startswith("model name")), "")
    return f"{len(os.sched_getaffinity(0))} cores {model or platform.machine()}"


def head():
    return git("rev-parse", "--short", "HEAD").stdout.strip()


def keep(name, command, output, commit, load=None):
    """Append a measurement of the code of `commit` to figures.jsonl. `load`: processes that wanted a core in the minute
    before it began."""
    row = {
        "name": name,
        "command": command,
        "date": datetime.date.today().isoformat(),
        "commit": commit,
        "machine": machine(),
        "json": last_json(output),
    } | ({} if load is None else {"load": load})
    with open(KEPT, "a", encoding="utf-8") as file:
        file.write(json.dumps(row, ensure_ascii=False) + "\n")


def run(name, command):
    """Run a benchmark's command, show its output, keep its figures. Returns whether that worked."""
    missing = [v for v in re.findall(r"\$(\w+)", command) if v not in os.environ]
    if missing:
        print(f"{name}: not run, set {', '.join(missing)}", file=sys.stderr)
        return False
    print(f"$ {command}", flush=True)
    commit, load = head(), round(os.getloadavg()[0], 1)  # a commit may be made while it runs
    done = subprocess.run(["bash", "-c", command], stdout=subprocess.PIPE, text=True)
    print(done.stdout, flush=True)
    if done.returncode:
        print(f"{name}: failed with {done.returncode}", file=sys.stderr)
        return False
    keep(name, command, done.stdout, commit, load)
    return True


def print_all():
    """All figures; returns the names of benchmarks that have none."""
    rows, missing = measurements(), []
    for name, entry in benchmarks().items():
        if name not in rows:
            missing.append(name)
            continue
        row = rows[name]
        changes = changed_since(row["commit"], entry["code"])
        since = "" if changes == 0 else ", code since changed" if changes else ", commit unknown"
        print(f"{entry['title']}  ({row['date']}, {row['commit']}{since})")
        for label, text in shown(entry, row):
            print(f"    {label}: {text or 'missing'}")
    for name in missing:
        print(f"missing: {name}: {benchmarks()[name]['command']}")
    return missing


def tables():
    """The tables of RESULTS.md, Markdown."""
    rows, lines = measurements(), []
    for name, entry in benchmarks().items():
        if name not in rows:
            continue
        row = rows[name]
        lines += [f"\n## {entry['title']}\n", f"`{row['command']}`"]
        load = f", load {row['load']:.0f} before" if "load" in row else ""
        lines += [f"{row['date']}, commit {row['commit']}, {row['machine']}{load}. {entry.get('note', '')}".rstrip()]
        lines += ["", "| figure | value |", "|---|---|"]
        lines += [f"| {label} | {text} |" for label, text in shown(entry, row) if text]
    return "\n".join(lines)


def readme_table():
    """README's table. Its cells name figures as {benchmark.keys:format}. Raises KeyError for one that is missing."""
    rows = measurements()

    def figure(match):
        name, keys, form = match.groups()
        text = value(rows[name]["json"], keys, f"{{:{form}}}")
        if text is None:
            raise KeyError(f"{name}.{keys}")
        return text.replace(",", " ").replace("%", " %")

    cells = (
        (label, re.sub(r"\{([\w-]+)\.([^}:]+):([^}]*)\}", figure, text)) for label, text in listed()["readme"]["rows"]
    )
    return "\n".join(["", "| what | figure |", "|---|---|", *(f"| {label} | {text} |" for label, text in cells), ""])


def write(path, text):
    """Put the text between the two marks of a page."""
    page = path.read_text(encoding="utf-8")
    path.write_text(f"{page.split(BEGIN)[0]}{BEGIN}\n{text}\n{END}{page.split(END)[1]}", encoding="utf-8")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--run", nargs="+", metavar="NAME", help="run these benchmarks, or all, and keep their figures")
    parser.add_argument(
        "--keep",
        nargs=2,
        metavar=("NAME", "FILE"),
        help="keep the JSON at the end of this log, of the commit that is checked out",
    )
    parser.add_argument("--write", action="store_true", help="write the tables of RESULTS.md and README.md")
    args = parser.parse_args()
    known = benchmarks()
    asked = (args.run or []) + (args.keep or [])[:1]
    if unknown := [name for name in asked if name not in known and name != "all"]:
        parser.error(f"no benchmark {', '.join(unknown)}: there are {', '.join(known)}")
    good = True
    for name in known if args.run == ["all"] else args.run or []:
        good &= run(name, known[name]["command"])
    if args.keep:
        keep(args.keep[0], known[args.keep[0]]["command"], Path(args.keep[1]).read_text(encoding="utf-8"), head())
    if args.write:
        write(RESULTS, tables())
        write(README, readme_table())
    if not (args.run or args.keep or args.write):
        print_all()
    sys.exit(not good)


if __name__ == "__main__":
    main()
