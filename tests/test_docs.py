"""README and docs are true: length, links, commands, examples, figures."""

import contextlib
import io
import json
import re
import shlex
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from jobs.cli.command_line import STAGES, VERBS, parse

CHECKOUT = Path(__file__).parent.parent
README = CHECKOUT / "README.md"
DOCS = sorted((CHECKOUT / "docs").glob("*.md"))
PAGES = [README, *DOCS, CHECKOUT / "htr/pretrained/MODEL_CARD.md", CHECKOUT / "benchmarks/RESULTS.md"]
SCRIPTS = {f"slurm/{verb}.sh": verb for verb in ("preprocess", "train", "evaluate", "transcribe", "align")}
SBATCH = re.compile(
    r"--(nodes|array|gpus-per-node|cpus-per-gpu|cpus-per-task|ntasks-per-node|wait|exclusive|time|mem)\b"
)


def names(paths: list[Path]) -> list[str]:
    return [str(path.relative_to(CHECKOUT)) for path in paths]


def code(text: str) -> str:
    """Indented and fenced blocks, and what stands in backquotes with several words; Python examples apart."""
    text = re.sub(r"```python\n.*?```", "", text, flags=re.S).replace("\\\n", " ")
    blocks = re.findall(r"^(?: {4,7}|\t)(\S.*)$", text, flags=re.M)
    spans = re.findall(r"`([^`\n]+ [^`\n]+)`", text)
    return "\n".join([*blocks, *spans])


def commands(path: Path) -> list[str]:
    """The command lines of a page, one each: continued lines joined, comments gone, `&&` and `;` taken apart."""
    text = code(path.read_text(encoding="utf-8"))
    lines = [re.sub(r"\s+#\s.*", "", line) for line in text.splitlines()]
    return [part.strip() for line in lines for part in re.split(r"&&|;|\bdo\b", line)]


def verb_and_words(command: str) -> tuple[str, list[str]] | None:
    """A command that runs one of our verbs -> the verb and its words; None for others, a verb alone, those with "…"."""
    try:
        words = shlex.split(command.split(" > ")[0].replace("$lr", "1e-3"))
    except ValueError:  # an apostrophe in prose
        assert "python -m jobs" not in command, command
        return None
    if words[:3] == ["python", "-m", "jobs"] and len(words) > 3 and words[3] in VERBS:
        words = words[3:]
    elif words and words[0] in ("sbatch", "bash"):
        rest = [word for word in words[1:] if not SBATCH.match(word)]
        if not rest or rest[0] not in SCRIPTS:
            return None
        words = [SCRIPTS[rest[0]], *rest[1:]]
    else:
        return None
    return None if len(words) < 2 or any("…" in word for word in words) else (words[0], words[1:])


def parses(verb: str, words: list[str]) -> str:
    """ "" if the verb takes these words, else what it says."""
    said = io.StringIO()
    try:
        with contextlib.redirect_stderr(said), contextlib.redirect_stdout(said):
            parse([verb, *words])
    except SystemExit as end:
        return "" if end.code in (0, None) else said.getvalue().strip().splitlines()[-1]
    except (ValueError, OSError) as error:
        return "" if "experiment.yaml" in str(error) or "config.yaml" in str(error) else str(error)
    return ""


def test_the_readme_asks_for_little_patience():
    text = README.read_text(encoding="utf-8")
    assert len(text.splitlines()) <= 150
    assert len(text.split()) <= 1200


@pytest.mark.parametrize("page", names(PAGES))
def test_relative_links_lead_somewhere(page: str):
    path = CHECKOUT / page
    for target in re.findall(r"\]\(([^)\s]+)\)", path.read_text(encoding="utf-8")):
        if not re.match(r"[a-z]+:", target):
            assert (path.parent / target.split("#")[0]).exists(), target


