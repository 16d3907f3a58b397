"""The page that `inspect` writes: pictures of every stage of one certificate, in one HTML file."""

import base64
import contextlib
import html
from itertools import groupby
from pathlib import Path

import cv2
import numpy as np

from htr.forms.fields import DeskewedScan, enlarging
from htr.forms.prepared import prepare_forms
from htr.forms.tick_boxes import read_tick
from htr.lines.normalise import RejectedInput
from htr.lines.rulings import remove_rulings
from htr.lines.segmentation import find_lines
from shards.samples import LEVELS, make_samples
from shards.scans import Scans

STYLE = """
body { font: 15px/1.45 system-ui, sans-serif; margin: 2rem auto; max-width: 1200px; padding: 0 1rem; color: #222 }
h1 { font-size: 1.4rem }
h2 { font-size: 1.1rem; margin: 2.2rem 0 .4rem; border-top: 1px solid #ccc; padding-top: .8rem }
img { max-width: 100%; border: 1px solid #ddd; display: block } figure { margin: .5rem 0 } figcaption { color: #666 }
.bad { color: #a00 } .good { color: #060 } code { background: #f3f3f3; padding: 0 .3em }
"""
GREEN, RED, BLUE = (0, 140, 0), (0, 0, 200), (200, 90, 0)


def describe(rows: list[dict], images: Path, settings, forms: Path | None) -> str:
    """The page for one certificate. `rows`: its rows (see shards.plan.Plan.rows)."""
    prepared = prepare_forms(forms) if settings.unit == "field" else None
    outcomes: dict[tuple, list[str]] = {}  # what is stored or rejected of a field, of one image and its page
    rejected = 0
    for row, result in make_samples(rows, images, settings, prepared):
        if isinstance(result, str):
            rejected += 1
            outcomes.setdefault((row["image"], row["page"], row["field"]), []).append(rejected_part(row, result))
        for sample in result if isinstance(result, list) else ():
            name = sample.note["image"], row.get("page", rows[0]["page"]), sample.note["field"]
            outcomes.setdefault(name, []).append(sample_part(sample, settings))
    scans, parts = Scans(images), []
    for (image, page), group in groupby(rows, key=lambda row: (row["image"], row["page"])):
        parts.append(f"<h2>Scan <code>{html.escape(image)}</code> {html.escape(page)}</h2>")
        try:
            group = list(group)
            scan = scans.read(image, page, group[0].get("page_size") or "")
            shown, stages = scan_part(scans, scan, group, prepared)
        except RejectedInput as reason:
            shown, stages = f"<p class=bad>{html.escape(str(reason))}</p>", {}
        parts.append(shown)
        for field, stage in stages.items():
            parts += [stage, *outcomes.pop((image, page, field), [])]
        left = [name for name in outcomes if name[:2] == (image, page)]
        parts += [part for name in left for part in outcomes.pop(name)]
    title = f"Certificate {html.escape(rows[0]['certificate'])}"
    head = f"<!doctype html><html lang=en><meta charset=utf-8><title>{title}</title><style>{STYLE}</style>"
    summary = f"<p>{len(rows)} rows, {rejected} rejected. Confidential: this page shows the certificate.</p>"
    return f"{head}<h1>{title}</h1>{summary}{''.join(parts)}</html>"


def scan_part(scans: Scans, scan: np.ndarray, rows: list[dict], forms) -> tuple[str, dict[str, str]]:
    """-> the scan with the boxes that were given or found, and the stages of each field by name."""
    shown = cv2.cvtColor(scan, cv2.COLOR_GRAY2BGR)
    thick = max(scan.shape[1] // 800, 1)
    note, stages = f"{scan.shape[1]} x {scan.shape[0]} px", {}
    if forms is None or any(row["box"] or row["polygon"] for row in rows):
        for row in rows:
            with contextlib.suppress(RejectedInput):  # it is said where the row is
                _, region = scans.cut_from(row)
                if region and region.polygon is not None:
                    cv2.polylines(shown, [region.polygon], True, GREEN, thick)
                elif region:
                    cv2.rectangle(shown, (region.x, region.y, region.w, region.h), GREEN, thick)
        return figure(shown, note), stages
    try:
        registration = forms.register(scan)
    except RejectedInput as reason:
        return figure(shown, note) + f"<p class=bad>{html.escape(str(reason))}</p>", stages
    note += f"; form {registration.template.name}, {registration.score:.0%} of its keypoints in their place"
    upright = DeskewedScan(scan, registration)
    for field in registration.template.fields:
        with contextlib.suppress(RejectedInput):
            cut = upright.cut(field)
            x, y, w, h = cut.on_scan(cut.box)
            cv2.rectangle(shown, (x, y, w, h), BLUE if field.kind == "tick" else GREEN, thick)
            stages[field.name] = tick_stage(field, cut) if field.kind == "tick" else text_stages(field, cut)
    return figure(shown, html.escape(note)), stages


def tick_stage(field, cut) -> str:
    tick = read_tick(cut.image, cut.printed)
    said = "ticked" if tick.ticked else "not ticked"
    return f"<h2>Tick box {html.escape(field.name)}: {said} ({tick.score:.2f})</h2>" + figure(cut.raw, "cut out")


def text_stages(field, cut) -> str:
    image = cut.image
    found = find_lines(image, cut.printed, box=cut.box, pitch=cut.pitch, most=field.lines)
    shown = cv2.cvtColor(image, cv2.COLOR_GRAY2BGR)
    cv2.rectangle(shown, tuple(cut.box), GREEN, 1)
    for line in found:
        cv2.rectangle(shown, tuple(int(v) for v in line.box), RED, 2)
    factor = enlarging(cut.pitch)
    stored = "as it is" if factor == 1 else f"{factor:.2f} times as large"
    lines = f"{len(found)} lines" if len(found) != 1 else "1 line"
    return (
        f"<h2>Field {html.escape(field.name)}: {lines if found else 'blank'}</h2>"
        + figure(cut.raw, f"cut out upright; a line's pitch is {cut.pitch:.0f} px, stored {stored}")
        + figure(remove_rulings(image, cut.printed, pitch=cut.pitch), "evened, print removed to find lines")
        + figure(shown, "the field (green) and its lines (red)")
    )


def rejected_part(row: dict, reason: str) -> str:
    where = " ".join(filter(None, (row["field"], row["line"])))
    return f"<p>Row {row['row']}, {html.escape(where)}: <span class=bad>rejected: {html.escape(reason)}</span></p>"


def sample_part(sample, settings) -> str:
    gray = cv2.imdecode(np.frombuffer(sample.image, np.uint8), cv2.IMREAD_GRAYSCALE)
    whose = "not listed in the source" if sample.row is None else f"row {sample.row}"
    size = f"{sample.width} x {sample.height} px, {len(sample.image) / 1000:.1f} kB of {settings.encoding}"
    text = f": <b>{html.escape(sample.text)}</b>" if sample.text else ""
    return f"<p>Stored, {whose}: <span class=good>{LEVELS[sample.level]}</span>{text}</p>" + figure(gray, size)


def figure(picture: np.ndarray, caption: str) -> str:
    """`caption` is HTML."""
    if picture.shape[1] > 1600:
        size = (1600, max(round(picture.shape[0] * 1600 / picture.shape[1]), 1))
        picture = cv2.resize(picture, size, interpolation=cv2.INTER_AREA)
    content = base64.b64encode(cv2.imencode(".png", picture)[1].tobytes()).decode()
    return f'<figure><img src="data:image/png;base64,{content}" alt=""><figcaption>{caption}</figcaption></figure>'
