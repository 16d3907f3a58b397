"""python -m jobs VERB: the command line. Every verb is a file of this package with `arguments` and `main`."""

import argparse
import importlib
import os
import signal
import sys
import time

VERBS = {
    "simulate": "make simulated certificates",
    "preprocess": "a table or pages to WebDataset shards",
    "status": "how far a preprocess is, from any terminal",
    "retry": "rejected rows once more, after a fix",
    "stats": "what is in a data set: counts, widths, lengths, characters, rejects",
    "inspect": "a page of pictures: every stage of one certificate",
    "verify": "read every byte of a data set and say what is wrong",
    "train": "train a reader",
    "tune": "train a language model and tune the decoding on dev",
    "evaluate": "CER and WER of a run on a split",
    "report": "an HTML page of a run's figures, or of several runs compared",
    "collect": "the figures of all experiments as one table",
    "transcribe": "read line images, scans or a data set",
    "calibrate": "the probability that a reading is right, and a threshold with a guarantee",
    "audit": "transcriptions that a sure reading contradicts, for correction",
    "monitor": "does a promise hold in production, batch by batch",
    "align": "where each text stands: words, lines of fields, labels that fit badly",
    "export": "a CTC reader as ONNX",
    "submit": "submit train, preprocess, evaluate, transcribe or align through submitit, to Slurm or to this machine",
    "scale": "lines/s and efficiency over the number of GPUs, measured or predicted",
    "runs": "list the experiments of a folder",
    "doctor": "check environment, interface, shared storage, GPUs and versions",
    "demo": "the whole way on simulated certificates",
}


def parse(argv: list[str]) -> argparse.Namespace:
    """The verb's arguments, with the function `run` to call on them; ends the program where they are wrong."""
    parser = argparse.ArgumentParser(prog="python -m jobs", description="Handwriting recognition for HPC clusters.")
    verbs = parser.add_subparsers(dest="verb", metavar="VERB", required=True)
    for verb, does in VERBS.items():
        # only the verb that is asked for is imported: help needs no torch, and a wrong word no cluster
        style = argparse.RawDescriptionHelpFormatter
        child = verbs.add_parser(verb, help=does, formatter_class=style, allow_abbrev=False)
        if verb in argv[:1]:
            module = importlib.import_module(f"jobs.{verb}")
            child.description = module.__doc__
            module.arguments(child)
            child.set_defaults(run_verb=module.main)
    args, rest = parser.parse_known_args(argv)
    if args.verb == "submit":
        args.rest = rest  # the command line of the verb that it submits
    elif rest:
        parser.error(f"unrecognized arguments: {' '.join(rest)} (see python -m jobs {args.verb} --help)")
    return args


def main(argv: list[str] | None = None) -> int:
    args = parse(sys.argv[1:] if argv is None else argv)
    os.umask(0o027)  # confidential data: nothing for others, nothing writable for the group
    limit_threads()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # by way of every `with`: a lock is given back
    try:
        return args.run_verb(args)
    except (ValueError, OSError, RuntimeError) as error:
        # one clear line; a RingError is a RuntimeError. HTR_TRACE=1 shows where, for who debugs the code
        if os.environ.get("HTR_TRACE"):
            raise
        kind = "" if type(error) is ValueError or type(error).__name__ == "RingError" else f"{type(error).__name__}: "
        print(f"error: {kind}{error}", file=sys.stderr, flush=True)
        if "SLURM_STEP_ID" in os.environ:
            time.sleep(3)  # srun ends the other ranks with the first: let each say what it has to say
        return 1


def limit_threads() -> None:
    """The CPUs of this process, shared among the ranks of its node: without it each rank takes all of them."""
    from jobs.place import RingError
    from jobs.work import cpus_of_task

    try:
        given = cpus_of_task()
    except RingError:
        return  # the ring says it, on every rank
    cpus = len(os.sched_getaffinity(0))
    # some sixty primitives for each of the widths that the stream pads to; the default of 1024 forgets them too soon
    os.environ.setdefault("ONEDNN_PRIMITIVE_CACHE_CAPACITY", "2048")
    # what the user set stands; what the process that started this one chose was for itself
    if "OMP_NUM_THREADS" not in os.environ or "HTR_CHOSE_THREADS" in os.environ:
        os.environ |= {"OMP_NUM_THREADS": str(min(given, cpus)), "HTR_CHOSE_THREADS": "yes"}


if __name__ == "__main__":
    sys.exit(main())
