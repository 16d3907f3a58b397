"""The page of review in a real Chromium, by key events alone: what is keyed is what comes out, byte for byte."""

import json
import os
import threading
import time
from pathlib import Path

import pytest
from browser import Browser
from keyed import CANARY, ask, identity, post, rows_of, serving, table

FIELDS = 300
SETTLED = """new Promise((done) => { const look = () => busy ? setTimeout(look, 4) : done(row && {line: +row.line,
             blind: row.blind, role: row.role, given: row.given || null, alternatives: row.alternatives}); look(); })"""


def until(true: str) -> str:
    """A script that ends once an expression is true."""
    return f"new Promise((done) => {{ const look = () => {true} ? done(1) : setTimeout(look, 5); look(); }})"


def begin(browser: Browser, running, name: str) -> None:
    browser.open(running.address)
    browser.type(name)
    browser.press("Enter")
    browser.run(until("row"))


def meant(line: int, blind: bool, name: str) -> tuple[str, str]:
    """-> how the row is keyed, what is to come out."""
    if blind:
        return "type", f"aveugle {line}" + (" (B)" if line % 4 == 0 and name == "Bertrand" else "")
    way = ("alternative", "take", "type", "blank", "mend", "crossed", "illegible", "digits")[line % 8]
    return way, {"alternative": f"grippe {line}", "take": f"{CANARY} {line}",
                 "type": f"Œdème aigu, c'est « {line} » à 3 j",
                 "blank": "", "mend": f"{CANARY} {line} mêlé", "crossed": "[raturé]", "illegible": "[illisible]",
                 "digits": f"{CANARY} {line}12"}[way]  # fmt: skip


def key(browser: Browser, way: str, text: str) -> None:
    if way == "alternative":
        browser.press("2")
    elif way == "type":
        browser.press("a", "Control")
        browser.type(text)
    elif way == "mend":
        browser.press("End")
        browser.type(" mêlé")
    elif way == "digits":  # after a key that moves, digits are digits
        browser.press("End")
        browser.type("12")
    browser.press({"blank": "F2", "crossed": "F8", "illegible": "F4"}.get(way, "Enter"))


def work(browser: Browser, running, name: str, wanted: dict[int, str], undone: list) -> None:
    """Key whatever is given until the server has nothing more for anybody."""
    begin(browser, running, name)
    count = 0
    while True:
        row = browser.run(SETTLED)
        if row is None:
            found = json.loads(ask(running, "figures")[2])
            browser.run("more()")  # what the other one has answered meanwhile
            if browser.run(SETTLED) is None:
                if found["left"] == found["waiting"] and not found["in_hands"]:
                    return
                time.sleep(0.05)
            continue
        way, text = meant(row["line"], row["blind"], name)
        count += 1
        if count % 20 == 0:  # something else first, then taken back
            key(browser, "type", "une erreur")
            browser.run(SETTLED)
            browser.press("PageUp")
            back = browser.run(SETTLED)
            assert back["line"] == row["line"] and back["given"]["text"] == "une erreur"
            undone.append(row["line"])
            way, text = "type", text if way not in ("blank", "crossed", "illegible") else f"tapé {row['line']}"
        key(browser, way, text)
        wanted.setdefault(row["line"], text)


@pytest.fixture
def two(tmp_path: Path, chromium):
    with Browser(tmp_path / "profile") as other:
        yield chromium, other


def test_three_hundred_fields_by_two_operators_at_once(two, tmp_path: Path):
    """Typing, alternatives, one-key answers, undo, blind rows that both key, differences to a third person."""
    for browser in two:
        browser.show(1280)
        browser.requests.clear()
        browser.errors.clear()
    made = table(tmp_path, FIELDS)
    wanted, undone, failed = {}, [], []
    with serving(made, "--double", 0.1, "--seed", 1, log=tmp_path / "log") as running:

        def operate(browser: Browser, name: str, own: dict) -> None:
            try:
                work(browser, running, name, own, undone)
            except BaseException as error:
                failed.append(error)

        own = {"Anne": {}, "Bertrand": {}}
        threads = [threading.Thread(target=operate, args=(browser, name, own[name]))
                   for browser, name in zip(two, own, strict=True)]  # fmt: skip
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert not failed, failed
        both = own["Anne"].keys() & own["Bertrand"].keys()
        differ = [line for line in both if own["Anne"][line] != own["Bertrand"][line]]
        assert len(both) >= 20 and differ and len(undone) >= 10
        wanted = own["Anne"] | own["Bertrand"]
        begin(two[0], running, "Chloé")
        while (row := two[0].run(SETTLED)) is not None:
            assert row["role"] == "settle" and row["line"] in differ
            two[0].press("1")
            wanted[row["line"]] = row["alternatives"][0]
            two[0].press("Enter")
            differ.remove(row["line"])
        assert not differ
        assert browser_is_ours(two, running)
        assert running.stop() == 0
    keyed = rows_of(tmp_path / "review-keyed.csv")
    assert len(wanted) == FIELDS and [row["text"] for row in keyed] == [wanted[line] for line in range(FIELDS)]
    assert {row["reject"] for row in keyed} == {""}


