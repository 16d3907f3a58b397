"""Every option says what it does, with unit and default; messages, docs and docstrings are in plain words."""

import argparse
import ast
import importlib
import re
from dataclasses import MISSING
from functools import cache
from pathlib import Path

from jobs.cli.command_line import VERBS
from jobs.cli.options import described
from jobs.cli.settings import Leaf, leaves
from shards.plan import SHARES

CHECKOUT = Path(__file__).parent.parent


def options() -> list[tuple[str, Leaf]]:
    """Every option of every verb that --help shows."""
    found = []
    for verb in VERBS:
        module = importlib.import_module(f"jobs.{verb}")
        for cls in [module.Settings] if hasattr(module, "Settings") else [own for own, _ in module.ACTIONS.values()]:
            found += [(verb, leaf) for leaf in leaves(cls) if leaf.meta.help is not argparse.SUPPRESS]
    return found


FRAGMENT = re.compile(r"(of|in|below|above|under|that|whose|or|and|its|default|from|to|by|as) ")
UNITS = re.compile(
    r"\b(number|share|seconds?|steps?|lines?|rows?|px|pixels|scans|samples|texts|ranks|nodes|GPUs?|CPUs?|processes|dots"
    r"|characters?|quality|port|page|seed|probability|rate|norm|decay|margin|confidence|often|order|certificates)\b"
)


def test_every_option_says_what_it_does_its_unit_and_its_default():
    wrong, known = [], options()
    for verb, leaf in known:
        text = described(leaf)
        plain = re.sub(r" ?\(default.*", "", text).split(" [")[0]
        has_default = leaf.default not in (MISSING, None, [], "") and leaf.kind is not bool and not leaf.is_list
        if len(plain.split()) < 2 and leaf.meta.metavar is None and not leaf.meta.positional:
            wrong.append(f"{verb} --{leaf.flag} is not said: {text}")
        if FRAGMENT.match(plain):
            wrong.append(f"{verb} --{leaf.flag} is no phrase: {text}")
        if has_default and "(default" not in text:
            wrong.append(f"{verb} --{leaf.flag} has no default: {text}")
        if leaf.kind in (int, float) and not UNITS.search(text):
            wrong.append(f"{verb} --{leaf.flag} has no unit: {text}")
    assert len(known) > 150 and not wrong, "\n".join(wrong)


def test_the_default_of_shares_is_that_of_the_plan():
    [leaf] = [leaf for verb, leaf in options() if verb == "preprocess" and leaf.flag == "shares"]
    assert ",".join(f"{name}={share:g}" for name, share in SHARES.items()) in described(leaf)


# turns of phrase that a reader whose first language is another stumbles over
ODD = re.compile(
    r"\b(what is told|is told|are told|be told|for who|by who|who keys|is wanted|are wanted|wants? (a|an|the|that)"
    r"|otherwise than|were it|that cannot be|is none|it is said|is not made twice)\b"
)


# the like in pages and docstrings
RIDDLE = re.compile(
    r"\b((is|are) said\b|, said \||(is|are|be) told\b(?! apart)|(for|by) who\b|(is|are) wanted|wants (a|the|two|more)"
    r"|otherwise than|were it\b|(?<!there )is none\b|as far as anybody|nobody knows|anybody can tell|says? whom"
    r"|what (is told|little|much)|no reason to\b|who agrees?\b|is not made twice)"
)
# rooms whose docstrings are held to it
PLAIN_ROOMS = ("htr/forms", "htr/reliability", "jobs/cli", "jobs/distributed", "jobs/scaling")
# constants that got names with their units (house.md): what a docstring says of one must have the new name
OLD_CONSTANTS = re.compile(r"\b(LEAST|MOST|FEW|SURE|FAR|DEAR|EXACT|FLIPS|FINE|SHARE|WANTED|SIZE|LAST|COARSE|FOUND)\b")


@cache
def docstrings() -> list[tuple[str, str, set[str]]]:
    """(file:name, docstring, the names that its file defines) of every module, class and function."""
    found = []
    for path in (path for room in ("htr", "shards", "jobs") for path in sorted((CHECKOUT / room).rglob("*.py"))):
        tree = ast.parse(path.read_text(encoding="utf-8"))
        names = {node.id for node in ast.walk(tree) if isinstance(node, ast.Name)}
        for node in ast.walk(tree):
            if isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef)) and (words := ast.get_docstring(node)):
                name = getattr(node, "name", "")
                found.append((f"{path.relative_to(CHECKOUT)}:{name}", re.sub(r"\s+", " ", words), names))
    return found


def test_pages_are_in_plain_words():
    pages = [CHECKOUT / "README.md", *sorted((CHECKOUT / "docs").glob("*.md"))]
    assert len(pages) > 10 and RIDDLE.search("another encoding than UTF-8 is said")
    lines = [
        (f"{page.name}:{number}", line)
        for page in pages
        for number, line in enumerate(page.read_text(encoding="utf-8").splitlines(), 1)
    ]
    assert not [f"{where}: {line}" for where, line in lines if RIDDLE.search(line)]


def test_docstrings_are_in_plain_words():
    found = docstrings()
    # and the help of the verbs
    rooms = [(at, words) for at, words, _ in found if at.startswith(PLAIN_ROOMS) or re.fullmatch(r"jobs/\w+\.py:", at)]
    assert len(found) > 1500 and len(rooms) > 300
    assert not [f"{where}: {words}" for where, words in rooms if RIDDLE.search(words)]


def test_docstrings_name_constants_that_there_are():
    found = [
        (where, word)
        for where, words, names in docstrings()
        for word in OLD_CONSTANTS.findall(words)
        if word not in names
    ]
    assert not found


def messages() -> list[tuple[str, str]]:
    """(file:line, text) of every message: what is raised, logged or printed, pieces in braces left out."""

    def text(node: ast.AST) -> str:
        if isinstance(node, ast.Constant):
            return node.value if isinstance(node.value, str) else ""
        if isinstance(node, ast.JoinedStr):
            return "".join(text(part) if isinstance(part, ast.Constant) else "{}" for part in node.values)
        if isinstance(node, ast.BinOp):
            return text(node.left) + text(node.right)
        return f"{text(node.body)} {text(node.orelse)}" if isinstance(node, ast.IfExp) else ""

    found = []
    for path in (path for room in ("htr", "shards", "jobs") for path in sorted((CHECKOUT / room).rglob("*.py"))):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            call = node.exc if isinstance(node, ast.Raise) else node
            said = isinstance(node, ast.Raise) or getattr(getattr(node, "func", None), "id", "") in ("log", "print")
            if said and isinstance(call, ast.Call) and call.args and (words := text(call.args[0])):
                found.append((f"{path.relative_to(CHECKOUT)}:{node.lineno}", words))
    return found


def test_messages_are_in_plain_words():
    found = messages()
    assert len(found) > 400 and ODD.search("what is told to a worker")
    assert not [f"{where}: {words}" for where, words in found if ODD.search(words)]
