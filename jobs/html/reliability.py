"""Calibration of confidences: reliability diagrams, risk-coverage curves, promises.

Of each RUN/reliability/NAME; one made for other weights or another decoding than the evaluation on the page says so.
"""

from pathlib import Path

from jobs.html import known, number, pair, percent, plot
from jobs.training.run_status import clean, read

SCORES = {
    "confidence": ("as the reader gives it", 6),
    "frames": ("mean probability", 5),
    "calibrated": ("calibrated", 1),
}
SHORT = {"confidence": "as given", "frames": "mean probability", "calibrated": "calibrated"}
UNITS = {"line": "lines", "word": "words", "field": "fields", "certificate": "certificates", "character": "characters"}
MEASURES = (("ece", "calibration error"), ("brier", "Brier score"), ("log_loss", "log loss"), ("aurc", "area"))


def view(run: Path, metrics: dict | None = None) -> list[dict]:
    """The figures of each folder with a promise or reliability figures; `damaged` says why one can't be shown.
    `metrics`: of the evaluation that is shown beside them."""
    found = []
    for folder in sorted(path for path in run.glob("reliability/*") if path.is_dir()):
        try:
            parts = {name: read(folder / f"{name}.json") for name in ("promise", "reliability")
                     if (folder / f"{name}.json").exists()}  # fmt: skip
            if (parts.get("promise") or {}).get("format") == 1:
                raise ValueError("a promise of an older version, whose test did not hold: calibrate again")
            if parts:
                other = made_for_another(parts.get("promise") or {}, metrics or {})
                found.append({"name": folder.name, "damaged": None, "other": other, **shown(**parts)})
        except (ValueError, KeyError, TypeError, AttributeError, OSError) as error:
            nothing = {"promise": None, "units": [], "of": None, "other": False}
            found.append({"name": folder.name, "damaged": clean(f"{type(error).__name__}: {error}"), **nothing})
    return found


def made_for_another(promise: dict, metrics: dict) -> bool:
    """Whether the promise is for another reader, or other conditions, than those of the evaluation."""
    model = promise.get("conditions") or promise.get("model") or {}
    return bool(model and metrics) and any(
        model.get(name) != metrics.get(name) for name in ("weights", "decode", "decoding")
    )


def warnings(found: list[dict]) -> list[str]:
    said = []
    for one in found:
        if one["other"]:
            said.append(f"Promise {one['name']} is of other weights or another decoding than this evaluation.")
        if one["promise"] and one["promise"]["none"]:
            said.append(f"Promise {one['name']}: nothing can be promised with these data.")
        if one["promise"] and one["promise"]["drift"]:
            said.append(f"Promise {one['name']}: the readings have drifted since its threshold was chosen.")
    return said


def shown(promise: dict | None = None, reliability: dict | None = None) -> dict:
    units = [unit(name, figures, promise) for name, figures in (reliability or {}).get("units", {}).items()]
    of = reliability and {name: reliability.get(name) for name in ("evaluation", "split", "by", "groups")}
    return {"promise": promise and promised(promise), "units": units, "of": of}


def promised(promise: dict) -> dict:
    judged = promise.get("judged") or None
    drift = promise.get("drift") or {}
    return {
        "text": promise["promise"],
        "assumes": promise.get("assumes"),
        "none": promise.get("threshold") is None,
        "threshold": promise.get("threshold"),
        "units": UNITS.get(promise["unit"], promise["unit"]),
        "loss": "of the characters" if promise.get("loss") == "cer" else "",
        "alpha": promise["alpha"],
        "delta": promise["delta"],
        "needed": promise.get("needed"),
        "coverage": promise.get("coverage"),
        "judged": judged,
        "within": judged and pair(judged.get("low"), judged.get("high")),
        "clusters": promise.get("clusters") or {},
        "sequence": promise.get("sequence") or [],
        "drift": drift.get("warns") and drift,
    }


