"""Run folders made up for the report and collect: every figure that an evaluation may have, none of them measured."""

import json
import math
import random
from pathlib import Path

HOSTILE = '<script>document.title = "taken"</script>"\'&'  # a name that would be markup


def write(path: Path, content: dict | list) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content))


def within(rate: float, wide: float = 0.18) -> list[float]:
    return [rate * (1 - wide), min(rate * (1 + wide), 1.0)]


def rates(cer: float, lines: int, clusters: int, wide: float = 0.2) -> dict:
    """A slice: counts, rates and intervals."""
    sums = {"lines": lines, "characters": 40 * lines, "edits": round(40 * lines * cer), "words": 7 * lines}
    found = {"cer": cer, "wer": min(3.4 * cer, 1.0), "line_accuracy": max(0.62 - 4 * cer, 0.01)}
    found |= {"interval": {name: within(rate, wide) for name, rate in found.items()}}
    more = {"word_edits": round(7 * lines * found["wer"]), "exact": round(lines * found["line_accuracy"])}
    return sums | more | found | {"clusters": clusters, "small": clusters < 5}


def metrics(cer: float = 0.0835, seed: int = 0, lines: int = 760, clusters: int = 38) -> dict:
    rng = random.Random(seed)
    headline = rates(cer, lines, clusters)
    del headline["clusters"], headline["small"], headline["interval"]
    edits = headline["edits"]
    headline |= {"substitutions": round(0.58 * edits), "insertions": round(0.19 * edits)}
    headline["deletions"] = edits - headline["substitutions"] - headline["insertions"]
    headline |= {"wer_unicode": 0.92 * headline["wer"], "field_accuracy": 0.21, "certificate_accuracy": 0.026}
    names = ("cer", "wer", "wer_unicode", "line_accuracy", "field_accuracy", "certificate_accuracy")
    interval = {name: within(headline[name]) for name in names}
    warning = f"Few clusters: {clusters} writers." if clusters < 40 else None
    interval |= {"groups": clusters, "unit": "writer", "method": "bootstrap-t", "level": 0.95, "warning": warning}
    lenient = {"as_is": 1, "case": 0.95, "accents": 0.9, "punctuation": 0.88, "lenient": 0.75}
    years = {str(year): rates(cer * (1 + 0.05 * (year - 2018)), 90 + year - 2018, 12) for year in range(2018, 2024)}
    drifts = {
        year: {
            "cer": part["cer"],
            "difference": part["cer"] - cer,
            "low": part["cer"] - cer - 0.012,
            "high": part["cer"] - cer + 0.012,
            "p": 0.2,
            "q": 0.4,
            "clusters": 12,
            "small": False,
        }
        for year, part in years.items()
        if year != "2018"
    }
    pairs = ("ée", "rn", "ae", "ou", "un", "sr", "ts", "lt", "\u2019'", ",.")
    confusions = [{"reference": a, "hypothesis": b, "count": 41 - 3 * place} for place, (a, b) in enumerate(pairs)]
    confusions[2:2] = [
        {"reference": "s", "hypothesis": "", "count": 38},
        {"reference": "", "hypothesis": " ", "count": 36},
    ]
    slices = {
        "year": years,
        "field": {
            name: rates(cer * rng.uniform(0.7, 1.4), lines // 5, clusters) for name in ("Ia", "Ib", "Ic", "Id", "II")
        },
        "form": {"adult": rates(0.97 * cer, 600, 31), HOSTILE: rates(1.3 * cer, 12, 2, 0.6)},
        "length": {
            name: rates(cer * rng.uniform(0.8, 1.5), 150, 30) for name in ("1-5", "6-10", "11-20", "21-40", "41-")
        },
        "writer": {
            f"writer-{rng.getrandbits(40):010x}": rates(cer * math.exp(rng.gauss(0, 0.5)), 20, 6, 0.4)
            for _ in range(clusters)
        },
    }
    classes = {
        name: {"characters": many, "missed": round(many * rate), "rate": rate, "interval": within(rate), "inserted": 9}
        for name, many, rate in (
            ("letters", 24000, 0.062),
            ("capitals", 1400, 0.14),
            ("accents", 900, 0.16),
            ("digits", 800, 0.05),
            ("punctuation", 1100, 0.21),
            ("space", 3900, 0.04),
        )
    }
    return {
        "split": "val",
        "decode": "greedy",
        "step": 14000,
        "dataset": "0123456789abcdef",
        "where": [],
        "batch": 16,
        **headline,
        "interval": interval,
        "macro": {
            "writer": {
                "groups": clusters,
                "cer": 1.08 * cer,
                "wer": 0.3,
                "interval": {"cer": within(1.08 * cer)},
                "quantiles": {"0.1": 0.03, "0.5": 0.075, "0.9": 0.17},
            },
            "certificate": None,
        },
        "normalised": {name: rates(cer * factor, lines, clusters) for name, factor in lenient.items()},
        "value": {
            "duration": {
                "lines": 90,
                "right": 80,
                "accuracy": 80 / 90,
                "exact": 70,
                "exact_accuracy": 70 / 90,
                "interval": [0.79, 0.95],
                "clusters": 30,
            }
        },
        "blank": {
            "lines": 100,
            "false_text": 3,
            "false_text_rate": 0.03,
            "interval": [0.01, 0.08],
            "written": lines,
            "read_blank": 2,
            "read_blank_rate": 2 / lines,
            "read_blank_interval": [0.0, 0.009],
        },
        "character_classes": classes,
        "confusions": confusions,
        "by": slices,
        "drift": {
            "first": "2018",
            "years": drifts,
            "previous": {},
            "trend": {"per_year": 0.003, "low": -0.001, "high": 0.007, "p": 0.1},
        },
        "unseen": {"words": 1564, "missed": 870, "rate": 870 / 1564},
    }


def reliability(folder: Path, threshold: float | None = 0.9731) -> None:
    """promise.json and reliability.json; without a threshold nothing can be promised."""
    judged = {"evaluation": "test", "split": "test", "items": 800, "accepted": 330, "coverage": 0.4125, "errors": 5}
    judged |= {"total": 330, "rate": 5 / 330, "low": 0.005, "high": 0.035}
    sequence = [
        {
            "threshold": 0.999 - 0.013 * k,
            "accepted": 160 + 85 * k,
            "errors": k,
            "total": 160 + 85 * k,
            "rate": k / (160 + 85 * k),
            "clusters": 30,
            "p": 0.03 + 0.01 * k,
            "passed": k < 3,
        }
        for k in range(4)
    ]
    text = (
        "Of the lines accepted (probability at least 0.9731) at most 2 % differ from the transcription; this holds "
        "with probability 95 %."
    )
    none = "With 343 lines no threshold passes: 149 accepted lines without an error would be the least."
    write(
        folder / "promise.json",
        {
            "format": 2,
            "unit": "line",
            "loss": "wrong",
            "alpha": 0.02,
            "delta": 0.05,
            "threshold": threshold,
            "promise": text if threshold else none,
            "test": "binomial",
            "clusters": {"by": "writer", "count": 38},
            "assumes": "The lines to come are of writers like those of these data, written in the same years.",
            "sequence": sequence,
            "coverage": 0.41 if threshold else None,
            "needed": 149,
            "chosen": {"evaluation": "calibration", "split": "calibration", "lines": 800, "groups": 38, "by": "writer"},
            "judged": judged if threshold else None,
            "drift": {"p": 0.41, "signals": {}, "warns": threshold is None},
        },
    )

    def score(power: float, share: float) -> dict:
        bins = []
        for k in range(10):
            low, high = (k / 10) ** 0.6, ((k + 1) / 10) ** 0.6
            middle = (low + high) / 2
            right = middle**power
            bins.append(
                {
                    "low": low,
                    "high": high,
                    "items": 76,
                    "predicted": middle,
                    "right": right,
                    "right_low": max(right - 0.06, 0),
                    "right_high": min(right + 0.06, 1),
                }
            )
        curve = [
            {
                "coverage": k / 50,
                "risk": share * (k / 50) ** (1 + power / 3),
                "threshold": 1 - k / 60,
                "cer": 0.14 * share * (k / 50) ** (power / 2),
            }
            for k in range(1, 51)
        ]
        ece = {
            "value": 0.02 + 0.1 * (power - 1),
            "debiased": 0.012 + 0.1 * (power - 1),
            "ideal": 0.026,
            "low": 0.0,
            "high": 0.1,
        }
        one = {"value": 0.1 * power, "low": 0.08 * power, "high": 0.12 * power}
        return {"ece": ece, "brier": one, "log_loss": one, "aurc": one, "bins": bins, "risk_coverage": curve}

    scores = {"confidence": score(2.0, 0.6), "frames": score(1.5, 0.62), "calibrated": score(1.0, 0.6)}
    units = {
        name: {"items": items, "right": right, "scores": scores}
        for name, items, right in (("line", 760, 0.4), ("word", 5200, 0.77), ("certificate", 38, 0.03))
    }
    write(
        folder / "reliability.json",
        {"format": 1, "evaluation": "test", "split": "test", "by": "writer", "groups": 38, "units": units},
    )


def run(folder: Path, cer: float = 0.0835, world: int = 4, speed: float = 1200.0, seed: int = 0, **config) -> Path:
    """A run that was trained in two starts, with one evaluation, `val`."""
    rng = random.Random(seed)
    asked = {
        "model": "ctc",
        "size": "small",
        "batch": 32,
        "lr": 0.002,
        "steps": 400,
        "seed": seed,
        "where": ["flags="],
        "folder": "data/certificates",
        "dataset": "0123456789abcdef",
        "alphabet": "abc",
        "split": "train",
        "mix": [],
        "text": None,
    }
    write(folder / "config.json", asked | config)
    status = {
        "job": "4711",
        "state": "finished",
        "world": world,
        "step": 400,
        "steps": 400,
        "lines_per_s": speed,
        "dev_cer": 1.1 * cer,
        "begun": "2026-11-20T09:00:00+0100",
        "seconds": 1800.0,
    }
    write(folder / "status.json", status)
    start = {
        "begun": "2026-11-20T08:00:00+0100",
        "job": "4711",
        "code": "b60f05d7a1c2",
        "digest": "0123456789ab",
        "versions": {"torch": "2.13.0", "horovod": "0.28.1"},
        "dataset": "0123456789abcdef",
        "world": world,
        "hosts": [f"node{k}" for k in range(max(world // 4, 1))],
        "device": "cuda",
        "cpus": 8 * world,
    }
    write(folder / "provenance.json", {"starts": [start | {"seconds": 1800.0}, start | {"begun": status["begun"]}]})
    with open(folder / "metrics.jsonl", "w") as file:
        for step in range(10, 401, 10):
            line = {
                "step": step,
                "epoch": step / 100,
                "lr": 2e-3 * (1 - step / 401),
                "loss": 3 * math.exp(-step / 90) + 0.2,
                "lines_per_s": speed * rng.uniform(0.95, 1.04),
                "data_share": 0.02,
                "exchange_share": 0.1,
                "compute_share": 0.8,
                "time": 1.7e9 + step,
            }
            print(json.dumps(line), file=file)
            if step % 100 == 0:
                print(
                    json.dumps({"step": step, "dev_cer": cer + 40 / step**1.3, "dev_wer": 3 * cer + 60 / step**1.3}),
                    file=file,
                )
    write(folder / "evaluation" / "val" / "metrics.json", metrics(cer, seed))
    write(folder / "evaluation" / "val" / "timing.json", {"lines": 760, "lines_per_s": 81.2, "cores": [1]})
    return folder
