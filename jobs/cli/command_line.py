"""The verbs by name, and how one is run. A verb is a file of jobs/ that nothing imports: it is loaded by its name.

Only the verb that was asked for is imported: `--help` needs no torch.
"""

import argparse
import contextlib
import difflib
import errno
import importlib
import os
import re
import signal
import sys
import time
import warnings
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, NoReturn

from jobs.cli.console import be_quiet, log

FORMAT = warnings.formatwarning
CHECKOUT = Path(__file__).parents[2]
QUOTING = ("could not convert string to ", "invalid literal for ")  # Python's messages that quote what they were given
STAGES = {
    "data": {
        "simulate": "make simulated certificates",
        "template": "forms of one's own: made, checked, exchanged with annotation programs",
        "preprocess": "a table or pages to WebDataset shards",
        "status": "how far a preprocess, transcribe, evaluate or align is, from any terminal",
        "retry": "rejected rows once more, after a fix",
        "stats": "what is in a data set: counts, widths, lengths, characters, rejects",
        "inspect": "a page of pictures: every stage of one certificate",
        "verify": "read every byte of a data set and say what is wrong",
        "precompute": "lines as a model sees them, beside the shards: faster trainings",
        "align": "where each text stands: words, lines of fields, labels that fit badly",
    },
    "training": {
        "train": "train a reader",
        "tune": "train a language model and tune the decoding on dev",
        "runs": "list the experiments of a folder",
    },
    "evaluation": {
        "evaluate": "CER and WER of a run on a split",
        "report": "an HTML page of a run's figures, or of several runs compared",
        "collect": "the figures of all experiments as one table",
        "calibrate": "the probability that a reading is right, and a threshold with a guarantee",
        "audit": "transcriptions that a sure reading contradicts, for correction",
    },
    "production": {
        "transcribe": "read line images, scans or a data set",
        "review": "a page at which people key, check and correct what transcribe and audit wrote",
        "monitor": "does a promise hold in production, batch by batch",
        "export": "a CTC reader as ONNX",
    },
    "operations": {
        "submit": "train, preprocess, evaluate, transcribe or align through submitit, on Slurm or this machine",
        "scale": "lines/s and efficiency over the number of GPUs, measured or predicted",
        "doctor": "check environment, interface, shared storage, GPUs and versions",
        "demo": "the whole way on simulated certificates",
    },
}
VERBS = {verb: does for verbs in STAGES.values() for verb, does in verbs.items()}
OURS = ("htr", "shards", "jobs")


class Parser(argparse.ArgumentParser):
    """A parser whose errors are one line, with the choice that was probably meant."""

    def error(self, message: str) -> NoReturn:
        wrong = re.search(r"invalid choice: '([^']*)' \(choose from (.*)\)", message)
        if wrong:
            close = difflib.get_close_matches(wrong[1], re.findall(r"'([^']*)'", wrong[2]), 1)
            message += f", did you mean {close[0]}?" if close else ""
        self.exit(2, f"{self.prog}: error: {message} (see {self.prog} --help)\n")


def overview() -> str:
    """The list of verbs for `--help`, by stage of the work."""
    wide = max(map(len, VERBS))
    lines = []
    for stage, verbs in STAGES.items():
        lines += ["", f"{stage}:", *(f"  {verb:<{wide}}  {does}" for verb, does in verbs.items())]
    return "\n".join([*lines, "", "python -m jobs VERB --help says more of each."])


def parse(argv: list[str]) -> tuple[Callable[[Any], int], Any]:
    """-> the main function of the verb, and its settings. Ends the program where the command line is wrong.

    A verb is a module with a dataclass `Settings` (see jobs/cli/settings.py), or with ACTIONS: by name the settings of
    each action and its help. Raises ValueError for a settings file with an error.
    """
    from jobs.cli.options import add_options, config_from, unknown_options

    style = argparse.RawDescriptionHelpFormatter
    parser = Parser(
        prog="python -m jobs",
        description="Handwriting recognition for HPC clusters.",
        epilog=overview(),
        formatter_class=style,
    )
    verbs = parser.add_subparsers(dest="verb", metavar="VERB", required=True, help="one of these:")
    module = settings = child = None
    actions: dict[str, argparse.ArgumentParser] = {}
    for verb in VERBS:
        # only the verb that was asked for is imported
        if verb not in argv[:1]:
            verbs.add_parser(verb)
            continue
        child = verbs.add_parser(verb, formatter_class=style, allow_abbrev=False)
        module = importlib.import_module(f"jobs.{verb}")
        child.description, settings = module.__doc__, getattr(module, "Settings", None)
        if settings:
            add_options(child, settings, files=verb != "submit")  # those are of the verb that it submits
        else:
            actions = add_actions(child, module.ACTIONS)
    args, rest = parser.parse_known_args(argv)
    if actions:
        child, settings = actions[args.action], module.ACTIONS[args.action][0]
    if args.verb != "submit" and rest:
        child.error(unknown_options(rest, settings))
    if getattr(args, "quiet", False):
        be_quiet()
    config = config_from(child, settings, args)
    if args.verb == "submit":
        config = replace(config, rest=rest)  # the command line of the verb that it submits
    return module.main, config


