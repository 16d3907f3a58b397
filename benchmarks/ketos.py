"""kraken for benchmarks/readers.py: `ketos train` and `ketos test` as processes of their own, stopped and timed."""

import argparse
import re
import shutil
import signal
import subprocess
import time
from pathlib import Path

BATCH = 16


def ketos(args: argparse.Namespace, *words: object) -> list[str]:
    command = [args.kraken / "bin" / "ketos", "-d", "cpu", "--threads", args.cores, "--workers", 1, "-s", 1, *words]
    return [str(word) for word in command]


def train_kraken(args: argparse.Namespace, lists: dict[str, list[Path]]) -> dict:
    """`--minutes` of ketos train, its first ones reading the lines' texts included as our preprocess is in ours."""
    folder, log = args.work / "kraken" / "model", args.work / "kraken" / "train.log"
    shutil.rmtree(folder, ignore_errors=True)
    data = args.work / "kraken"
    command = ketos(args, "train", "-f", "path", "-B", BATCH, "-o", folder, "-q", "fixed", "-N", 10_000,
                    "-t", data / "train" / "list.txt", "-e", data / "dev" / "list.txt")  # fmt: skip
    # one that a shell started in the background ignores SIGINT, and so would what it starts
    signal.signal(signal.SIGINT, signal.default_int_handler)
    began = time.monotonic()
    with open(log, "w", encoding="utf-8") as out:
        process = subprocess.Popen(command, stdout=out, stderr=subprocess.STDOUT, cwd=data)
        try:
            process.wait(60 * args.minutes)
            raise SystemExit(f"ketos train ended by itself, see {log}")
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGINT)
            seconds = time.monotonic() - began
            process.wait(3600)  # it may be in the middle of reading dev
        finally:
            process.kill()
    model = weights_of(args)
    # the checkpoint is this benchmark's own, and kraken's own environment opens it
    ask = f"import torch; print(torch.load({str(model)!r}, map_location='cpu', weights_only=False)['global_step'])"
    steps = int(output([args.kraken / "bin" / "python", "-c", ask]).split()[-1])
    return {
        "kraken_s": seconds,
        "kraken_lines_per_s": BATCH * steps / seconds,
        "kraken_dev": test_kraken(args, data / "dev" / "list.txt")["cer"],
        "kraken_val": test_kraken(args, data / "val" / "list.txt")["cer"],
    }


def weights_of(args: argparse.Namespace) -> Path:
    """The newest weights of its training: those of the SIGINT, or of the epoch that ended with it."""
    folder = args.work / "kraken" / "model"
    found = sorted(folder.glob("checkpoint_*.ckpt"), key=lambda path: path.stat().st_mtime)
    if not found:
        raise SystemExit(f"no weights in {folder}: run --only train first, or see train.log beside it")
    return found[-1]


def test_kraken(args: argparse.Namespace, images: Path) -> dict[str, float]:
    """-> its CER (edits of all lines by their characters) and the seconds of the whole process."""
    model = weights_of(args)
    began = time.monotonic()
    told = output(ketos(args, "test", "-f", "path", "-B", BATCH, "-m", model, "-e", images))
    seconds = time.monotonic() - began
    found = {name: re.search(rf"(\d+)\s+{name}", told) for name in ("Characters", "Errors")}
    if not all(found.values()):
        raise SystemExit(f"ketos test did not report characters and errors:\n{told[-1000:]}")
    return {"cer": int(found["Errors"][1]) / int(found["Characters"][1]), "seconds": seconds}


def output(command: list) -> str:
    done = subprocess.run(list(map(str, command)), capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"{command[0]} failed:\n{(done.stdout + done.stderr)[-2000:]}")
    return done.stdout + done.stderr
