"""Settings files in YAML: read with types and checked keys, and written so that they can be read again.

A file has any part of the settings. An unknown key is an error that names the nearest known one. Of YAML's spellings of
a truth value only true and false count: `amp: off` is the word "off".
"""

import difflib
import re
from argparse import ArgumentTypeError
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args, get_origin

import yaml

from jobs.cli.console import log
from jobs.cli.settings import Leaf, leaves, nearest, set_by_verb

RECIPES = Path(__file__).parents[1] / "recipes"


class Loader(getattr(yaml, "CSafeLoader", yaml.SafeLoader)):
    """YAML that refuses a key that is given twice; plain YAML takes the last one without a message."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict:
        names = [key.value for key, _ in node.value]
        if twice := [name for name in names if names.count(name) > 1]:
            raise yaml.MarkedYAMLError(problem=f"the key {twice[0]} is given twice", problem_mark=node.start_mark)
        return super().construct_mapping(node, deep)


# what has YAML's own type only where it is spelled plainly: else 8:00:00 would be the number 28800, and 010 eight
PLAIN = {
    "bool": ("true|false", "tf"),
    "int": (r"0|-?[1-9][0-9]*", "-0123456789"),
    "float": (r"[-+]?(?:[0-9]+\.[0-9]*|\.[0-9]+)(?:[eE][-+]?[0-9]+)?|[-+]?\.inf|\.nan", "-+.0123456789"),
    "timestamp": None,
}
Loader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in found if tag.rpartition(":")[2] not in PLAIN]
    for first, found in Loader.yaml_implicit_resolvers.items()
}
for name, (pattern, first) in {name: spelled for name, spelled in PLAIN.items() if spelled}.items():
    Loader.add_implicit_resolver(f"tag:yaml.org,2002:{name}", re.compile(f"^(?:{pattern})$"), list(first))


def read_yaml(path: Path) -> dict:
    """The content of a YAML file. Raises ValueError where it is not a mapping, OSError where it can't be read."""
    try:
        content = yaml.load(path.read_text(encoding="utf-8"), Loader)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        line = f", line {mark.line + 1}" if mark else ""
        problem = getattr(error, "problem", None) or "not YAML"
        raise ValueError(f"{path}{line}: {problem}") from None
    except UnicodeDecodeError:
        raise ValueError(f"{path}: not UTF-8") from None
    if content is None:
        return {}
    if not isinstance(content, dict):
        raise ValueError(f"{path}: settings are written NAME: VALUE, this is a {type(content).__name__}")
    return content


def find(name: str) -> Path:
    """The path of a file, or of the recipe of this name. Raises ValueError where there is neither."""
    path = Path(name)
    if path.exists() and not path.is_dir():  # a pipe, too: --config <(sed …)
        return path
    known = sorted(recipe.stem for recipe in RECIPES.glob("*.yaml"))
    if name in known:
        return RECIPES / f"{name}.yaml"
    if path.is_dir():
        raise ValueError(f"--config {name}: a folder; give a file (the settings of a run are its config.yaml)")
    close = difflib.get_close_matches(name, known, 1)
    meant = f" (did you mean {close[0]}?)" if close else ""
    raise ValueError(f"--config {name}: no such file, and no recipe{meant}; recipes: {', '.join(known)}")


def read_settings(cls: type, name: str) -> dict[tuple[str, ...], Any]:
    """The settings of a file, by path (see `Leaf`). Raises ValueError for an unknown key or a value of another type."""
    path = find(name)
    known = {leaf.key: leaf for leaf in leaves(cls)}
    own = set_by_verb(cls) - set(known)
    older = {
        leaf.key.removesuffix(leaf.field.name) + leaf.meta.was: key for key, leaf in known.items() if leaf.meta.was
    }
    found: dict[str, Any] = {}
    for name, value in flat(read_yaml(path), {**known, **dict.fromkeys(own)}, path):
        key = older.get(name, name)
        if key in own:  # the file was written for another verb
            log(f"{path}: {key} is ignored, this verb sets it itself")
            continue
        if key not in known:
            close = nearest(key, cls)
            raise ValueError(f"{path}: no setting {key}" + (f", did you mean {close}?" if close else ""))
        if key in found:
            raise ValueError(f"{path}: {key} is given twice, in two spellings")
        found[key] = value
    return {known[key].path: typed(known[key], value, f"{path}: {key}") for key, value in found.items()}


