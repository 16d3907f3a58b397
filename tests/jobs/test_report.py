"""The pages of report: in a browser that is driven, with names that would be markup, with texts that must not show."""

import json
import os
import re
import stat
from pathlib import Path

import cv2
import made
import pyarrow.parquet as pq
import pytest

from jobs.cli.command_line import main

# of a selector; checkVisibility alone takes a hidden <g> for visible
SHOWN = """[...document.querySelectorAll('%s')].filter((part) => part.checkVisibility() &&
           getComputedStyle(part).display !== 'none').length"""
CANARY = "Kanarienvogel Zyankali 4711"
WRITER = "Dr Geheimrat <b>Ypsilon</b>"


def report(*words: object) -> int:
    return main(["report", *map(str, words)])


@pytest.fixture(scope="module")
def page(tmp_path_factory) -> Path:
    """Of a run whose name, slices, state and settings would be markup."""
    folder = tmp_path_factory.mktemp("runs") / "a<b>&'c"
    run = made.run(folder, augment=made.HOSTILE)
    status = json.loads((run / "status.json").read_text(encoding="utf-8"))
    made.write(run / "status.json", status | {"state": "stopped", "reason": made.HOSTILE})
    made.reliability(run / "reliability" / "lines")
    made.reliability(run / "reliability" / "<i>strict", None)
    assert report(run) == 0
    return run / "evaluation" / "val" / "report.html"


