"""Evaluations as jobs.evaluate leaves them, without a model: lines that are hard or easy, and signals that know it."""

import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

CANARY = "hemorragie cerebrale"  # in every text: no log and no message may have it
ASKED = {"dataset": "d" * 16, "where": [], "batch": 16, "weights": "a" * 16, "step": 3, "amp": "off", "decode": "beam",
         "decoding": "b" * 16, "device": "cpu", "passes": 1, "code": "c" * 16}  # fmt: skip
FIELDS = ("Ia", "Ib", "II")


def lines(seed: int, certificates: int, easy: float = 0.0, writers: int = 0, name: str = "c") -> pa.Table:
    """Three fields a certificate, two lines in the last. `easy`: how much easier than usual, of a spread of 2.5."""
    rng, rows = np.random.default_rng(seed), []
    for certificate in range(certificates):
        for field in FIELDS:
            for line in range(2 if field == "II" else 1):
                sure = 1 / (1 + np.exp(-(rng.normal(2.0 + easy, 2.5))))
                right = rng.random() < sure
                noisy = float(np.clip(sure + rng.normal(0, 0.02), 1e-4, 1 - 1e-4))
                text = f"{CANARY} {certificate:04d}"
                read = text if right else text.replace("r", "n", 1)
                matched = [one == other for one, other in zip(read.split(), text.split(), strict=True)]
                words = [float(np.clip(noisy + rng.normal(0, 0.05), 0, 1)) for _ in text.split()]
                rows.append({
                    "row": len(rows), "key": f"{name}{certificate}_{field}_{line}", "shard": "test-00000",
                    "certificate": f"{name}{certificate}", "field": field, "line": str(line),
                    "writer": f"{name}w{certificate % writers}" if writers else "", "reference": text,
                    "hypothesis": read, "word_right": matched, "confidence": noisy**2,
                    "exact": int(right), "edits": int(not right), "characters": len(text),
                    "signal_likelihood": noisy, "signal_frames": float(np.clip(noisy + rng.normal(0, 0.1), 0, 1)),
                    "signal_top_share": float(np.clip(rng.beta(1 + 3 * noisy, 1), 0, 1)),
                    "signal_width": rng.normal(18, 2), "signal_length": float(len(text)),
                    "word_confidence": words, "word_signal_length": [float(len(word)) for word in text.split()],
                })  # fmt: skip
    return pa.Table.from_pylist(rows)


def merged(table: pa.Table) -> pa.Table:
    """The same lines, but those of a field with several are one text: nobody knows what each of them says."""
    fields: dict[tuple[str, str], list[dict]] = {}
    for row in table.to_pylist():
        fields.setdefault((row["certificate"], row["field"]), []).append(row)
    rows = []
    for several in fields.values():
        row = dict(min(several, key=lambda line: line["confidence"]))
        if len(several) > 1:
            row |= {name: " ".join(line[name] for line in several) for name in ("reference", "hypothesis")}
            row |= {name: sum(line[name] for line in several) for name in ("edits", "characters")}
            row["exact"] = int(all(line["exact"] for line in several))
            row |= {n: [v for line in several for v in line[n]] for n in row if n.startswith("word_")}
            row |= {f"line_{n}": [line[n] for line in several] for n in several[0] if n.startswith("signal_")}
            row["line_words"] = [len(line["word_confidence"]) for line in several]
        rows.append(row)
    names = dict.fromkeys(name for row in rows for name in row)
    return pa.Table.from_pylist([dict.fromkeys(names) | row for row in rows])


def write(folder: Path, table: pa.Table, split: str, **asked: object) -> Path:
    (folder / "parts").mkdir(parents=True)
    half = len(table) // 2
    for number, piece in enumerate((table.slice(0, half), table.slice(half))):
        pq.write_table(piece, folder / "parts" / f"{split}-{number:05d}.parquet")
    (folder / "evaluation.json").write_text(json.dumps(ASKED | {"split": split} | asked))
    (folder / "metrics.json").write_text("{}")
    return folder


def run(folder: Path, sizes: dict[str, int], **options: object) -> Path:
    """A run with an evaluation a split, of so many certificates each, named as the split."""
    for seed, (split, size) in enumerate(sizes.items()):
        write(folder / "evaluation" / split, lines(seed, size, name=f"{split}-", **options), split)
    return folder
