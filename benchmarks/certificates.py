"""From scan to text on semi-real certificates, beside the same handwriting read as clean crops.

    python benchmarks/certificates.py --handwriting HANDWRITING --model MODEL [--certificates 200] [--severity light]
        [--simulated 100] [--fonts FONTS] [--seen TABLE …] [--decoding DECODING] [--seed 0]

Semi-real: lines of HANDWRITING/lines.csv (`--where`: the writers of copiste's val, no flags) are cut by forced
alignment with this reader into pieces of 5 to 30 characters, at gaps between words; the twentieth of the lines whose
text fits worst is left out. The pieces are multiplied onto the forms adult-2018 (ruled) and neonatal-2018 (boxed), a
writer a certificate, one piece a line, scanned at the severity, stored as JPEG, and read the whole way: registered,
fields cut, lines found, read, joined. Clean: the same pieces, as they were cut from their line, read one by one and
joined as the field's text is. CER of the fields' text, over the same fields; a scan that is refused counts as nothing
read.
Blank fields are text fields that nothing was written in: false text is the share of them that get a text, found ink
the share that has ink which is taken for lines, whatever the reader says of it, rejected ink the share of those that
preprocess rejects without --stray blank, since it does not look like stamps, folds, hairs and specks alone. Missed
writing is the share of the written fields that would count as such ink if nobody had typed a text.

Simulated: certificates of handwriting fonts held out of training (simulate --hands held-out). Their texts are drawn
anew from the grammar of causes; fields whose text is in a table that --seen names (the training's) are left out.
Numbers are their fields of durations, dates, ages and weights: how many are read to the letter, and how many say the
same value ("3 j", "3 jours"). Tick boxes are those of both kinds of certificates.

Intervals are 95 %, by writer. The last line is JSON, rates as fractions, `difference` in points.
"""

import argparse
import json
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import cv2
import numpy as np
from pieces import write_pieces

from htr.forms.field_content import RULING_MODES, is_stray
from htr.forms.fields import DeskewedScan
from htr.forms.registration import Forms
from htr.forms.template import load_templates
from htr.io.given import Lines
from htr.io.sources import read_source
from htr.lines.normalise import RejectedInput
from htr.metrics.error_rates import compare
from htr.metrics.intervals import difference_interval, ratio_interval
from htr.metrics.values import parse as value_of
from htr.reader import Reader
from htr.scan import CutField, FieldText, cut_registered
from htr.synth.simulate import Certificate, certificate, chosen_hands

LEASTS = (0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7)
NUMBERS = ("weight", "gestation", "age")
FORM = "adult-2018,neonatal-2018"  # ruled, boxed


@dataclass
class Field:
    """A written field as it was read."""

    name: str
    writer: str
    characters: int
    edits: int  # the whole way
    clean: int  # of its pieces as clean crops
    lines: int
    found: list[tuple[float, str]]  # confidence and text of the lines that were read
    text: str


@dataclass
class Read:
    """What came of some certificates."""

    fields: list[Field] = field(default_factory=list)
    blank: list[tuple[str, float]] = field(default_factory=list)  # writer, confidence of what it got; 0: no text
    inked: int = 0  # blank fields with ink that was taken for lines
    rejected: int = 0  # of those the ones that don't look like stray ink alone
    missed: int = 0  # written fields whose ink does
    ticks: list[bool] = field(default_factory=list)  # whether each box is read as it was ticked
    scans: int = 0
    refused: int = 0


def stored(made: Certificate) -> np.ndarray:
    """The scan as it comes back from its JPEG."""
    options = [cv2.IMWRITE_JPEG_QUALITY, made.scan.quality]
    return cv2.imdecode(cv2.imencode(".jpg", made.scan.image, options)[1], cv2.IMREAD_GRAYSCALE)


def read_all(made: Iterator[Certificate], reader: Reader, options, pieces: dict, seen: set[str]) -> Read:
    """`pieces`: (writer, text) -> image, of what is to be read as clean crops too. `seen`: texts not to be counted."""
    forms, result = Forms(load_templates()), Read()
    for one in made:
        result.scans += 1
        gray = stored(one)
        try:
            registration = forms.register(gray)
            cuts = cut_registered(gray, registration, options.rulings)
            texts = {entry.field: entry for entry in read_fields(cuts, reader, options.least)}
        except RejectedInput:
            result.refused += 1
            cuts, texts = [], {}
        upright = DeskewedScan(gray, registration) if texts else None
        lines = {cut.field.name: len(cut.images) for cut in cuts}
        writer, clean, written = one.page["writer"], {}, {}
        for line in one.lines:
            written.setdefault(line["field"], []).append(line["text"])
        if pieces:
            names = [(name, text) for name, parts in written.items() for text in parts]
            crops = [cv2.imread(str(pieces[writer, text]), cv2.IMREAD_GRAYSCALE) for _, text in names]
            readings = reader.read(crops, fields=[name for name, _ in names])
            for (name, _), reading in zip(names, readings, strict=True):
                clean.setdefault(name, []).append(reading.text)
        kinds = {entry.name: entry.kind for entry in load_template(one.page["form"]).fields}
        for row in one.typed:
            name, text = row["field"], row["text"]
            got = texts.get(name)
            if kinds[name] == "tick":
                result.ticks.append(got is not None and got.text == text)
            if kinds[name] == "tick" or text in seen:
                continue
            if text:
                errors = compare(text, got.text if got else "")
                beside = compare(text, " ".join(clean.get(name, []))).edits
                found = [(line.confidence, line.text) for line in got.lines] if got else []
                result.fields.append(
                    Field(name, writer, errors.characters, errors.edits, beside, len(written[name]), found, text)
                )
                result.missed += got is not None and is_stray(upright.cut(upright.template.field(name)))
            elif got:
                result.blank.append((writer, max((line.confidence for line in got.lines), default=0.0)))
                result.inked += lines[name] > 0
                result.rejected += lines[name] > 0 and not is_stray(upright.cut(upright.template.field(name)))
    return result