@pytest.fixture(scope="module")
def comparison(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("several")
    runs = [
        made.run(folder / f"ctc-{ranks}", 0.08 + 0.002 * ranks, ranks, 330 * ranks**0.9, ranks) for ranks in (1, 2, 4)
    ]
    runs.append(made.run(folder / made.HOSTILE.replace("/", "~"), 0.079, 4, 700, 9, model="attention"))
    assert report(*runs, "--out", folder / "page.html") == 0
    return folder / "page.html"


@pytest.fixture
def browser(chromium):
    chromium.requests.clear()
    chromium.errors.clear()
    chromium.show(1280)
    yield chromium
    assert chromium.errors == []
    assert all(address.startswith("file:") for address in chromium.requests) and len(chromium.requests) <= 2


def choose(browser, name: str, value: str) -> None:
    browser.run(f"document.querySelector('fieldset[data-switch={name}] input[value=\"{value}\"]').click()")


# --- in a browser


def test_switches_of_slices(browser, page: Path):
    browser.open(page)
    assert browser.run("document.title") == "a<b>&'c: report" and browser.run("document.scripts.length") == 1
    assert browser.run("document.querySelectorAll('section i:not(.stack i), section b').length") == 0  # markup of names
    slices = ("year", "field", "form", "length", "writer")
    assert browser.run("[...document.querySelectorAll('[data-slice]')].map((part) => part.dataset.slice)") == list(
        slices
    )
    for name in slices:
        choose(browser, "slice", name)
        assert browser.run(SHOWN % "[data-slice]") == 1 and browser.run(SHOWN % f"[data-slice={name}]") == 1
        for rate in ("wer", "line_accuracy", "cer"):
            choose(browser, "rate", rate)
            assert browser.run(SHOWN % "[data-slice] table") == 1
            assert browser.run(SHOWN % f"[data-rate={rate}]") == 1
    choose(browser, "slice", "form")
    rows = "[...document.querySelectorAll('[data-slice=form] [data-rate=cer] tbody th')].map((cell) => cell.innerText)"
    assert browser.run(rows) == [f"{made.HOSTILE} *", "adult"]  # a slice of two clusters is marked
    for name in ("promise", "unit"):
        values = f"[...document.querySelectorAll('fieldset[data-switch={name}] input')].map((one) => one.value)"
        for value in browser.run(values)[:2]:
            choose(browser, name, value)
    assert browser.run(SHOWN % "[data-promise]") == 1


def test_keyboard_alone(browser, page: Path):
    browser.open(page)
    browser.run("document.querySelector('fieldset[data-switch=slice] input').focus()")
    browser.press("ArrowRight")
    assert browser.run("document.activeElement.value") == "field" and browser.run(SHOWN % "[data-slice=field]") == 1
    cells = "document.querySelectorAll('[data-slice=field] [data-rate=cer] tbody td:nth-child(4)')"
    column = f"[...{cells}].map((cell) => +cell.innerText)"
    heading = "document.querySelector('[data-slice=field] [data-rate=cer] th:nth-child(4)')"
    browser.run(f"{heading}.querySelector('button').focus()")
    before = browser.run(column)
    for way in ("ascending", "descending"):
        browser.press("Enter")
        assert browser.run(f"{heading}.getAttribute('aria-sort')") == way
        assert browser.run(column) == sorted(before, reverse=way == "descending")


def test_toggles_of_runs_and_metrics(browser, comparison: Path):
    browser.open(comparison)
    names = browser.run("[...document.querySelectorAll('fieldset[data-toggle=run] input')].map((one) => one.value)")
    assert len(names) == 4 and names[:3] == ["ctc-1", "ctc-2", "ctc-4"]
    assert browser.run("document.querySelectorAll('section script, section b').length") == 0
    metrics = browser.run(
        "[...document.querySelectorAll('fieldset[data-switch=metric] input')].map((one) => one.value)"
    )
    assert {"cer", "wer", "line_accuracy", "lines_per_s", "efficiency", "gpu_hours"} <= set(metrics)
    for metric in metrics:
        choose(browser, "metric", metric)
        assert browser.run(SHOWN % "[data-metric] tbody tr") == 4
    lines = browser.run(SHOWN % "#learning g[data-run]")
    browser.run("document.querySelector('fieldset[data-toggle=run] input[value=ctc-2]').click()")
    assert browser.run(SHOWN % "[data-metric] tbody tr") == 3
    assert browser.run(SHOWN % "#learning g[data-run]") == lines * 3 // 4
    assert browser.run(SHOWN % "[data-run=ctc-2]") == 0 and browser.run(SHOWN % "[data-run=ctc-4]") > 5


@pytest.mark.parametrize("dark", [False, True])
@pytest.mark.parametrize("width", [390, 1280])
def test_fits_and_is_readable(browser, page: Path, comparison: Path, width: int, dark: bool):
    for path in (page, comparison):
        browser.show(width, dark)
        browser.open(path)
        assert browser.run("document.documentElement.scrollWidth") <= width
        assert browser.run(CONTRAST) == []
        assert browser.run(
            "[...document.querySelectorAll('svg[role=img]')].every((plot) => plot.querySelector('title'))"
        )
        # what needs more room than a phone scrolls in its own place, which the keyboard reaches
        assert browser.run("[...document.querySelectorAll('.wide')].every((place) => place.tabIndex === 0)")
        assert len(browser.picture()) > 50_000


# texts whose contrast with the page is below 4.5 (WCAG 2 AA)
CONTRAST = """(() => {
  const parse = (colour) => colour.match(/[\\d.]+/g).map(Number);
  const light = ([r, g, b]) => [r, g, b].map((v) => (v /= 255) <= .03928 ? v / 12.92 : ((v + .055) / 1.055) ** 2.4)
    .reduce((sum, v, i) => sum + v * [.2126, .7152, .0722][i], 0);
  const paper = light(parse(getComputedStyle(document.body).backgroundColor));
  const found = new Set();
  for (const part of document.querySelectorAll('main *, header *, footer *')) {
    const own = [...part.childNodes].some((node) => node.nodeType === 3 && node.data.trim());
    if (!own || !part.checkVisibility() || part.closest('.sr, title')) continue;
    const style = getComputedStyle(part), ink = light(parse(part instanceof SVGElement ? style.fill : style.color));
    const ratio = (Math.max(ink, paper) + .05) / (Math.min(ink, paper) + .05);
    if (ratio < 4.5) found.add(`${part.tagName} ${part.className} ${ratio.toFixed(2)}`);
  }
  return [...found];
})()"""


def test_without_scripts_everything_is_shown(browser, page: Path):
    browser.call("Emulation.setScriptExecutionDisabled", value=True)
    try:
        browser.open(page)
    finally:
        browser.call("Emulation.setScriptExecutionDisabled", value=False)
    assert browser.run(SHOWN % "[data-slice]") == 5 and browser.run(SHOWN % "fieldset") == 0


def test_prints(browser, page: Path):
    browser.open(page)
    assert browser.printed().startswith(b"%PDF") and browser.printed().count(b"/Type /Page\n") >= 2


# --- what a page holds


def test_page_asks_nothing_of_a_network(page: Path, comparison: Path):
    for path in (page, comparison):
        text = path.read_text(encoding="utf-8")
        policy = re.search(r'http-equiv="Content-Security-Policy" content="([^"]*)"', text)[1]
        wanted = ("default-src 'none'", "style-src 'unsafe-inline'", "script-src 'unsafe-inline'", "img-src data:")
        assert all(part in policy for part in wanted)
        assert not re.search(r'(src|href)="(?!#|data:)', text) and "url(" not in text and "@import" not in text
        assert "://" not in text
        assert stat.S_IMODE(path.stat().st_mode) == 0o640
        assert not list(path.parent.glob(".*.tmp"))
        assert made.HOSTILE not in text and "<script>document" not in text


def test_says_what_figures_mean_and_warns(page: Path):
    text = page.read_text(encoding="utf-8")
    for words in ("Few clusters", "nothing can be promised", "against the transcription", "have drifted",
                  "at least 149 accepted lines", "38 writers", "6.85 to 9.85", "Of 100 blank lines 3"):  # fmt: skip
        assert words in text, words
    assert text.index('id="figures"') < text.index('id="slices"') < text.index('id="provenance"')
    assert "0123456789abcdef" in text and "torch 2.13.0" in text and "b60f05d7a1c2" in text


def test_causes_and_acceptance_are_shown_where_they_are_known(tmp_path: Path):
    run = made.run(tmp_path / "ctc")
    assert report(run, "--out", tmp_path / "without.html") == 0
    bias = {"bias": -0.05, "bias_interval": [-0.08, -0.02], "p": 0.01, "q": 0.02, "small": False}
    share = {"value": 0.75, "interval": [0.5, 0.9]}
    row = {"texts": 120, "read": 114, "both": 110, "recall": share, "precision": share, "clusters": 40, **bias}
    rare = row | {"texts": 3, "small": True, "bias": None, "bias_interval": None, "precision": {"value": None}}
    made.write(run / "evaluation" / "val" / "terms.json", {"categories": {"grippe": rare, "AVC": row}})
    year = {"texts": 50, "coverage": share, "clusters": 9, "small": False}
    chosen = {"promise": "fields", "texts": 123, "accepted": 90, "coverage": 0.73, "by": {"year": {"2019": year}}}
    chosen |= {"writers": {"groups": 40, "none": 3, "quantiles": {}}, "categories": {"AVC": row | {"coverage": share}}}
    made.write(run / "evaluation" / "val" / "selection.json", chosen)
    assert report(run, "--out", tmp_path / "with.html") == 0
    before, after = ((tmp_path / f"{name}.html").read_text(encoding="utf-8") for name in ("without", "with"))
    assert 'id="terms"' not in before and 'id="selection"' not in before
    assert after.index(">AVC<") < after.index(">grippe *<")  # the most frequent first
    for words in (
        "120",
        "114",
        "75.0",
        "\u22128.0 to \u22122.0",
        "90 of 123 texts accepted",
        "3 have none accepted",
        "2019",
    ):
        assert words in after


def test_a_run_without_evaluation_or_with_damage(tmp_path: Path, capsys):
    run = made.run(tmp_path / "run")
    (run / "evaluation" / "val" / "metrics.json").unlink()
    made.write(run / "reliability" / "cut" / "promise.json", {"unit": "line"})
    assert report(run) == 0
    text = (run / "report.html").read_text(encoding="utf-8")
    assert "not evaluated yet" in text and "reliability/cut can't be shown" in text
    (run / "evaluation" / "val" / "metrics.json").write_text("{")
    assert report(run) == 1
    assert "metrics.json is damaged" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["{run}", "{run}/../none", "--out", "x.html"], "not a run folder"),
        (["{run}", "{run}"], "needs --out"),
        (["{run}", "{run}", "--out", "x.html"], "named twice"),
        (["{run}", "{run}", "--with-samples", "--out", "x.html"], "of one run"),
        (["{run}", "--evaluation", "test"], "there are: val"),
        (["{run}", "--with-samples", "0"], "1 or more"),
        (["{run}", "--with-samples"], "no data set here"),
    ],
)
def test_what_is_refused(tmp_path: Path, capsys, monkeypatch, words: list[str], message: str):
    monkeypatch.chdir(tmp_path)
    run = made.run(tmp_path / "run")
    assert report(*(word.format(run=run) for word in words)) == 1
    assert message in capsys.readouterr().err
    assert not (tmp_path / "x.html").exists()


