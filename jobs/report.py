"""python -m jobs report RUN: an evaluation and the training of its reader, as one HTML page for any browser.

    python -m jobs report runs/ctc-16 --evaluation val-014000-beam
    python -m jobs report runs/ctc-1 runs/ctc-4 runs/ctc-16 --out scaling.html     compares runs, or numbers of GPUs

It has error rates with their intervals, slices, confusions, calibration and promises, learning curves, provenance. For
several runs it has their rates and speeds, and paired differences to the first one where both have read the same lines.
The page needs no network. It holds figures only; --with-samples adds lines with their images and transcriptions, and
makes the page as confidential as they are.
"""

from dataclasses import dataclass
from pathlib import Path

from jobs.cli.console import log
from jobs.cli.settings import setting

SAMPLES = 12  # lines of each kind


@dataclass(frozen=True)
class Settings:
    runs: list[Path] = setting(
        help="folder of a run; several are compared with the first one", positional=True, metavar="RUN"
    )
    evaluation: str | None = setting(
        None, "evaluation to show, a name in RUN/evaluation (default: the one that was finished last)", metavar="NAME"
    )
    out: Path | None = setting(
        None, "page to write (default, for one run: report.html in the folder of the evaluation)", metavar="FILE.html"
    )
    with_samples: int | None = setting(
        None,
        "also show the worst lines and some random ones, so many of each, with image and text; the page is "
        "then confidential (default number: %(const)d)",
        const=SAMPLES,
        metavar="LINES",
    )
    dataset: Path | None = setting(None, "data set of the lines shown (default: the one that the run was trained on)")


def main(args: Settings) -> int:
    from shards import files

    if args.with_samples is not None and args.with_samples < 1:
        raise ValueError("--with-samples: give a number of lines, 1 or more")
    if len(args.runs) > 1:
        if args.with_samples or args.dataset:
            raise ValueError("--with-samples and --dataset are for the report of one run")
        if args.out is None:
            raise ValueError("a comparison of several runs needs --out FILE.html")
        page, out = comparison(args), args.out
    else:
        page, out = one(args, args.runs[0])
    out.parent.mkdir(parents=True, exist_ok=True)
    files.replace(out, page)
    out.chmod(0o640)
    confidential = " (confidential: it shows handwriting and transcriptions)" if args.with_samples else ""
    log(f"report: {out}{confidential}")
    return 0


def one(args: Settings, run: Path) -> tuple[str, Path]:
    """-> the page of one run, and the file that it is written to."""
    from jobs.evaluation.texts import config_of, dataset_of
    from jobs.html import evaluation, keying, plot, reliability, render, samples, training
    from jobs.training.run_status import text

    config = config_of(run)
    folder = evaluation.choose(run, args.evaluation)
    view = evaluation.view(folder, config.get("text")) if folder else None
    promises = reliability.view(run, view and view["metrics"])
    lines = None
    if args.with_samples:
        if folder is None:
            raise ValueError(f"{run}: no evaluation, so there are no lines to show (python -m jobs evaluate)")
        dataset = args.dataset or dataset_of(config).folder
        lines = samples.view(folder, dataset, args.with_samples, view["metrics"].get("dataset"))
    curves = training.curves(run)
    page = render(
        "run.html",
        title=f"{run.resolve().name}: report",
        name=run.resolve().name,
        reader=f"{text(config, 'model')}/{text(config, 'size')}",
        evaluation=view,
        warnings=(view["warnings"] if view else []) + reliability.warnings(promises),
        axis=plot.axis(plot.Scale(0, 1, form="{:g}", factor=100)),
        reliability=promises,
        measures=reliability.MEASURES,
        keying=(keyed := keying.view(run)),
        curves=curves,
        provenance=training.provenance(run),
        timing=evaluation.timing(folder),
        others=evaluation.others(run, folder),
        samples=lines,
        contents=contents(view, keyed, curves, lines),
    )
    return page, args.out or (folder or run) / "report.html"


def contents(view: dict | None, keyed: list, curves: list, samples: dict | None) -> list[tuple[str, str]]:
    """The sections that this page has, by the anchors of run.html."""
    view = view or {}
    parts = (
        ("figures", "Errors", view),
        ("normalised", "What counts", view.get("normalised")),
        ("blanks", "Blanks and values", view.get("blank") or view.get("parsed")),
        ("terms", "Causes", view.get("terms")),
        ("selection", "Accepted", view.get("selection")),
        ("slices", "Slices", view.get("slices")),
        ("drift", "Years", view.get("drift")),
        ("confusions", "Confusions", view.get("confusions") or view.get("kinds") or view.get("classes")),
        ("reliability", "Reliability", True),
        ("keying", "Keying", keyed),
        ("learning", "Learning", curves),
        ("provenance", "Provenance", True),
        ("samples", "Lines", samples),
    )
    return [(anchor, title) for anchor, title, there in parts if there]


def comparison(args: Settings) -> str:
    from jobs.html import comparison, render

    return render("comparison.html", **comparison.view(args.runs, args.evaluation))
