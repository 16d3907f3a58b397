"""Settings on the command line: options from a dataclass, the dataclass from given options, and the way back."""

import argparse
import difflib
from argparse import SUPPRESS
from collections.abc import Callable
from dataclasses import MISSING
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

from jobs.cli.config_files import read_settings
from jobs.cli.settings import REQUIRED, Leaf, build, check_bounds, leaves


def add_options(parser: argparse.ArgumentParser, cls: type, files: bool = True) -> None:
    """Add every setting to the parser, as an option or a positional argument; with `files` also --config
    and --quiet.
    """
    places = {"": parser}
    if files:
        text = "settings as a YAML file, or the name of a recipe (jobs/recipes); repeatable, options win over files"
        parser.add_argument("--config", action="append", default=[], metavar="FILE", help=text)
        parser.add_argument("--quiet", action="store_true", help="no progress: results, warnings and errors alone")
    for leaf in leaves(cls):
        if leaf.title not in places:
            places[leaf.title] = parser.add_argument_group(leaf.title)
        place = places[leaf.title]
        if leaf.meta.exclusive:
            mark = f"exclusive {leaf.meta.exclusive}"
            need = leaf.meta.exclusive == REQUIRED
            place = places[mark] = places.get(mark) or place.add_mutually_exclusive_group(required=need)
        add_option(place, leaf)


def add_option(place: Any, leaf: Leaf) -> None:
    """Add a setting to a parser or group: --lr, and --optim.lr, which --help does not list."""
    meta, kind, default = leaf.meta, leaf.kind, leaf.default
    dest, nested = ".".join(leaf.path), "." in leaf.key
    shown = meta.help if meta.help is SUPPRESS else described(leaf)
    options: dict[str, Any] = {"dest": dest, "default": SUPPRESS, "help": shown}
    if kind is bool:
        place.add_argument(f"--{leaf.flag}", action="store_true", **options)
        quiet = {"dest": dest, "default": SUPPRESS, "help": SUPPRESS}
        # a switch that a file turns on can be turned off
        off = [f"--no-{leaf.flag}", *([f"--no-{leaf.key}"] if nested else [])]
        place.add_argument(*off, action="store_false", **quiet)
        if nested:
            place.add_argument(f"--{leaf.key}", action="store_true", **quiet)
        return
    options["choices"] = list(get_args(kind) if get_origin(kind) is Literal else ()) or None
    options["type"] = meta.parse or (type(get_args(kind)[0]) if get_origin(kind) is Literal else kind)
    if kind is Path and not meta.parse:
        options["type"] = path
    plain = leaf.name.upper() if options["choices"] is None else None
    if meta.positional:
        del options["dest"]
        # config_from checks whether it is given: a file may give it
        options |= {"nargs": "*" if leaf.is_list else "?", "metavar": meta.metavar or leaf.name}
        options["type"] = spared(options["type"])
        if default is MISSING:
            options["nargs"] = "+" if leaf.is_list else None
        place.add_argument(dest, **options)
    else:
        options |= {"metavar": meta.metavar or plain, "action": "append" if leaf.is_list else "store"}
        if meta.const is not None:
            options |= {"nargs": "?", "const": meta.const}
        place.add_argument(f"--{leaf.flag}", **options)
        if meta.was:
            place.add_argument(f"--{meta.was}", **options | {"dest": dest, "help": SUPPRESS})
    if nested:
        place.add_argument(f"--{leaf.key}", **{**options, "dest": dest, "help": SUPPRESS} | unplaced(leaf))


def path(text: str) -> Path:
    """Raises ArgumentTypeError for an empty word, which as a path would be the folder that one is in, and for a name
    that no file of ours could hold.
    """
    if not text:
        raise argparse.ArgumentTypeError("an empty path: is a variable of the shell not set?")
    if not text.isascii() and any("\ud800" <= letter <= "\udfff" for letter in text):
        raise argparse.ArgumentTypeError(f"{text!a}: the name is not UTF-8: rename it, or give a link to it")
    return Path(text)


