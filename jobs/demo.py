"""python -m jobs demo: the whole way on simulated certificates, with two workers and two Horovod ranks on this machine.

Simulated certificates -> shards of their lines, found on the form -> the CTC reader, then the attention reader from its
encoder, each trained by two ranks that submitit's local executor starts -> a language model and its weights ->
evaluation as two tasks -> a table of CER on certificates never seen -> the text of some scans, field by field.
"""

import json
import shutil
import time
from dataclasses import dataclass
from pathlib import Path

from jobs.cli.console import log
from jobs.cli.settings import setting

CERTIFICATES, OTHERS = 1500, 20
SHARES = "train=0.9,dev=0.02,val=0.08"


@dataclass(frozen=True)
class Settings:
    out: Path = setting(Path("demo"), "folder for everything that the demo makes")
    certificates: int = setting(CERTIFICATES, "number of simulated certificates to train and evaluate on", least=1)
    fonts: Path | None = setting(None, "folder of handwriting fonts (default: those from PyPI)")
    fresh: bool = setting(False, "remove what an earlier demo left, and begin again")


def main(args: Settings) -> int:
    from jobs.cli.command_line import main as run

    began = time.monotonic()
    if args.fresh:
        shutil.rmtree(args.out, ignore_errors=True)
    source, dataset, runs = args.out / "scans", args.out / "dataset", args.out / "runs"
    others = args.out / "other-scans"
    fonts = ["--fonts", str(args.fonts)] if args.fonts else []
    local = ["--cluster", "local", "--gpus-per-node", "0"]
    ranks = [*local, "--tasks-per-node", "2"]

    def train(model: str, *options: str) -> list[str]:
        recipe = ["--config", f"demo-{model}"]
        return ["submit", "train", *ranks, str(dataset), *recipe, "--run", str(runs / model), *options]

    def tune(model: str) -> list[str]:
        return ["tune", "--run", str(runs / model), "--device", "cpu"]

    def evaluate(model: str, decode: str) -> list[str]:
        run_folder = ["--run", str(runs / model), "--decode", decode, "--name", decode, "--device", "cpu"]
        return ["submit", "evaluate", *ranks, str(dataset), *run_folder]

    simulated = ["simulate", "--out", str(source), "--certificates", str(args.certificates), *fonts]
    more = ["simulate", "--out", str(others), "--certificates", str(OTHERS), "--first", "10000", *fonts]
    read = ["transcribe", str(others / "pages"), "--unit", "field", "--out", str(args.out / "texts.csv")]
    read += ["--model", str(runs / "ctc"), "--decode", "beam"]
    steps = [
        ("simulated certificates", simulated if not (source / "certificates.csv").exists() else None),
        ("shards, by two workers", ["preprocess", str(source / "certificates.csv"), "--out", str(dataset),
                                    "--unit", "field", "--shares", SHARES, "--rows", "1000", "--workers", "2"]),
        ("the CTC reader, by two Horovod ranks", train("ctc")),
        ("the attention reader, from the CTC reader's encoder", train("attention", "--init-from",
                                                                      str(runs / "ctc"))),
        ("a language model, its weights found on dev", tune("ctc")),
        ("evaluation, CTC, greedy", evaluate("ctc", "greedy")),
        ("evaluation, CTC, beam search with the language model", evaluate("ctc", "beam")),
        ("the attention decoder's second opinion, its weight found on dev", tune("attention")),
        ("evaluation, attention, greedy", evaluate("attention", "greedy")),
        ("evaluation, attention, beam search with the language model and the decoder", evaluate("attention", "beam")),
        ("a report that compares them", ["report", str(runs / "ctc"), str(runs / "attention"),
                                         "--out", str(args.out / "report.html")]),
        ("other certificates", more if not (others / "certificates.csv").exists() else None),
        ("their fields, from scan to text", read),
    ]  # fmt: skip
    for number, (title, argv) in enumerate(steps, start=1):
        log(f"\n[{number}/{len(steps)}] {title}")
        code = run(argv) if argv else 0
        if code:
            return code
    show(runs)
    log(f"\n{(time.monotonic() - began) / 60:.1f} minutes; everything lies in {args.out.resolve()}/")
    log("  scans/pages/*.jpg     the certificates, with what a typist would have in certificates.csv")
    log("  dataset/              shards, plan and index")
    log("  runs/*/model/         the readers; metrics.jsonl, decoding/ and evaluation/ beside them")
    log("  report.html           the two readers side by side; python -m jobs report RUN makes one of each")
    log("  texts.csv             what stands in the fields of other-scans/, with confidences")
    return 0


def show(runs: Path) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table(title="simulated certificates never seen, split val")
    for column in ("reader", "decoding", "ranks", "lines", "CER %", "WER %", "lines right %"):
        table.add_column(column, justify="left" if column in ("reader", "decoding") else "right")
    for model, decode in (("ctc", "greedy"), ("ctc", "beam"), ("attention", "greedy"), ("attention", "beam")):
        path = runs / model / "evaluation" / decode / "metrics.json"
        metrics, status = (
            json.loads(path.read_text(encoding="utf-8")),
            json.loads((runs / model / "status.json").read_text(encoding="utf-8")),
        )
        rates = [f"{100 * metrics[name]:.1f}" for name in ("cer", "wer", "line_accuracy")]
        table.add_row(model, decode, str(status["world"]), str(metrics["lines"]), *rates)
    Console().print(table)