# --- texts and images


@pytest.fixture(scope="module")
def evaluated(tmp_path_factory, draw, write_table, build) -> Path:
    """A run of a few steps, evaluated on lines with a canary in one of them, by writers with names."""
    folder, rows = tmp_path_factory.mktemp("canary"), []
    for certificate in range(12):
        for line in range(2):
            text = CANARY if (certificate, line) == (5, 1) else f"grippe {certificate} {line}"
            name = f"c{certificate}-{line}.png"
            cv2.imwrite(str(folder / name), draw(text))
            rows.append({"image": name, "text": text, "certificate": f"Akte.{certificate}", "field": "I", "line": line,
                         "writer": f"{WRITER}{certificate % 4}", "year": 2020 + certificate % 2, "note": f"{text}!",
                         "split": "train"})  # fmt: skip
    build(folder / "data", write_table(folder / "lines.csv", rows))
    run = folder / "run"
    options = ["--size", "tiny", "--steps", "2", "--batch", "8", "--device", "cpu", "--evaluate-every", "0"]
    assert main(["train", str(folder / "data"), "--run", str(run), *options]) == 0
    assert main(["evaluate", "--run", str(run), "--split", "train", "--device", "cpu", "--name", "x"]) == 0
    return run


def lines_of(run: Path) -> list[dict]:
    return [row for path in (run / "evaluation" / "x" / "parts").iterdir() for row in pq.read_table(path).to_pylist()]


