"""The settings of a verb: a typed dataclass that YAML files, options and dotted options fill in.

    @dataclass(frozen=True)
    class OptimConfig:
        lr: float = setting(2e-3, "peak learning rate of batches of 32 lines (default: %(default)s)")

    @dataclass(frozen=True)
    class TrainConfig:
        run: Path | None = setting(None, "the run's folder")
        optim: OptimConfig = group(OptimConfig, "optimisation")

A setting of a group has two spellings, `--lr 1e-3` and `--optim.lr 1e-3`, and stands in a file as `optim: {lr: 1e-3}`.
The command line wins over files, a later `--config` over an earlier one. argparse reads the command line, so that
spelling, help and errors are what they always were; jsonargparse gives what files say its type. Where the two would
meet in one jsonargparse parser, `--model` can't be short for `--model.architecture`, and options that another verb
knows (those of submit) can't be left over.
"""

import argparse
import difflib
import types
from argparse import SUPPRESS
from collections.abc import Callable, Iterator
from dataclasses import MISSING, Field, dataclass, field, fields, is_dataclass
from typing import Any, Literal, Union, get_args, get_origin

META = "setting"
REQUIRED = "required"  # as `exclusive`: one of these options must be given, on the command line


@dataclass(frozen=True)
class Meta:
    """What the command line knows of a field beside its type and default.

    `flag`: the option without its dashes, if it isn't the field's name. `const`: the value of the option when it is
    given without one. `parse`: a word of the command line to the value, where the type does not say it. `fixed`: a run
    that has this setting can't be resumed with another.
    """

    help: str = ""
    flag: str | None = None
    metavar: str | None = None
    positional: bool = False
    const: Any = None
    parse: Callable[[str], Any] | None = None
    choices: tuple = ()
    exclusive: str = ""  # of the options with one such word one may be given
    fixed: bool = False


@dataclass(frozen=True)
class GroupMeta:
    title: str
    inline: bool = False  # its settings are the verb's own: options and files name them without the group
    without: tuple[str, ...] = ()  # dotted names that the verb does not take


def setting(default: Any = MISSING, help: str = "", *, make: Callable[[], Any] | None = None, **meta: Any) -> Any:
    """A field. Without a default it must be given; `make` makes one when the verb starts. See `Meta` for the rest."""
    metadata = {META: Meta(help, **meta)}
    if make or isinstance(default, list):
        return field(default_factory=make or default.copy, metadata=metadata, kw_only=True)
    return field(default=default, metadata=metadata, kw_only=True)


def group(cls: type, title: str, inline: bool = False, without: tuple[str, ...] = ()) -> Any:
    """A field that is a dataclass of settings itself."""
    return field(default_factory=cls, metadata={META: GroupMeta(title, inline, without)}, kw_only=True)


# --- what a dataclass consists of


@dataclass(frozen=True)
class Leaf:
    """A setting. `path`: the names that lead to it; `key`: those that files and dotted options use."""

    path: tuple[str, ...]
    key: str
    field: Field
    meta: Meta
    title: str = ""  # of its group

    @property
    def flag(self) -> str:
        return self.meta.flag or self.path[-1].replace("_", "-")

    @property
    def name(self) -> str:
        """Without the group: what run folders, tables and messages call it."""
        return self.flag.replace("-", "_")

    @property
    def default(self) -> Any:
        made = self.field.default_factory
        return made() if made is not MISSING else self.field.default

    @property
    def kind(self) -> Any:
        """The type of one value: of `int | None` and `list[int]` int."""
        kind = self.field.type
        if get_origin(kind) in (types.UnionType, Union):  # Literal["a"] | None is the older one
            [kind] = [one for one in get_args(kind) if one is not type(None)]
        return get_args(kind)[0] if get_origin(kind) is list else kind

    @property
    def is_list(self) -> bool:
        return get_origin(self.field.type) is list and self.meta.parse is None

    def of(self, config: Any) -> Any:
        for name in self.path:
            config = getattr(config, name)
        return config


def leaves(cls: type) -> Iterator[Leaf]:
    """The settings of a dataclass, those of its groups among them, in their order."""
    for one in fields(cls):
        meta = one.metadata.get(META, Meta())
        if not is_dataclass(one.type):
            yield Leaf((one.name,), one.name, one, meta)
            continue
        for leaf in leaves(one.type):
            if leaf.key not in meta.without:
                key = leaf.key if meta.inline else f"{one.name}.{leaf.key}"
                yield Leaf((one.name, *leaf.path), key, leaf.field, leaf.meta, leaf.title or meta.title)


def set_by_verb(cls: type) -> set[str]:
    """The keys of its groups that the verb does not take, since it sets them itself."""
    metas = (one.metadata.get(META) for one in fields(cls))
    return {key for meta in metas if isinstance(meta, GroupMeta) for key in meta.without}


def build(cls: type, values: dict[tuple[str, ...], Any], path: tuple[str, ...] = ()) -> Any:
    """The dataclass with these values, by the path of each; the rest are defaults."""
    given = {}
    for one in fields(cls):
        here = (*path, one.name)
        if is_dataclass(one.type):
            given[one.name] = build(one.type, values, here)
        elif here in values:
            given[one.name] = values[here]
    return cls(**given)


# --- the command line


