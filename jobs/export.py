"""python -m jobs export --run RUN --out reader.onnx: a CTC reader as one ONNX file, for programs without PyTorch.

The file is checked against the reader before it gets its name. Needs `pip install -e '.[onnx]'`; reading with it needs
onnxruntime, numpy and OpenCV:

    import json, cv2, numpy, onnxruntime
    from htr.lines.normalise import normalise_line

    session = onnxruntime.InferenceSession("reader.onnx")
    known = session.get_modelmeta().custom_metadata_map
    ink = normalise_line(cv2.imread("line.png", cv2.IMREAD_GRAYSCALE), int(known["height"]))
    images = numpy.pad(ink, ((0, 0), (0, -ink.shape[1] % int(known["width_multiple"]))))[None, None]
    log_probs, lengths = session.run(None, {"images": images, "widths": numpy.array([ink.shape[1]])})
    best = log_probs[0, : lengths[0]].argmax(1)
    kept = best[(best != numpy.roll(best, 1)) | (numpy.arange(len(best)) == 0)]
    print("".join(json.loads(known["alphabet"])[label - 1] for label in kept if label))
"""

import importlib.util
from dataclasses import dataclass
from pathlib import Path

from jobs.cli.console import log
from jobs.cli.settings import setting

NEEDED = ("onnx", "onnxscript", "onnxruntime")


@dataclass(frozen=True)
class Settings:
    run: Path | None = setting(None, "run whose model is exported", exclusive="required")
    model: Path | None = setting(None, "folder of a model", metavar="FOLDER", exclusive="required")
    out: Path = setting(Path("reader.onnx"), "file to write")


def main(args: Settings) -> int:
    lacking = [name for name in NEEDED if importlib.util.find_spec(name) is None]
    if lacking:
        raise ValueError(f"export needs {', '.join(lacking)}: pip install -e '.[onnx]'")
    from htr.export import check, to_onnx
    from htr.reader import Reader
    from jobs.training.adopted import model_in
    from shards import files

    reader = Reader.load(model_in(args.model or args.run))
    content = to_onnx(reader)
    agreed = check(content, reader)
    args.out.parent.mkdir(parents=True, exist_ok=True)
    files.replace(args.out, content)
    log(
        f"export: {args.out}, {len(content) / 2**20:.1f} MiB; {agreed.alike} of {agreed.lines} lines read alike, "
        f"probabilities differ by {agreed.difference:.1g} at most"
    )
    return 0