def read_fields(cuts: list[CutField], reader: Reader, least: float) -> list[FieldText]:
    """As read_scan reads what it has cut."""
    images = [(image, cut.field.name) for cut in cuts for image in cut.images]
    readings = iter(reader.read(Lines(image for image, _ in images), fields=[name for _, name in images]))
    return [cut.as_text([next(readings) for _ in cut.images], least) for cut in cuts]


def numbers(read: Read) -> dict:
    """Fields of durations, dates, ages and weights: CER, and how many are right to the letter and as a value."""
    some = [f for f in read.fields if f.name in NUMBERS or f.name.endswith("_interval")]
    texts = [(f.text, " ".join(text for _, text in f.found)) for f in some]
    values = [(value_of(text), value_of(got)) for text, got in texts]
    known = [one == other for one, other in values if one is not None]
    return {
        "numbers": len(some),
        "cer_numbers": rate([f.edits for f in some], [f.characters for f in some]),
        "numbers_right": rate([int(text == got) for text, got in texts], [1] * len(some)),
        "values": len(known),
        "values_right": rate(list(map(int, known)), [1] * len(known)),
    }


def load_template(name: str):
    return next(template for template in load_templates() if template.name == name)


def rate(edits: list[int], totals: list[int]) -> float:
    return sum(edits) / sum(totals) if sum(totals) else float("nan")


def shown(value: float, within: tuple[float, float] | None) -> str:
    about = f" ({100 * within[0]:.2f} to {100 * within[1]:.2f})" if within else ""
    return f"{100 * value:.2f}{about}"


def table(fields: list[Field]) -> None:
    """CER by how many lines a field has, and where as many were found."""
    kinds = {"all fields": fields, "of one line": [f for f in fields if f.lines == 1]}
    kinds |= {"of several lines": [f for f in fields if f.lines > 1]}
    kinds |= {"as many lines found": [f for f in fields if f.lines == len(f.found)]}
    kinds |= {"nothing read": [f for f in fields if not f.found]}
    print(f"{'':22}{'fields':>8}{'characters':>12}{'clean %':>9}{'scan %':>9}{'points':>8}")
    for name, some in kinds.items():
        characters = [f.characters for f in some]
        clean, scan = (100 * rate([getattr(f, kind) for f in some], characters) for kind in ("clean", "edits"))
        print(f"{name:22}{len(some):8d}{sum(characters):12d}{clean:9.2f}{scan:9.2f}{scan - clean:8.2f}")


def sweep(read: Read) -> None:
    """What false text and CER would be if lines read with less confidence counted as blank: what --least does."""
    characters = [f.characters for f in read.fields]
    print("least confidence: " + "".join(f"{least:8.2f}" for least in LEASTS))
    false = [rate([confidence >= least for _, confidence in read.blank if confidence], [1] * len(read.blank))
             for least in LEASTS]  # fmt: skip
    kept = [[" ".join(text for sure, text in f.found if sure >= least) for f in read.fields] for least in LEASTS]
    cer = [rate([compare(f.text, text).edits for f, text in zip(read.fields, texts, strict=True)], characters)
           for texts in kept]  # fmt: skip
    for name, values in (("false text %", false), ("CER %", cer)):
        print(f"{name:18}" + "".join(f"{100 * value:8.2f}" for value in values))


def over_writers(interval, errors: list[int], totals: list[int], writers: list[str]) -> tuple[float, float] | None:
    """Of lines, the interval over their writers."""
    names, group = np.unique(writers, return_inverse=True)
    found = interval(*(np.bincount(group, counts, len(names)) for counts in (errors, totals)))
    return found.pair if found else None