@pytest.mark.parametrize("page", names(PAGES))
def test_pages_that_are_named_exist(page: str):
    text = (CHECKOUT / page).read_text(encoding="utf-8")
    text = re.sub(r"^### Old names.*?(?=^## |\Z)", "", text, flags=re.S | re.M)  # are of files that are no more
    named = re.findall(
        r"\b((?:docs|benchmarks|slurm|tests|jobs|shards|htr)/[\w/.-]+\.(?:md|py|sh|toml|yaml|csv|json|env))", text
    )
    for name in named:
        # of a folder that a command makes, or one of a user's
        assert (CHECKOUT / name).exists() or name.startswith(("jobs/scaling/scaling", "slurm/site.env")), name


@pytest.mark.parametrize("page", names(PAGES))
def test_commands_parse(page: str):
    found = list(filter(None, map(verb_and_words, commands(CHECKOUT / page))))
    wrong = [f"{verb} {shlex.join(words)}: {said}" for verb, words in found if (said := parses(verb, words))]
    assert not wrong, "\n".join(wrong)


def test_commands_are_found():
    found = [verb_and_words(command) for page in PAGES for command in commands(page)]
    verbs = {verb for verb, _ in filter(None, found)}
    assert verbs >= set(VERBS) - {"runs"}
    assert parses("train", ["data", "--stepz", "3"])  # what is wrong is seen


def test_the_readme_names_every_verb_by_its_stage():
    text = README.read_text(encoding="utf-8")
    for stage, verbs in STAGES.items():
        [row] = [line for line in text.splitlines() if line.startswith(f"| {stage} |")]
        assert set(re.findall(r"`(\w+)`", row)) == set(verbs)


@pytest.mark.parametrize("page", names(PAGES))
def test_make_targets_and_benchmarks_exist(page: str):
    makefile = (CHECKOUT / "Makefile").read_text(encoding="utf-8")
    for command in commands(CHECKOUT / page):
        words = command.split()
        if words[:1] == ["make"] and len(words) > 1 and words[1].isascii():
            assert re.search(rf"^{re.escape(words[1])}:", makefile, re.M), command
        if words[:1] == ["python"] and len(words) > 1 and words[1].startswith("benchmarks/"):
            own = (CHECKOUT / words[1]).read_text(encoding="utf-8")
            for option in re.findall(r"--[\w-]+", command):
                assert option in own, command


def test_messages_of_the_troubleshooting_page_are_those_of_the_code():
    page = (CHECKOUT / "docs/troubleshooting.md").read_text(encoding="utf-8")
    said = {
        text
        for line in page.splitlines()
        for text in re.findall(r'"([^"]+)"', line.split("|")[1] if "|" in line else "")
    }
    files = [path for room in ("htr", "shards", "jobs") for path in (CHECKOUT / room).rglob("*.py")]
    files += (CHECKOUT / "slurm").glob("*.sh")
    # strings that are written in pieces are put together
    code = "".join(re.sub(r'"\s*\n\s*f?"', "", path.read_text(encoding="utf-8")) for path in files)
    assert len(said) > 8
    assert not [text for text in said if text not in code]


def examples() -> list[str]:
    return re.findall(r"```python\n(.*?)```", (CHECKOUT / "docs/python.md").read_text(encoding="utf-8"), flags=re.S)


