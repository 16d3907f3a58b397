"""README and docs are true: length, links, commands, examples, figures."""

import argparse
import contextlib
import importlib
import io
import re
import shlex
import subprocess
from dataclasses import MISSING
from pathlib import Path

import pytest

from jobs.cli.command_line import STAGES, VERBS, parse
from jobs.cli.options import described
from jobs.cli.settings import leaves

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


def test_figures_of_the_readme_stand_in_results():
    text = README.read_text(encoding="utf-8").split("## Figures")[1].split("\n## ")[0]
    results = (CHECKOUT / "benchmarks/RESULTS.md").read_text(encoding="utf-8")
    rows = [line.split("|")[2] for line in text.splitlines() if line.startswith("| ")][1:]
    assert len(rows) >= 5
    for row in rows:
        for figure in re.findall(r"\d+(?: \d{3})*(?:\.\d+)?", row):
            plain = figure.replace(" ", "")
            assert re.search(rf"(?<![\d.]){re.escape(plain)}(?![\d])", results.replace(" ", "")), f"{figure} of: {row}"


def test_results_are_as_measured(tmp_path: Path):
    """RESULTS.md holds the tables that figures.py makes of figures.jsonl."""
    done = subprocess.run(
        ["python", "-c", "import sys; sys.path.insert(0, 'benchmarks'); import figures; print(figures.tables())"],
        cwd=CHECKOUT, capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert done.stdout.strip() in (CHECKOUT / "benchmarks/RESULTS.md").read_text(encoding="utf-8")


def test_every_option_says_what_it_does_and_its_default():
    for verb in VERBS:
        module = importlib.import_module(f"jobs.{verb}")
        for cls in [module.Settings] if hasattr(module, "Settings") else [own for own, _ in module.ACTIONS.values()]:
            for leaf in leaves(cls):
                if leaf.meta.help is argparse.SUPPRESS:
                    continue
                text = described(leaf)
                words = re.sub(r"\(?default: .*", "", text).split()
                assert words, f"{verb} --{leaf.flag}: {text}"
                if leaf.default not in (MISSING, None, [], "") and leaf.kind is not bool and not leaf.is_list:
                    assert "default" in text or str(leaf.default) in text, f"{verb} --{leaf.flag}: {text}"