def add_options(parser: argparse.ArgumentParser, cls: type, files: bool = True) -> None:
    """Every setting as an option or an argument of the parser; with `files`, `--config` too."""
    places = {"": parser}
    if files:
        text = "settings as a YAML file, or the name of a recipe (jobs/recipes); repeatable, options win over files"
        parser.add_argument("--config", action="append", default=[], metavar="FILE", help=text)
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
    meta, kind, default = leaf.meta, leaf.kind, leaf.default
    dest, nested = ".".join(leaf.path), "." in leaf.key
    told = meta.help if meta.help is SUPPRESS else described(leaf)
    options: dict[str, Any] = {"dest": dest, "default": SUPPRESS, "help": told}
    if kind is bool:
        place.add_argument(f"--{leaf.flag}", action="store_true", **options)
        quiet = {"dest": dest, "default": SUPPRESS, "help": SUPPRESS}
        # a switch that a file turns on must have a way back
        off = [f"--no-{leaf.flag}", *([f"--no-{leaf.key}"] if nested else [])]
        place.add_argument(*off, action="store_false", **quiet)
        if nested:
            place.add_argument(f"--{leaf.key}", action="store_true", **quiet)
        return
    options["choices"] = list(get_args(kind) if get_origin(kind) is Literal else meta.choices) or None
    options["type"] = meta.parse or (type(get_args(kind)[0]) if get_origin(kind) is Literal else kind)
    plain = leaf.name.upper() if options["choices"] is None else None
    if meta.positional:
        del options["dest"]
        # whether it is there is told later: a file may say it
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
    if nested:
        place.add_argument(f"--{leaf.key}", **{**options, "dest": dest, "help": SUPPRESS} | unplaced(leaf))


def unplaced(leaf: Leaf) -> dict:
    """What differs in the dotted option of an argument that has a place."""
    return {"nargs": None, "type": leaf.kind, "metavar": None} if leaf.meta.positional else {}


def spared(parse: Callable[[str], Any]) -> Callable[[str], Any]:
    """argparse gives the default of a missing argument to its type: ours says that it is missing."""

    def convert(text: str) -> Any:
        return text if text is SUPPRESS else parse(text)

    convert.__name__ = getattr(parse, "__name__", "value")  # errors name it
    return convert


def described(leaf: Leaf) -> str:
    """The help of a setting: its text, its default, and its dotted name where it has one."""
    default, const = leaf.default, leaf.meta.const
    shown = str(default).replace("%", "%%")
    text = leaf.meta.help.replace("%(default)s", shown)
    if const is not None:
        plain_const = f"{const:g}" if isinstance(const, float) else str(const)
        text = text.replace("%(const)d", plain_const).replace("%(const)g", plain_const)
    plain = default is not MISSING and default is not None and default != "" and not isinstance(default, bool | list)
    if plain and "default" not in text and shown not in text:
        text = f"{text} (default: {shown})".strip()
    return f"{text} [{leaf.key}]".strip() if "." in leaf.key else text


def config_from(parser: argparse.ArgumentParser, cls: type, given: argparse.Namespace) -> Any:
    """The dataclass with what the command line gave, over what the files of `--config` say, over the defaults.

    Ends the program where something that must be given is missing. Raises ValueError for a file that is not right.
    """
    from jobs.config_files import read_settings

    known = {".".join(leaf.path): leaf for leaf in leaves(cls)}
    values: dict[tuple[str, ...], Any] = {}
    for name in getattr(given, "config", []):
        values |= read_settings(cls, name)
    values |= {known[name].path: value for name, value in vars(given).items() if name in known}
    missing = [leaf for leaf in known.values() if leaf.default is MISSING and leaf.path not in values]
    if missing:
        named = (leaf.meta.metavar or leaf.name if leaf.meta.positional else f"--{leaf.flag}" for leaf in missing)
        parser.error(f"the following arguments are required: {', '.join(named)}")
    return build(cls, values)


def argv_of(config: Any, without: tuple[str, ...] = ()) -> list[str]:
    """The command line that gives these settings: what differs from the defaults. `without`: keys to leave out."""
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
            found += [w for one in (value if leaf.is_list else [value]) for w in (f"--{leaf.flag}", str(one))]
    return found


def nearest(word: str, cls: type) -> str:
    """The key that was probably meant, or an empty string."""
    spellings = {}
    for leaf in leaves(cls):
        spellings |= {leaf.path[-1]: leaf.key, leaf.name: leaf.key, leaf.flag: leaf.key, leaf.key: leaf.key}
    for asked in (word, word.split(".")[-1]):
        if close := difflib.get_close_matches(asked, spellings, 1, 0.6):
            return spellings[close[0]]
    return ""


def option_names(cls: type) -> list[str]:
    """Every option of the command line, dashes left out."""
    return [name for leaf in leaves(cls) for name in (leaf.flag, leaf.key)] + ["config"]


def unknown_options(rest: list[str], cls: type | None) -> str:
    """What to say of words that no option or argument takes."""
    said = f"unrecognized arguments: {' '.join(rest)}"
    wrong = [word[2:].partition("=")[0] for word in rest if word.startswith("--")]
    if cls and wrong and (close := difflib.get_close_matches(wrong[0], option_names(cls), 1, 0.6)):
        said += f" (did you mean --{close[0]}?)"
    return said
