"""The settings of a verb: a typed dataclass that YAML files, options and dotted options fill in.

    @dataclass(frozen=True)
    class OptimConfig:
        lr: float = setting(2e-3, "peak learning rate of batches of 32 lines (default: %(default)s)")

    @dataclass(frozen=True)
    class TrainConfig:
        run: Path | None = setting(None, "the run's folder")
        optim: OptimConfig = group(OptimConfig, "optimisation")

A setting of a group has two spellings on the command line, `--lr 1e-3` and `--optim.lr 1e-3`, and one in a file,
`optim: {lr: 1e-3}`. The command line wins over files, and a later `--config` over an earlier one. argparse reads the
command line; jsonargparse converts the values of files to their types. One jsonargparse parser for both would not do:
there `--model` can't be short for `--model.architecture`, and unknown options can't be left to another verb (submit).
"""

import difflib
import math
import types
from collections.abc import Callable, Iterator
from dataclasses import MISSING, Field, dataclass, field, fields, is_dataclass
from typing import Any, Union, get_args, get_origin

META = "setting"
REQUIRED = "required"  # a value of `Meta.exclusive`: one of these options must be given on the command line


@dataclass(frozen=True)
class Meta:
    """What the command line needs to know of a field besides its type and default.

    `flag`: the option without dashes, if it isn't the field's name. `const`: the value of the option when it is given
    without one. `parse`: converts a word of the command line, if the type does not; `write`: the inverse. `exclusive`:
    of options with the same word here only one may be given. `fixed`: a run can't be resumed with another value. `was`:
    the name in files and options of older versions. A number is at least `least` (or more than `over`), and at most
    `most`.
    """

    help: str = ""
    flag: str | None = None
    metavar: str | None = None
    positional: bool = False
    const: Any = None
    parse: Callable[[str], Any] | None = None
    write: Callable[[Any], str] = str
    exclusive: str = ""
    fixed: bool = False
    was: str = ""
    least: float | None = None
    most: float | None = None
    over: float | None = None


@dataclass(frozen=True)
class GroupMeta:
    """What the command line needs to know of a group. `title`: its heading in --help."""

    title: str
    inline: bool = False  # options and files name its settings without the group
    without: tuple[str, ...] = ()  # dotted names of settings that the verb does not take


def setting(default: Any = MISSING, help: str = "", *, make: Callable[[], Any] | None = None, **meta: Any) -> Any:
    """A field of a settings dataclass. Without a default it is required; `make` computes a default when the verb
    starts. See `Meta` for the rest.
    """
    metadata = {META: Meta(help, **meta)}
    if make or isinstance(default, list):
        return field(default_factory=make or default.copy, metadata=metadata, kw_only=True)
    return field(default=default, metadata=metadata, kw_only=True)


def group(cls: type, title: str, inline: bool = False, without: tuple[str, ...] = ()) -> Any:
    """A field that is itself a dataclass of settings. See `GroupMeta`."""
    return field(default_factory=cls, metadata={META: GroupMeta(title, inline, without)}, kw_only=True)


# --- what a dataclass consists of


@dataclass(frozen=True)
class Leaf:
    """A setting, found in a dataclass or its groups. `path`: the names of its fields; `key`: its name in files and
    dotted options.
    """

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
        """Its name without the group, as in run folders, tables and messages."""
        return self.flag.replace("-", "_")

    @property
    def default(self) -> Any:
        made = self.field.default_factory
        return made() if made is not MISSING else self.field.default

    @property
    def kind(self) -> Any:
        """The type of one value: int for `int | None` and for `list[int]`."""
        kind = self.field.type
        if get_origin(kind) in (types.UnionType, Union):  # Literal["a"] | None is the older one
            [kind] = [one for one in get_args(kind) if one is not type(None)]
        return get_args(kind)[0] if get_origin(kind) is list else kind

    @property
    def bounds(self) -> str:
        """What a number must be, in words: "0 to 1", "more than 0"; "" where it has no bounds."""
        least, most, over = self.meta.least, self.meta.most, self.meta.over
        low = f"more than {over}" if over is not None else "" if least is None else f"{least} or more"
        if most is None:
            return low
        return f"{low}, {most} at most" if over is not None else f"{least} to {most}"

    def within(self, value: float) -> bool:
        """Whether a number is within the bounds. NaN is within none."""
        meta = self.meta
        least, most = (-math.inf if meta.least is None else meta.least), (math.inf if meta.most is None else meta.most)
        return least <= value <= most and (meta.over is None or value > meta.over)

    @property
    def is_list(self) -> bool:
        return get_origin(self.field.type) is list and self.meta.parse is None

    @property
    def may_be_none(self) -> bool:
        return type(None) in get_args(self.field.type)

    def of(self, config: Any) -> Any:
        """Its value in a settings dataclass."""
        for name in self.path:
            config = getattr(config, name)
        return config


def leaves(cls: type) -> Iterator[Leaf]:
    """The settings of a dataclass and of its groups, in their order."""
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
    """The keys of settings in its groups that the verb sets itself, and does not take."""
    metas = (one.metadata.get(META) for one in fields(cls))
    return {key for meta in metas if isinstance(meta, GroupMeta) for key in meta.without}


def build(cls: type, values: dict[tuple[str, ...], Any], path: tuple[str, ...] = ()) -> Any:
    """The dataclass with these values, given by path; all others are defaults."""
    given = {}
    for one in fields(cls):
        here = (*path, one.name)
        if is_dataclass(one.type):
            given[one.name] = build(one.type, values, here)
        elif here in values:
            given[one.name] = values[here]
    return cls(**given)


def check_bounds(cls: type, values: dict[tuple[str, ...], Any]) -> None:
    """Raises ValueError for a number, given by path, that its setting can't have: said before anything is begun."""
    for leaf in leaves(cls):
        value = values.get(leaf.path)
        if type(value) in (int, float) and leaf.bounds and not leaf.within(value):
            raise ValueError(f"--{leaf.flag} {value}: give {leaf.bounds}")


# --- the command line


def nearest(word: str, cls: type) -> str:
    """The key that was probably meant; "" if none is near."""
    spellings = {}
    for leaf in leaves(cls):
        spellings |= {leaf.path[-1]: leaf.key, leaf.name: leaf.key, leaf.flag: leaf.key, leaf.key: leaf.key}
    for asked in (word, word.split(".")[-1]):
        if close := difflib.get_close_matches(asked, spellings, 1, 0.6):
            return spellings[close[0]]
    return ""