def flat(content: dict, known: dict[str, Any], path: Path, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Nested content to dotted keys: {"optim": {"lr": 1}} -> ("optim.lr", 1)."""
    groups = {key.rpartition(".")[0] for key in known} - {""}
    for name, value in content.items():
        key = f"{prefix}{name}"
        if key in groups and key not in known:
            if value is not None and not isinstance(value, dict):
                raise ValueError(f"{path}: {key} is a group of settings: write {key}: {{NAME: VALUE}}")
            yield from flat(value or {}, known, path, f"{key}.")
        else:
            yield key, value


def typed(leaf: Leaf, value: Any, where: str) -> Any:
    """The value of a file, of the setting's type. `where`: file and key, for the message. Raises ValueError for another
    type.
    """
    if value is None and leaf.may_be_none:
        return None
    try:
        many = get_origin(leaf.field.type) is list
        if leaf.meta.parse and (many or isinstance(value, str)):  # as on the command line; a list has no commas
            return leaf.meta.parse(",".join(map(str, value)) if isinstance(value, list) else str(value))
        if not leaf.is_list:
            return scalar(leaf, value)
        if not isinstance(value, list):
            raise TypeError
        return [scalar(leaf, one) for one in value]
    except ArgumentTypeError as error:
        raise ValueError(f"{where}: {error}") from None
    except (TypeError, ValueError):
        raise ValueError(f"{where}: {'null' if value is None else repr(value)} is not {wanted(leaf)}") from None


def scalar(leaf: Leaf, value: Any) -> Any:
    """One value. Raises TypeError or ValueError for one of another type."""
    import jsonargparse  # only where there is a file: help needs none of it

    if isinstance(value, bool) is not (leaf.kind is bool) or not isinstance(value, str | int | float):
        raise TypeError
    if leaf.kind in (str, Path):  # `run: 2024` is a name
        if isinstance(value, float) or (leaf.kind is Path and value == ""):
            raise TypeError
        return leaf.kind(str(value))
    if leaf.kind in (int, float) and isinstance(value, str):
        value = leaf.kind(value)  # as on the command line
    parser = jsonargparse.ArgumentParser(exit_on_error=False)
    parser.add_argument("--value", type=leaf.kind)
    try:
        taken = parser.parse_object({"value": value}).value
    except jsonargparse.ArgumentError:
        raise TypeError from None
    if taken is None:  # of the word null
        raise TypeError
    choices = get_args(leaf.kind)
    return choices[choices.index(taken)] if choices else taken


def wanted(leaf: Leaf) -> str:
    """What the value of a setting must be, in words: "a whole number"."""
    kinds = {int: "a whole number", float: "a number", str: "a text", Path: "a path", bool: "true or false"}
    choices = get_args(leaf.kind) if get_origin(leaf.kind) is not None else ()
    one = f"one of {', '.join(map(str, choices))}" if choices else kinds.get(leaf.kind, str(leaf.kind))
    return f"a list, each {one}" if get_origin(leaf.field.type) is list else one


def nested(config: Any) -> dict[str, Any]:
    """The settings as in a file: groups are dicts, paths are texts."""
    found: dict[str, Any] = {}
    for leaf in leaves(type(config)):
        value, place = leaf.of(config), found
        *groups, name = leaf.key.split(".")
        for one in groups:
            place = place.setdefault(one, {})
        place[name] = [plain(one) for one in value] if isinstance(value, list) else plain(value)
    return found


def plain(value: Any) -> Any:
    return str(value) if isinstance(value, Path) else value


def to_yaml(config: Any, comment: str = "") -> str:
    """The settings as the text of a file that `read_settings` reads."""
    header = "".join(f"# {line}\n" for line in comment.splitlines())
    return header + yaml.safe_dump(nested(config), sort_keys=False, allow_unicode=True, width=1000)