def browser_is_ours(browsers, running) -> bool:
    """Nothing was asked of anybody else, and nothing went wrong on the page."""
    for browser in browsers:
        assert browser.errors == []
        assert all(address.startswith(running.address) for address in browser.requests)
    return True


def test_the_network_goes_and_comes_back_and_two_tabs(two, tmp_path: Path):
    one, other = two
    with serving(table(tmp_path, 20), log=tmp_path / "log") as running:
        for browser in two:
            begin(browser, running, "Anne")
        lines = [browser.run(SETTLED)["line"] for browser in two]
        assert lines[0] != lines[1]
        one.offline(True)
        one.press("a", "Control")
        one.type("sans réseau")
        one.press("Enter")
        one.run(until("document.getElementById('said').textContent"))
        assert one.run("row.line") == str(lines[0])  # the next one is not shown before it is saved
        one.press("Enter")  # and no second answer is made of it
        one.offline(False)
        assert one.run(SETTLED)["line"] != lines[0]
        other.press("a", "Control")
        other.type("avec réseau")
        other.press("Enter")
        other.run(SETTLED)
        assert running.stop() == 0
    keyed = rows_of(tmp_path / "review-keyed.csv")
    assert [keyed[line]["text"] for line in lines] == ["sans réseau", "avec réseau"]
    assert sum(row["text"] != "" for row in keyed) == 2
    one.errors.clear()  # the console names the request that failed


def test_keys_of_the_page(chromium, tmp_path: Path):
    chromium.show(1280)
    chromium.errors.clear()
    words = tmp_path / "words.txt"
    words.write_text("infarctus\ninfection\n")
    with serving(table(tmp_path, 12), "--lexicon", words, log=tmp_path / "log") as running:
        begin(chromium, running, "Anne")
        value = "document.getElementById('text').value"
        # the unsure word is marked, and chosen: what is typed takes its place
        assert chromium.run("document.querySelectorAll('#behind mark').length") == 1
        chromium.type("1")  # nothing is typed yet: an alternative
        assert chromium.run(value) == "choc 0"
        chromium.press("Escape")
        assert chromium.run(value) == f"{CANARY} 0"
        chromium.press("F7")
        chromium.type("neuf")
        assert chromium.run(value) == f"{CANARY} neuf"
        assert chromium.run("document.querySelectorAll('#behind mark').length") == 0
        chromium.press("a", "Control")
        chromium.type("infa")
        chromium.press(" ", "Control")
        chromium.run(until("suggestions"))
        chromium.press("1")
        assert chromium.run(value) == "infarctus"
        chromium.press("Enter", "Shift")
        chromium.type("aigu")
        assert chromium.run(value) == "infarctus\naigu"
        # what surrounds it, the whole scan, and back
        sources = []
        for _ in range(3):
            chromium.press("PageDown")
            sources.append(chromium.run("document.querySelector('#picture img').src.split('/').pop()"))
        assert sources == ["around", "whole", "crop"]
        chromium.press("F1")
        assert chromium.run("document.getElementById('helping').open")
        chromium.press("Escape")
        chromium.run("document.getElementById('helping').close()")
        # a question, with its note
        chromium.run("text.focus()")
        chromium.press("F9")
        chromium.type("lisible ?")
        chromium.press("Enter")
        chromium.run(SETTLED)
        journal = (tmp_path / "review.csv.keying" / "journal.jsonl").read_text(encoding="utf-8")
        assert '"kind":"ask"' in journal and "lisible ?" in journal
        # what was typed is still there when the row before was taken back and answered again
        chromium.type("vu")
        typed = chromium.run(value)
        for key in ("PageUp", "F2"):
            chromium.press(key)
            chromium.run(SETTLED)
        assert chromium.run(value) == typed and typed.endswith("vu")
        # the other language
        before = chromium.run("document.documentElement.lang")
        chromium.run("document.getElementById('language').click()")
        assert {before, chromium.run("document.documentElement.lang")} == {"en", "fr"}
        # by Tab alone every button can be reached, and the text again
        chromium.run("text.focus()")
        seen, focus = [], "document.activeElement"
        for _ in range(20):
            chromium.press("Tab")
            seen.append(chromium.run(f"{focus}.dataset.do || {focus}.type || {focus}.id"))
        assert {"blank", "illegible", "crossed", "ask", "undo", "view", "suggest", "submit"} <= set(seen)
        assert running.stop() == 0
    assert chromium.errors == []


