// The page at which people key. An answer is saved before the next row is shown, and rows are fetched ahead with their
// pictures, so that the next one is there at once.
"use strict";
const AHEAD = 4; // rows with their pictures
const AGAIN = 10000; // ms until the page looks for rows again
const get = (id) => document.getElementById(id);
const text = get("text"), behind = get("behind"), choices = get("choices"), note = get("note");
const VIEWS = ["crop", "around", "whole"];

let tab = "", queue = [], row = null, shownAt = 0, busy = false, untouched = true, view = 0, answered = [], suggestions = null, count = {done: 0, total: 0}, timer = 0;

// ---------------------------------------------------------------- showing a row

function show(next) {
  row = next;
  clearTimeout(timer);
  get("work").hidden = !row;
  get("end").hidden = Boolean(row);
  if (!row) return ended();
  view = 0;
  suggestions = null;
  untouched = row.draft === undefined;
  get("ask").hidden = true;
  note.value = "";
  get("where").textContent = say("where", row.field, row.line);
  about();
  look();
  text.value = row.draft ?? (row.given ? row.given.text : row.start);
  grow();
  choose();
  shownAt = performance.now();
  text.focus(); // from the note too, which is hidden now
  const first = unsure()[0];
  if (first && !row.given && untouched) text.setSelectionRange(first.from, first.to);
  else text.setSelectionRange(text.value.length, text.value.length);
}

function about() {
  const parts = [];
  if (row.given) parts.push(say("given"));
  if (row.role === "settle") parts.push(say("settle"));
  else if (row.blind) parts.push(say("blind"));
  else if (row.kind === "audit") parts.push(say("audit"));
  if (row.reason) parts.push(say("reason", row.reason));
  for (const one of row.notes) parts.push(say("asked", one));
  get("about").textContent = parts.join(" ");
}

function look() {
  const frame = get("picture");
  frame.setAttribute("aria-label", [say("picture"), say("around"), say("whole")][view]);
  const lost = () => {
    const message = document.createElement("p");
    message.textContent = say("no_picture");
    frame.replaceChildren(message);
  };
  if (view === 0) {
    frame.replaceChildren(row.image);
    if (row.broken) lost(); else row.image.onerror = lost;
    return;
  }
  const image = new Image();
  image.alt = frame.getAttribute("aria-label");
  image.onerror = lost;
  image.src = `image/${row.row}/${VIEWS[view]}`;
  frame.replaceChildren(image);
}

function ended() {
  const others = count.in_hands > 0;
  get("ended").textContent = say(others ? "wait" : "done");
  get("ended_why").textContent = say(others ? "wait_why" : "done_why");
  timer = setTimeout(more, AGAIN);
}

async function more() {
  const found = await post("next", {count: AHEAD}).catch(() => null);
  if (found && found.refused) return complain(say("refused")[found.refused]);
  if (found) { counted(found); arrived(found.rows); }
  if (!row && !busy) show(queue.shift() || null);
}

// ---------------------------------------------------------------- the text

// words of the reading that are unsure and still stand: their place in the text
function unsure() {
  if (!row || !row.words.length) return [];
  const read = [...row.start.matchAll(/\S+/gu)], now = [...text.value.matchAll(/\S+/gu)], found = [];
  let from = 0;
  read.forEach((word, i) => {
    const at = now.findIndex((other, j) => j >= from && other[0] === word[0]);
    if (at < 0) return;
    from = at + 1;
    if (row.words[i] < DOUBT) found.push({from: now[at].index, to: now[at].index + word[0].length, word: word[0], sure: row.words[i]});
  });
  return found;
}
const DOUBT = 0.9; // calibrated probability of a word below which it is marked

function grow() {
  const marks = unsure(), parts = [];
  let at = 0;
  for (const one of marks) {
    const mark = document.createElement("mark");
    mark.textContent = text.value.slice(one.from, one.to);
    parts.push(text.value.slice(at, one.from), mark);
    at = one.to;
  }
  behind.replaceChildren(...parts, text.value.slice(at) + "\n");
  get("unsure").textContent = marks.length ? say("unsure", marks.map((one) => `${one.word} (${Math.round(100 * one.sure)} %)`).join(", ")) : "";
  text.style.height = "auto";
  text.style.height = `${text.scrollHeight}px`;
}

function choose() {
  const list = suggestions || row.alternatives;
  choices.replaceChildren(...list.slice(0, 9).map((one, i) => {
    const item = document.createElement("li"), button = document.createElement("button"), key = document.createElement("kbd");
    button.type = "button";
    key.textContent = i + 1;
    button.append(key, one);
    button.addEventListener("click", () => pick(i));
    item.append(button);
    return item;
  }));
  choices.classList.toggle("typed", !(untouched || suggestions));
}

function pick(i) {
  if (suggestions) {
    const [from, to] = wordAt();
    text.setRangeText(suggestions[i], from, to, "end");
    suggestions = null;
    untouched = false;
  } else {
    text.value = row.alternatives[i];
    text.setSelectionRange(text.value.length, text.value.length);
  }
  grow();
  choose();
  text.focus();
}

