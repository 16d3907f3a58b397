"""The page of `template check`: scores by form, what scans fail on, and a picture of each that does."""

import base64
from collections import Counter, defaultdict
from pathlib import Path

import cv2
import numpy as np

from htr.forms.form_check import Checked, Verdict, kind_of
from htr.forms.template import replace
from jobs.html import render

MAX_PICTURES = 60  # pictures at most


def write_page(
    path: Path, forms, templates, results: dict[str, tuple[Checked, np.ndarray | None]], verdict: Verdict
) -> None:
    """Write the page. `results`: by file name, the result of its check, and a small image of the scan if it failed."""
    rows = []
    for template in templates:
        own = [one for one, _ in results.values() if one.form == template.name]
        spread = [one.spread for one in own if one.spread is not None]
        scores = [one.scores[template.name] for one in own]
        others = Counter(max((name for name in one.scores if name != template.name), key=one.scores.get)
                         for one in own if len(one.scores) > 1)  # fmt: skip
        second = [
            max((value for name, value in one.scores.items() if name != template.name), default=0.0) for one in own
        ]
        rows.append({
            "name": template.name, "scans": len(own), "fields": len(template.fields), "marks": len(template.marks),
            "score": float(np.median(scores)) if scores else None, "least": min(scores, default=None),
            "second": float(np.median(second)) if second else None,
            "nearest": others.most_common(1)[0][0] if others else "",
            "spread": float(np.percentile(spread, 95)) if spread else None,
            "alike": sorted(other.template.name for other, _ in forms.similar_editions[template.name]),
        })  # fmt: skip
    failed = [(name, scan, one) for name, (one, scan) in results.items() if not one.form]
    groups = defaultdict(list)
    for name, scan, one in failed[:MAX_PICTURES]:
        groups[kind_of(one.reason)].append({"name": name, "reason": one.reason, "picture": picture(scan)})
    special = Counter(how for one, _ in results.values() if one.how for how in one.how.split(", "))
    page = render(
        "form_check.html", title="Forms and scans", rows=rows, groups=dict(groups), verdict=verdict,
        special=special.most_common(), scans=len(results), failed=len(failed), shown=min(len(failed), MAX_PICTURES),
    )  # fmt: skip
    path.parent.mkdir(parents=True, exist_ok=True)
    replace(path, page.encode())


def picture(scan: np.ndarray) -> str:
    encoded = cv2.imencode(".jpg", scan, [cv2.IMWRITE_JPEG_QUALITY, 70])[1]
    return f"data:image/jpeg;base64,{base64.b64encode(encoded.tobytes()).decode()}"