def figures(read: Read, name: str) -> dict:
    """CER and false text of some certificates, with intervals."""
    characters, writers = [f.characters for f in read.fields], [f.writer for f in read.fields]
    edits = [f.edits for f in read.fields]
    false = [int(confidence > 0) for _, confidence in read.blank]
    found = {f"cer_{name}": rate(edits, characters), "false": rate(false, [1] * len(false))}
    found |= {f"cer_{name}_interval": over_writers(ratio_interval, edits, characters, writers)}
    found |= {
        "false_interval": over_writers(ratio_interval, false, [1] * len(false), [writer for writer, _ in read.blank])
    }
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("--handwriting", type=Path, required=True, help="folder with lines.csv and its images")
    add("--where", default="collection=copiste,split=val", help="the rows of it (default: %(default)s)")
    add("--model", type=Path, required=True, help="a reader's folder")
    add("--decoding", type=Path, help="what tune made for it (default: greedy)")
    add("--certificates", type=int, default=200)
    add("--simulated", type=int, default=100, help="certificates of held-out fonts")
    add("--fonts", type=Path, help="a folder of handwriting fonts, in place of the installed ones")
    add("--seen", type=Path, nargs="*", default=[], help="tables whose texts were trained on")
    add("--form", default=FORM)
    add("--severity", default="light")
    add("--rulings", choices=RULING_MODES, default="keep", help="of the form, in the lines that are read")
    add("--least", type=float, default=0.0, help="confidence below which a line counts as blank")
    add("--seed", type=int, default=0)
    options = parser.parse_args()
    cv2.setNumThreads(1)
    reader = Reader.load(options.model, decoding=options.decoding)
    level = {"form": options.form, "severity": options.severity}

    with tempfile.TemporaryDirectory() as temporary:
        ink, counts = write_pieces(
            options.handwriting / "lines.csv", options.where, reader, Path(temporary), options.seed
        )
        rows = read_source(ink)[0].to_pylist()
        pieces = {(row["writer"], row["text"]): ink.parent / row["image"] for row in rows}
        made = (certificate(n, seed=options.seed, hands=[], ink=ink, **level) for n in range(options.certificates))
        real = read_all(made, reader, options, pieces, set())
    hands = chosen_hands(options.fonts, "held-out")
    seen = {text for path in options.seen for text in read_source(path)[0]["text"].to_pylist() if text}
    made = (certificate(n, seed=options.seed + 1, hands=hands, **level) for n in range(options.simulated))
    fonts = read_all(made, reader, options, {}, seen)

    characters, writers = [f.characters for f in real.fields], [f.writer for f in real.fields]
    clean, more = [f.clean for f in real.fields], [f.edits - f.clean for f in real.fields]
    result = figures(real, "scan") | {"cer_clean": rate(clean, characters), "difference": 100 * rate(more, characters)}
    result["cer_clean_interval"] = over_writers(ratio_interval, clean, characters, writers)
    within = over_writers(difference_interval, more, characters, writers)
    result["difference_interval"] = [100 * bound for bound in within] if within else None
    simulated = figures(fonts, "simulated")
    result |= {name: value for name, value in simulated.items() if name.startswith("cer")}
    result |= {"false_simulated": simulated["false"], "false_simulated_interval": simulated["false_interval"]}
    result = {name.replace("false", "false_text"): value for name, value in result.items()}
    result["found_ink"] = rate([real.inked], [len(real.blank)])
    result["rejected_ink"] = rate([real.rejected], [len(real.blank)])
    result["missed_writing"] = rate([real.missed], [len(real.fields)])
    ticks = real.ticks + fonts.ticks
    result |= numbers(fonts) | {"ticks": len(ticks), "ticks_right": rate([sum(ticks)], [len(ticks)])}

    print(f"{counts['lines']} lines of {counts['writers']} writers, {counts['aligned']} aligned, "
          f"{counts['pieces']} pieces; severity {options.severity}")  # fmt: skip
    table(real.fields)
    for name, read in (("semi-real", real), ("simulated", fonts)):
        false = sum(confidence > 0 for _, confidence in read.blank)
        print(f"{name}: {read.scans} scans, {read.refused} refused; of {len(read.blank)} blank fields {read.inked} "
              f"have ink that is taken for lines, {read.rejected} are rejected for it, {false} got text; "
              f"{read.missed} of {len(read.fields)} written ones would count as blank")  # fmt: skip
        sweep(read)
    print(f"CER %: clean {shown(result['cer_clean'], result['cer_clean_interval'])}, scan "
          f"{shown(result['cer_scan'], result['cer_scan_interval'])}, {result['difference']:+.2f} points; simulated "
          f"{shown(result['cer_simulated'], result['cer_simulated_interval'])}")  # fmt: skip
    print(f"numbers: {result['numbers']} fields, CER {100 * result['cer_numbers']:.2f} %, "
          f"{100 * result['numbers_right']:.1f} % right to the letter; of {result['values']} values "
          f"{100 * result['values_right']:.1f} % right; {result['ticks']} tick boxes, "
          f"{100 * result['ticks_right']:.2f} % right")  # fmt: skip
    print(json.dumps({name: rounded(value) for name, value in result.items()}))


def rounded(value):
    if isinstance(value, (list, tuple)):
        return [round(bound, 5) for bound in value]
    return None if value is None or value != value else round(value, 5)  # NaN is not JSON


if __name__ == "__main__":
    main()