def unit(name: str, figures: dict, promise: dict | None) -> dict:
    """The tables and charts of one kind of unit: lines, words, fields or certificates."""
    words = UNITS.get(name, name)
    scores = {score: figures["scores"][score] for score in SCORES if score in figures["scores"]}
    diagrams = [
        {"title": f"{SCORES[score][0].capitalize()}: right, %", "svg": diagram(content["bins"], words, SCORES[score])}
        for score, content in scores.items()
        if content.get("bins") and score != "frames"
    ]
    rows = []
    for score, content in scores.items():
        measures = {}
        for measure, _ in MEASURES:
            one = content.get(measure) or {}
            value = one.get("debiased") if measure == "ece" else one.get("value")
            measures[measure] = {"value": value, "within": pair(one.get("low"), one.get("high"))}
        rows.append({"name": SCORES[score][0], "colour": SCORES[score][1], "measures": measures})
    charts = [
        (title, over_coverage(name, scores, promise, risk))
        for title, risk in (("Wrong among the accepted, %", "risk"), ("CER of the accepted, %", "cer"))
    ]
    charts = [{"title": title, "svg": svg} for title, svg in charts if svg]
    return {"unit": name, "words": words, "items": number(figures, "items"), "right": number(figures, "right"),
            "charts": charts + diagrams, "rows": rows}  # fmt: skip


def diagram(bins: list[dict], words: str, score: tuple[str, int]) -> plot.Markup:
    share = plot.Scale(0, 1, form="{:g}", factor=100)
    spots = [(one["predicted"], one["right"]) for one in bins]
    tips = [
        f"{one['items']} {words}, confidence {percent(one['predicted'], 1)}: {percent(one['right'], 1)} right"
        for one in bins
    ]
    within = [pair(one.get("right_low"), one.get("right_high")) for one in bins]
    density = [one["items"] / max(one["high"] - one["low"], 1e-3) for one in bins]
    bars = [
        (one["low"], one["high"], thick / max(density), tip)
        for one, thick, tip in zip(bins, density, tips, strict=True)
    ]
    series = plot.Series(score[0], spots, "points", score[1], intervals=within, tips=tips)
    guides = [((0, 0), (1, 1), "")]
    title = f"Reliability diagram of the confidence {score[0]}: share of {words} that are right, by confidence"
    return plot.Chart(title, share, share, [series], "confidence, %", guides, bars, labelled=False).svg()


def over_coverage(name: str, scores: dict, promise: dict | None, risk: str) -> plot.Markup | None:
    """Risk-coverage curve: the rate of errors among what is accepted, the surest first. `risk`: "risk" or "cer", as
    risk_coverage has it.

    A promise about this figure is drawn too: what was promised, and how it came out where it was judged.
    """
    words, what = UNITS.get(name, name), {"risk": "wrong", "cer": "CER"}[risk]
    series, values, guides = [], [], []
    for score, content in scores.items():
        spots = [(one["coverage"], one[risk]) for one in content.get("risk_coverage") or () if known(one.get(risk))]
        tips = [f"{SHORT[score]}: of {percent(x, 0)} accepted, {what} {percent(y)}" for x, y in spots]
        values += [y for _, y in spots]
        series.append(plot.Series(SHORT[score], spots, "line", SCORES[score][1], score != "calibrated", tips=tips))
    if not values:
        return None
    if promise and promise["unit"] == name and promise.get("loss") == {"risk": "wrong", "cer": "cer"}[risk]:
        guides = [((0, promise["alpha"]), (1, promise["alpha"]), f"promised: {percent(promise['alpha'], 1)}")]
        judged = promise.get("judged") or {}
        values.append(promise["alpha"])
        if known(judged.get("rate")) and known(judged.get("coverage")):
            tip = f"accepted as promised: {percent(judged['coverage'], 0)}, {what} {percent(judged['rate'])}"
            within, spot = pair(judged.get("low"), judged.get("high")), (judged["coverage"], judged["rate"])
            series.append(plot.Series("", [spot], "points", 2, intervals=[within], tips=[tip]))
            values += [spot[1], *(within or ())]
    share = {"form": "{:g}", "factor": 100}
    x, y = plot.Scale(0, 1, **share), plot.scale_of(values, root=risk == "risk", **share)
    title = f"Risk-coverage curve: {what} among the accepted {words}, by the share accepted"
    return plot.Chart(title, x, y, series, f"{words} accepted, %", guides).svg()