def test_no_text_image_or_name_without_samples(evaluated: Path, tmp_path: Path, capsys):
    assert report(evaluated, "--out", tmp_path / "page.html") == 0
    said = capsys.readouterr()
    text = (tmp_path / "page.html").read_text(encoding="utf-8") + said.out + said.err
    rows = lines_of(evaluated)
    assert any(row["reference"] == CANARY for row in rows)
    for row in rows:
        hidden = [row["reference"], row["note"], row["certificate"], row["key"], row["writer"]]
        assert not [words for words in hidden if words in text]
        assert len(row["hypothesis"]) < 4 or row["hypothesis"] not in text
    assert not re.search("Kanarienvogel|Zyankali|Geheimrat|Ypsilon|Akte", text)
    assert "data:image" not in text and "<img" not in text


def test_samples_show_lines_aligned(evaluated: Path, tmp_path: Path, browser, capsys):
    assert report(evaluated, "--with-samples", "30", "--out", tmp_path / "page.html") == 0
    assert "confidential" in capsys.readouterr().err
    assert stat.S_IMODE((tmp_path / "page.html").stat().st_mode) == 0o640
    browser.open(tmp_path / "page.html")
    count = len(lines_of(evaluated))
    for kind in ("worst", "typical"):
        choose(browser, "lines", kind)
        assert browser.run(SHOWN % ".sample img") == count
    assert browser.run("[...document.images].every((image) => image.complete && image.naturalWidth > 20)")
    above = (
        "[...document.querySelectorAll('[data-lines=worst] .aligned')].map((line) => [...line.querySelectorAll('b')]"
    )
    assert CANARY in browser.run(above + ".map((part) => part.textContent).join(''))")
    below = browser.run(above.replace("'b'", "'i'") + ".map((part) => part.textContent).join(''))")
    assert sorted(below) == sorted(row["hypothesis"] for row in lines_of(evaluated))


def test_samples_of_another_data_set_are_refused(evaluated: Path, dataset, capsys):
    assert report(evaluated, "--with-samples", "--dataset", dataset.folder) == 1
    assert "is not the data set of" in capsys.readouterr().err


def test_paired_differences_of_runs_on_the_same_lines(evaluated: Path, tmp_path: Path):
    other = tmp_path / "other"
    made.run(other)
    os.rename(other / "evaluation", tmp_path / "unused")
    for part in ("metrics.json", "parts"):
        (other / "evaluation" / "x").mkdir(parents=True, exist_ok=True)
        (other / "evaluation" / "x" / part).symlink_to(evaluated / "evaluation" / "x" / part)
    third = made.run(tmp_path / "third")
    assert report(evaluated, other, third, "--out", tmp_path / "page.html") == 0
    text = (tmp_path / "page.html").read_text(encoding="utf-8")
    assert "+0.00" in text and "0.00 to 0.00" in text and "lines of the evaluation are gone" in text
    assert "not of the same lines" in text and CANARY not in text