function wordAt() {
  const to = text.selectionEnd, before = text.value.slice(0, to).match(/[\p{L}\p{M}'’-]*$/u)[0];
  return [to - before.length, to];
}

async function suggest() {
  const [from, to] = wordAt();
  const found = await post("suggest", {beginning: text.value.slice(from, to)}).catch(() => null);
  if (!found || found.refused || !found.words.length) return;
  suggestions = found.words;
  choose();
}

function touched() {
  untouched = false;
  suggestions = null;
  choose();
}

// ---------------------------------------------------------------- answers

async function answer(kind) {
  if (!row || busy) return;
  if (kind === "ask" && !note.value.trim()) {
    get("ask").hidden = false;
    note.focus();
    return;
  }
  busy = true;
  const own = row, id = identity();
  const body = {id, row: own.row, kind, text: kind === "text" ? clean(text.value) : "", note: kind === "ask" ? clean(note.value) : ""};
  const found = await surely("answer", {...body, seconds: (performance.now() - shownAt) / 1000, count: Math.max(AHEAD - queue.length, 0)});
  busy = false;
  if (found.refused) {
    complain(say("refused")[found.refused]);
    if (found.refused !== "answered") return;
  } else {
    answered.push(id);
    counted(found);
    arrived(found.rows);
  }
  show(queue.shift() || null);
  if (!row && !found.refused) more();
}

// marks that nobody sees come with what is pasted
const clean = (value) => value.replace(/[\u00AD\u200B-\u200F\u2028-\u202E\u2060-\u2064\uFEFF]/gu, "").replace(/\r\n?/g, "\n").replace(/\t/g, " ");

async function undo() {
  if (busy || !tab) return;
  busy = true;
  const found = await surely("undo", {id: identity(), answer: answered[answered.length - 1] || ""});
  busy = false;
  if (found.refused) return complain(say("refused")[found.refused]);
  answered.pop();
  counted(found);
  if (row) { // what was typed at it stays, for when it comes again
    delete row.given;
    if (!untouched) row.draft = text.value;
    queue.unshift(row);
  }
  const held = queue.length;
  arrived([found.item]);
  show(queue.splice(held, 1)[0]);
}

// ---------------------------------------------------------------- keys

const DO = {
  blank: () => answer("blank"), illegible: () => answer("illegible"), crossed: () => answer("crossed"), ask: () => answer("ask"), undo, suggest,
  view: () => { view = (view + 1) % VIEWS.length; look(); },
  next_unsure: () => {
    const list = unsure(), next = list.find((one) => one.from >= text.selectionEnd) || list[0];
    text.focus();
    if (next) text.setSelectionRange(next.from, next.to);
  },
};
const KEYS = {F2: "blank", F4: "illegible", F8: "crossed", F9: "ask", F7: "next_unsure", PageUp: "undo", PageDown: "view"};

document.addEventListener("keydown", (event) => {
  if (event.isComposing || get("helping").open) return;
  if (event.key === "F1") { event.preventDefault(); return help(); }
  if (!tab) return;
  const plain = !event.ctrlKey && !event.altKey && !event.metaKey;
  if (plain && KEYS[event.key]) {
    event.preventDefault();
    if (row || KEYS[event.key] === "undo") DO[KEYS[event.key]]();
    return;
  }
  if (!row) return;
  if (event.key === " " && event.ctrlKey) { event.preventDefault(); return DO.suggest(); }
  if (event.key === "Enter" && event.target === note) { event.preventDefault(); return DO.ask(); }
  if (event.target !== text) return;
  if (event.key === "Enter" && !event.shiftKey) { event.preventDefault(); return answer("text"); }
  if (event.key === "Escape") {
    event.preventDefault();
    if (suggestions) suggestions = null;
    else { text.value = row.start; untouched = true; view = 0; look(); }
    grow();
    return choose();
  }
  const digit = plain && /^[1-9]$/.test(event.key) ? Number(event.key) : 0;
  if (digit && (untouched || suggestions) && digit <= (suggestions || row.alternatives).length) {
    event.preventDefault();
    return pick(digit - 1);
  }
  if (["ArrowLeft", "ArrowRight", "ArrowUp", "ArrowDown", "Home", "End"].includes(event.key)) touched();
});
text.addEventListener("input", () => { touched(); grow(); });
text.addEventListener("mousedown", () => { if (row) touched(); });
get("key").addEventListener("submit", (event) => { event.preventDefault(); answer(get("ask").hidden ? "text" : "ask"); });
for (const button of document.querySelectorAll("[data-do]")) button.addEventListener("click", () => { DO[button.dataset.do](); });

function help() {
  get("keys").replaceChildren(...say("keys").flatMap(([key, does]) => {
    const term = document.createElement("dt"), said = document.createElement("dd"), cap = document.createElement("kbd");
    cap.textContent = key;
    term.append(cap);
    said.textContent = does;
    return [term, said];
  }));
  get("helping").showModal();
}
get("help").addEventListener("click", help);

// ---------------------------------------------------------------- begin and end

function speak() {
  translate();
  document.title = say("title");
  get("help").textContent = `${say("help")} F1`;
  if (tab) get("state").textContent = say("state", count);
  if (row) { get("where").textContent = say("where", row.field, row.line); about(); grow(); }
}
get("language").addEventListener("click", () => { language = say("other_code"); speak(); if (row) text.focus(); });
get("begin").addEventListener("submit", async (event) => {
  event.preventDefault();
  const found = await post("begin", {name: get("name").value}).catch(() => null);
  if (!found || found.refused) {
    get("state").textContent = found ? say("refused")[found.refused] : say("offline");
    return;
  }
  tab = found.tab;
  counted(found);
  get("welcome").hidden = true;
  await more();
});
window.addEventListener("beforeunload", (event) => { if (busy) event.preventDefault(); });
window.addEventListener("pagehide", () => {
  if (tab) fetch("leave", {method: "POST", headers: {"content-type": "application/json"}, body: JSON.stringify({tab}), keepalive: true});
});
window.addEventListener("resize", () => { if (row) grow(); });
speak();
get("name").focus();