@pytest.mark.parametrize("number", range(len(examples())))
def test_python_examples_run(number: int, capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(CHECKOUT)
    example = examples()[number]
    if example.startswith("# needs"):
        compile(example, "docs/python.md", "exec")
        for module, name in re.findall(r"^from ([\w.]+) import (\w+)", example, flags=re.M):
            assert hasattr(__import__(module, fromlist=[name]), name)
        return
    exec(compile(example, "docs/python.md", "exec"), {})
    assert capsys.readouterr().out.strip()


def figures(code: str) -> str:
    """What this code prints, which has benchmarks/figures.py as `figures`."""
    done = subprocess.run(
        [sys.executable, "-c", f"import sys; sys.path.insert(0, 'benchmarks'); import figures; {code}"],
        cwd=CHECKOUT, capture_output=True, text=True, check=True,
    )  # fmt: skip
    return done.stdout.strip()


def test_results_are_as_measured():
    """RESULTS.md and README hold the tables that figures.py makes of figures.jsonl."""
    assert figures("print(figures.tables())") in (CHECKOUT / "benchmarks/RESULTS.md").read_text(encoding="utf-8")
    table = figures("print(figures.readme_table())")
    assert table in README.read_text(encoding="utf-8") and table.count("\n|") >= 6


def test_every_figure_that_is_shown_was_measured():
    """But for a benchmark that has learnt to measure more since: it is to run again."""
    missing = (
        "print(*(f'{name}: {label}' for name, row in figures.measurements().items() if name in figures.benchmarks() "
        "for label, text in figures.shown(figures.benchmarks()[name], row) if text is None "
        "and not figures.changed_since(row['commit'], [row['command'].split()[1]])))"
    )
    assert figures(missing) == ""


def test_rows_of_the_readme_without_a_benchmark_stand_in_results():
    results = (CHECKOUT / "benchmarks/RESULTS.md").read_text(encoding="utf-8")
    by_hand = results.split("<!-- to here -->")[1]
    known = tomllib.loads((CHECKOUT / "benchmarks/figures.toml").read_text(encoding="utf-8"))
    for label, text in known["readme"]["rows"]:
        if "{" not in text:
            [number, *_] = re.findall(r"\d[\d .]*\d", text)
            assert re.search(rf"(?<![\d.]){re.escape(number)}(?![\d.])", by_hand), label


# what the README says with digits outside of its table, and whose figure it is
SAID = {
    "500 000": "certificates a year, CépiDc's own",
    "0.9": "where the picture turns green: benchmarks/picture.py",
    "3.11": "Python: pyproject.toml",
    "2 %": "an example of a promise",
    "95 %": "the same",
    "2023": "the year of Horovod's last release",
    "2.0": "Apache 2.0",
}


def strange_numbers(text: str) -> list[str]:
    """Numbers of a page outside of tables and code, and durations in words, that nobody answers for."""
    prose = re.sub(r"<!-- .*?<!-- to here -->", "", text, flags=re.S)
    prose = "\n".join(line for line in prose.splitlines() if not line.startswith((" " * 4, "|")))
    prose = re.sub(r"`[^`]*`|\]\([^)]*\)", "", prose)
    found = re.findall(r"(?<![A-Za-z\d])\d+(?:[ .,]\d+)*(?: %)?", prose)
    found += re.findall(
        r"\b(?:\w+ty|\w*teen|t[ew]\w+|six|seven|eight|nine|four|five|half an?) (?:minute|second|hour|day)s?", prose
    )
    return [number for number in found if number not in SAID]


def test_no_other_number_in_the_readme():
    text = README.read_text(encoding="utf-8")
    assert strange_numbers(text) == []
    # a made-up one is seen
    assert strange_numbers(text + "\nIt reads 41.7 % better.\n") == ["41.7 %"]
    assert strange_numbers(text + "\nThe demo takes nine minutes.\n") == ["nine minutes"]


def test_the_model_cards_rates_are_those_measured():
    card = (CHECKOUT / "htr/pretrained/MODEL_CARD.md").read_text(encoding="utf-8")
    found = json.loads(figures("import json; print(json.dumps(figures.measurements()))"))["accuracy"]["json"]
    for way, name in (("greedy", "greedy"), ("beam search with language models and lexicon", "beam")):
        [row] = [line for line in card.splitlines() if line.startswith(f"| {way} |")]
        low, high = (f"{100 * bound:.2f}" for bound in found[f"val_{name}_interval"])
        wer, unseen = (f"{100 * found[f'val_{name}_{rate}']:.1f} %" for rate in ("wer", "unseen_misread"))
        assert f"| {100 * found[f'val_{name}']:.2f} % ({low} to {high}) | {wer} | {unseen}" in row