def unplaced(leaf: Leaf) -> dict:
    """Arguments that the dotted option of a positional argument has in place of its own."""
    kind = path if leaf.kind is Path else leaf.kind
    return {"nargs": None, "type": kind, "metavar": None} if leaf.meta.positional else {}


def spared(parse: Callable[[str], Any]) -> Callable[[str], Any]:
    """A type that leaves argparse.SUPPRESS alone: argparse passes the default of a missing argument to its type."""

    def convert(text: str) -> Any:
        return text if text is SUPPRESS else parse(text)

    convert.__name__ = getattr(parse, "__name__", "value")  # errors name it
    return convert


def described(leaf: Leaf) -> str:
    """The help of a setting: its text, its default, its dotted name, and "fixed" where a resume can't change it."""
    default, const = leaf.default, leaf.meta.const
    shown = str(default).replace("%", "%%")
    text = leaf.meta.help.replace("%(default)s", shown)
    if const is not None:
        plain_const = f"{const:g}" if isinstance(const, float) else str(const)
        text = text.replace("%(const)d", plain_const).replace("%(const)g", plain_const)
    plain = default is not MISSING and default is not None and default != "" and not isinstance(default, bool | list)
    if plain and "(default" not in text:
        text = f"{text} (default: {shown})".strip()
    fixed = ", fixed" if leaf.meta.fixed else ""
    return f"{text} [{leaf.key}{fixed}]" if "." in leaf.key else f"{text}{fixed}"


def config_from(parser: argparse.ArgumentParser, cls: type, given: argparse.Namespace) -> Any:
    """The dataclass: options of the command line win over files of `--config`, and these over defaults.

    Ends the program where a required setting is missing. Raises ValueError for a file with an error, or a number that a
    setting can't have.
    """
    known = {".".join(leaf.path): leaf for leaf in leaves(cls)}
    values: dict[tuple[str, ...], Any] = {}
    for name in getattr(given, "config", []):
        values |= read_settings(cls, name)
    values |= {known[name].path: value for name, value in vars(given).items() if name in known}
    missing = [leaf for leaf in known.values() if leaf.default is MISSING and leaf.path not in values]
    if missing:
        named = (leaf.meta.metavar or leaf.name if leaf.meta.positional else f"--{leaf.flag}" for leaf in missing)
        parser.error(f"the following arguments are required: {', '.join(named)}")
    check_bounds(cls, values)
    return build(cls, values)


def argv_of(config: Any, without: tuple[str, ...] = ()) -> list[str]:
    """The command line that gives these settings, without those that have their default.

    `without`: keys to leave out. Raises ValueError for a value that no option can give (None or [] in place of a
    default).
    """
    found = []
    for leaf in sorted(leaves(type(config)), key=lambda leaf: not leaf.meta.positional):
        value = leaf.of(config)
        if leaf.key in without or (value == leaf.default and not leaf.meta.positional):
            continue
        if leaf.meta.positional:
            found += [str(one) for one in (value if leaf.is_list else [value]) if one is not None]
        elif value is None or value == []:  # the default is another: no option says that
            raise ValueError(f"{leaf.key}: no option of the command line says that it is to be empty")
        elif isinstance(value, bool):
            found.append(f"--{'' if value else 'no-'}{leaf.flag}")
        else:
            for one in value if leaf.is_list else [value]:
                found += [f"--{leaf.flag}", leaf.meta.write(one)]
    return found


def option_names(cls: type) -> list[str]:
    """The names of all options, without dashes."""
    return [name for leaf in leaves(cls) for name in (leaf.flag, leaf.key)] + ["config", "quiet"]


def unknown_options(rest: list[str], cls: type | None) -> str:
    """The message for words that no option or argument takes, with the option that was probably meant."""
    said = f"unrecognized arguments: {' '.join(rest)}"
    wrong = [word[2:].partition("=")[0] for word in rest if word.startswith("--")]
    if cls and wrong and (close := difflib.get_close_matches(wrong[0], option_names(cls), 1, 0.6)):
        said += f" (did you mean --{close[0]}?)"
    return said