def test_html_in_texts_is_text(chromium, tmp_path: Path):
    chromium.show(1280)
    chromium.errors.clear()
    hostile = "<img src=x onerror=\"document.title='taken'\"><script>document.title='taken'</script>"
    made = table(tmp_path, 10, reading=[hostile] * 10, alternatives=[f"{hostile} | autre"] * 10,
                 words=["[0.1,0.1,0.1]"] * 10,
                 field=[hostile] * 10)  # fmt: skip
    with serving(made, log=tmp_path / "log") as running:
        tab = post(running, "begin", name=hostile[:60])["tab"]
        [row] = post(running, "next", tab=tab, count=1)["rows"]
        post(running, "answer", tab=tab, id=identity(), row=row["row"], kind="ask", note=hostile, count=0)
        begin(chromium, running, "Anne")
        assert chromium.run("document.getElementById('text').value") == hostile
        assert hostile in chromium.run("document.getElementById('about').textContent")
        assert (
            chromium.run(
                "document.querySelectorAll('#choices img, #about img, #where img, #behind img, main script').length"
            )
            == 0
        )
        assert chromium.run("document.title") != "taken"
        chromium.press("Enter")
        chromium.run(SETTLED)
        assert running.stop() == 0
    assert rows_of(tmp_path / "review-keyed.csv")[0]["text"] == hostile and chromium.errors == []


CONTRAST = """(() => {
  const linear = (x) => x / 255 <= .03928 ? x / 255 / 12.92 : ((x / 255 + .055) / 1.055) ** 2.4;
  const light = (c) => .2126 * linear(c[0]) + .7152 * linear(c[1]) + .0722 * linear(c[2]);
  const parse = (c) => {
    const v = c.match(/[\\d.]+/g).map(Number);
    return v.length > 3 && v[3] === 0 ? null : v.slice(0, 3);
  };
  const found = [];
  for (const part of document.querySelectorAll("body *")) {
    const own = [...part.childNodes].some((node) => node.nodeType === 3 && node.textContent.trim());
    if (!own && part.tagName !== "TEXTAREA" || !part.checkVisibility() || part.closest("[aria-hidden]")) continue;
    let under = part, back = null;
    while (under && !(back = parse(getComputedStyle(under).backgroundColor))) under = under.parentElement;
    const [a, b] = [light(parse(getComputedStyle(part).color)), light(back || [255, 255, 255])].sort((x, y) => y - x);
    found.push([(a + .05) / (b + .05), part.tagName + " " + part.id + " " + part.textContent.slice(0, 20)]);
  }
  return found.sort((x, y) => x[0] - y[0]);
})()"""


@pytest.mark.parametrize(("width", "dark"), [(1280, False), (1280, True), (820, False)])
def test_contrast_is_aa_and_nothing_is_cut_off(chromium, tmp_path: Path, width: int, dark: bool):
    chromium.show(width, dark)
    chromium.errors.clear()
    with serving(table(tmp_path, 30), "--double", 0.3, log=tmp_path / "log") as running:
        begin(chromium, running, "Anne")
        for page in ("", "progress"):
            if page:
                chromium.open(running.address + page)
                chromium.run(until("last"))
            ratios = chromium.run(CONTRAST)
            assert len(ratios) > 5 and ratios[0][0] >= 4.5, ratios[0]
            assert chromium.run("document.documentElement.scrollWidth <= innerWidth")
            if not page:  # the picture is there
                chromium.run("row.image.decode()")
            if folder := os.environ.get("HTR_SCREENSHOTS"):
                Path(folder, f"review{page and '-' + page}-{width}{'-dark' * dark}.png").write_bytes(chromium.picture())
        assert running.stop() == 0
    assert chromium.errors == []