def add_actions(parser: argparse.ArgumentParser, actions: dict[str, tuple[type, str]]) -> dict:
    """Add the actions of a verb: by name the dataclass of settings and the help of each. -> their parsers by name"""
    from jobs.cli.options import add_options

    places = parser.add_subparsers(dest="action", metavar="|".join(actions), required=True)
    found = {name: places.add_parser(name, help=does, allow_abbrev=False) for name, (_, does) in actions.items()}
    for name, (settings, _) in actions.items():
        add_options(found[name], settings)
    return found


def main(argv: list[str] | None = None) -> int:
    """Run a verb -> its exit status. An expected error is one line on stderr and status 1; HTR_TRACE=1 shows where."""
    os.umask(0o027)  # confidential data: nothing for others, nothing writable for the group
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # an exception, so that `with` blocks release their locks
    warnings.formatwarning = one_line
    try:
        run_verb, config = parse(sys.argv[1:] if argv is None else argv)
        limit_threads()
        return run_verb(config)
    except KeyboardInterrupt:  # Ctrl-C
        if os.environ.get("HTR_TRACE"):
            raise
        log("interrupted: what is whole is kept, the same command goes on")
        return 130  # as shells have it
    except ModuleNotFoundError as error:  # another Python than the one of set-up, most likely
        if os.environ.get("HTR_TRACE") or (error.name or "").split(".")[0] in OURS:
            raise
        where = f"{error.name} is not installed in {sys.executable}"
        log(f"error: {where}: run make setup once, and . slurm/env.sh in each new shell")
        return 1
    except (ValueError, OSError, RuntimeError) as error:
        # a DistributedError is a RuntimeError
        if os.environ.get("HTR_TRACE"):
            raise
        kind = (
            ""
            if type(error) is ValueError or type(error).__name__ == "DistributedError"
            else f"{type(error).__name__}: "
        )
        log(f"error: {kind}{message_of(error)}{advice(error)}")
        if "SLURM_STEP_ID" in os.environ:
            time.sleep(3)  # srun ends all ranks with the first one: give the others time to write their message
        return 1


def one_line(message: Warning, category: type, filename: str, *more) -> str:
    """A warning of this project as a message; others as Python shows them, with their place."""
    if category is UserWarning and any(Path(filename).is_relative_to(CHECKOUT / package) for package in OURS):
        return f"{message}\n"
    return FORMAT(message, category, filename, *more)


def message_of(error: BaseException) -> str:
    """The message of an error. Of Arrow's errors only those on a file as a whole are shown: others may quote a cell or
    a row, which may be a transcription. So may Python's own on what is no number.
    """
    text = str(error)
    if text.startswith(QUOTING):
        return "a file or a table holds text where a number should be (HTR_TRACE=1 shows where, and the text)"
    if type(error).__module__.partition(".")[0] != "pyarrow" or "parquet" in text.lower():
        return text
    return "a table holds what can't be read (Arrow's message may quote a cell: HTR_TRACE=1 shows it)"


def advice(error: BaseException) -> str:
    """What the user can do about an error of storage; "" for every other error."""
    number = error.errno if isinstance(error, OSError) else None
    if number in (errno.ENOSPC, errno.EDQUOT):
        return ": make room (a quota counts too), then give the same command again: it goes on"
    if number in (errno.EIO, errno.ESTALE):
        return ": the storage failed, nothing half written is kept; give the same command again when it answers"
    if number in (errno.EACCES, errno.EPERM, errno.EROFS):
        return ": you may not do that there (see whose it is, and how it is mounted): name another place"
    if number == errno.ENOENT and str(error.filename).endswith(".tar"):
        return ": a shard that is gone: bring it back, or remove its .json, and the same preprocess makes it again"
    return ""


def limit_threads() -> None:
    """Limit threads to the CPUs of this process: otherwise each rank of a node would use all of them."""
    from jobs.distributed import cpus
    from jobs.distributed.placement import DistributedError

    # the loader pads to many widths, each needs some sixty primitives, and the default cache of 1024 is too small
    os.environ.setdefault("ONEDNN_PRIMITIVE_CACHE_CAPACITY", "2048")
    with contextlib.suppress(DistributedError):  # the process group reports the error on every rank
        cpus.limit_threads(cpus.cpus_of_task())
