"use strict";
// The state is `note`, as NAME.json holds it; everything on the page is drawn from it.
let note = JSON.parse(document.getElementById("note").textContent);
let chosen = -1, past = [], drag = null;
const $ = id => document.getElementById(id);
const svg = $("form"), layer = $("fields"), SVG = "http://www.w3.org/2000/svg", LEAST = 4;
const [WIDTH, HEIGHT] = note.size, MAX_FIELD_LINES = Number($("lines").max);
let saved = JSON.stringify(note);

function make(name, attributes, parent) {
  const element = document.createElementNS(SVG, name);
  for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
  parent.append(element);
  return element;
}

// ---------------------------------------------------------------- what is wrong

function faults() {
  const found = new Map(), names = new Map();
  note.fields.forEach((field, i) => names.set(field.name, [...(names.get(field.name) || []), i]));
  for (const [name, places] of names) {
    if (!name.trim()) places.forEach(i => found.set(i, "a field has no name"));
    else if (places.length > 1) places.forEach(i => found.set(i, `two fields are named ${name}`));
  }
  for (const rule of note.rules || []) for (const name of rule.fields)
    if (!names.has(name)) found.set(-1, `a rule names the field ${name}, which is not there`);
  return found;
}

// ---------------------------------------------------------------- drawing

function draw() {
  const wrong = faults(), size = Math.max(5, 9 * WIDTH / (svg.clientWidth || WIDTH));
  const held = document.activeElement && document.activeElement.closest(".field") !== null;
  layer.replaceChildren();
  $("list").replaceChildren();
  note.fields.forEach((field, i) => {
    const [x, y, w, h] = field.box;
    const classes = ["field", field.kind, i === chosen ? "chosen" : "", wrong.has(i) ? "bad" : ""];
    const group = make("g", {class: classes.join(" "), tabindex: 0, role: "button", "data-i": i,
      "aria-label": `${i + 1}: ${field.name}, ${field.kind}`}, layer);
    make("rect", {x, y, width: w, height: h}, group);
    make("text", {x: x + 3, y: y > 20 ? y - 3 : y + 18}, group).textContent =
      field.kind === "tick" && i !== chosen ? i + 1 : `${i + 1} ${field.name}`;
    group.addEventListener("focus", () => choose(i));
    if (i === chosen) for (const [at, cx, cy] of [["nw", x, y], ["ne", x + w, y], ["sw", x, y + h], ["se", x + w, y + h]])
      make("rect", {class: `corner ${at}`, x: cx - size / 2, y: cy - size / 2, width: size, height: size,
        "data-corner": at}, group);
    const item = document.createElement("li"), button = document.createElement("button");
    button.type = "button";
    button.textContent = `${field.name} (${field.kind})`;
    button.addEventListener("click", () => { choose(i); focusChosen(); });
    item.setAttribute("aria-current", i === chosen);
    item.append(button);
    $("list").append(item);
  });
  if (held) focusChosen();
  const field = note.fields[chosen];
  $("one").hidden = !field;
  if (field) {
    for (const key of ["name", "kind"]) if ($(key).value !== field[key]) $(key).value = field[key];
    for (const key of ["lines", "pitch"]) {
      $(key).disabled = field.kind === "tick";
      if (document.activeElement !== $(key)) $(key).value = field[key] ?? "";
    }
    $("place").textContent = `x ${field.box[0]}, y ${field.box[1]}, ${field.box[2]} × ${field.box[3]} px`;
  }
  $("wrong").textContent = [...new Set(wrong.values())].join("; ");
  $("undo").disabled = !past.length;
  $("remove").disabled = !field;
  $("state").textContent = JSON.stringify(note) === saved ? "nothing changed" : `${note.fields.length} fields, not saved`;
}

function choose(i) { if (i !== chosen) { chosen = i; draw(); } }
function focusChosen() { layer.querySelector(`[data-i="${chosen}"]`)?.focus({preventScroll: true}); }

// ---------------------------------------------------------------- changing

let lastKind = "";
function remember(kind = "") {  // steps of one kind in a row are taken back together
  if (kind && kind === lastKind) return;
  lastKind = kind;
  past.push(JSON.stringify([note, chosen]));
  if (past.length > 200) past.shift();
}
function undo() {
  if (!past.length) return;
  [note, chosen] = JSON.parse(past.pop());
  lastKind = "";
  draw();
}
const between = (value, least, most) => Math.min(Math.max(value, least), most);
function setBox(field, x, y, w, h) {
  w = between(Math.round(w), LEAST, WIDTH); h = between(Math.round(h), LEAST, HEIGHT);
  field.box = [between(Math.round(x), 0, WIDTH - w), between(Math.round(y), 0, HEIGHT - h), w, h];
  if (field.kind === "text") fitPitch(field);
}
function fitPitch(field) {  // as template.py asks for
  field.pitch = Math.round(10 * between(field.pitch || field.box[3] / field.lines, 8, 2 * field.box[3])) / 10;
}
function setKind(field, kind) {
  field.kind = kind;
  if (kind === "tick") { delete field.lines; delete field.pitch; }
  else { field.lines = field.lines || 1; field.pitch = field.pitch || field.box[3] / field.lines; fitPitch(field); }
}
function freeName(kind) {
  const names = new Set(note.fields.map(field => field.name));
  for (let number = 1; ; number++) if (!names.has(`${kind}_${number}`)) return `${kind}_${number}`;
}
function add(box) {
  const kind = Math.max(box[2], box[3]) < 0.3 * note.dpi && box[2] < 1.6 * box[3] && box[3] < 1.6 * box[2] ? "tick" : "text";
  const field = {name: freeName(kind), kind: "", box: [0, 0, LEAST, LEAST]};
  setBox(field, ...box);
  setKind(field, kind);
  note.fields.push(field);
  chosen = note.fields.length - 1;
}
function removeChosen() {
  if (!note.fields[chosen]) return;
  remember();
  note.fields.splice(chosen, 1);
  chosen = Math.min(chosen, note.fields.length - 1);
  draw();
  focusChosen();
}

// ---------------------------------------------------------------- mouse, pen and finger

function pointOf(event) {
  const point = new DOMPoint(event.clientX, event.clientY).matrixTransform(svg.getScreenCTM().inverse());
  return [point.x, point.y];
}
svg.addEventListener("pointerdown", event => {
  if (event.button) return;
  const [x, y] = pointOf(event), group = event.target.closest(".field"), corner = event.target.dataset.corner;
  event.preventDefault();
  if (group) {
    choose(Number(group.dataset.i));
    focusChosen();
    drag = {x, y, corner, box: [...note.fields[chosen].box], moved: false};
  } else {
    drag = {x, y, corner: "new", moved: false};
  }
  svg.setPointerCapture(event.pointerId);
});
svg.addEventListener("pointermove", event => {
  if (!drag) return;
  const [x, y] = pointOf(event), dx = x - drag.x, dy = y - drag.y;
  if (!drag.moved && Math.hypot(dx, dy) < 3) return;
  if (!drag.moved) {
    remember();
    drag.moved = true;
    if (drag.corner === "new") { add([drag.x, drag.y, LEAST, LEAST]); drag.box = [drag.x, drag.y, 0, 0]; }
  }
  let [left, top, w, h] = drag.box;
  const field = note.fields[chosen];
  if (!drag.corner) return setBox(field, left + dx, top + dy, w, h), draw();
  let right = left + w, bottom = top + h;
  if (drag.corner === "new" || drag.corner.includes("e")) right += dx;
  if (drag.corner === "new" || drag.corner.includes("s")) bottom += dy;
  if (drag.corner.length === 2 && drag.corner.includes("w")) left += dx;
  if (drag.corner.length === 2 && drag.corner.includes("n")) top += dy;
  if (drag.corner === "new") { left = drag.x; top = drag.y; right = x; bottom = y; delete field.pitch; }
  setBox(field, Math.min(left, right), Math.min(top, bottom), Math.abs(right - left), Math.abs(bottom - top));
  draw();
});
function drop() {
  if (drag && drag.moved && drag.corner === "new") {
    const field = note.fields.pop();
    add(field.box);
    draw();
    focusChosen();
  } else if (drag && !drag.moved && drag.corner === "new") choose(-1);
  drag = null;
}
svg.addEventListener("pointerup", drop);
svg.addEventListener("pointercancel", drop);

// ---------------------------------------------------------------- keyboard

document.addEventListener("keydown", event => {
  const typing = event.target.closest("input, select, textarea");
  if ((event.ctrlKey || event.metaKey) && event.key.toLowerCase() === "z" && !typing) { event.preventDefault(); return undo(); }
  if (typing) {
    if (event.key === "Escape" || event.key === "Enter") { event.preventDefault(); focusChosen(); }
    return;
  }
  const field = note.fields[chosen];
  const way = {ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1]}[event.key];
  if (!field || !event.target.closest(".field")) return;
  if (way) {
    event.preventDefault();
    remember(`keys ${chosen} ${event.shiftKey}`);
    const step = event.ctrlKey ? 10 : 1, [x, y, w, h] = field.box, [dx, dy] = way.map(v => v * step);
    if (event.shiftKey) setBox(field, x, y, w + dx, h + dy); else setBox(field, x + dx, y + dy, w, h);
  } else if (event.key === "Delete" || event.key === "Backspace") { event.preventDefault(); return removeChosen(); }
  else if (event.key === "Enter") { event.preventDefault(); $("name").focus(); $("name").select(); return; }
  else if (event.ctrlKey || event.metaKey || event.altKey) return;
  else if (event.key.toLowerCase() === "t") { remember(); setKind(field, field.kind === "tick" ? "text" : "tick"); }
  else if (event.key.toLowerCase() === "n") {
    remember();
    const [x, y, w, h] = field.box;
    add([x + 12, y + 12, w, h]);
  } else return;
  draw();
  focusChosen();
});

// ---------------------------------------------------------------- the form of one field

$("one").addEventListener("submit", event => event.preventDefault());
$("name").addEventListener("input", event => {
  remember(`name ${chosen}`);
  const field = note.fields[chosen], before = field.name, name = event.target.value.trim();
  if (note.fields.filter(other => other.name === before).length === 1)  // rules go with the name
    for (const rule of note.rules || []) rule.fields = rule.fields.map(own => own === before ? name : own);
  field.name = name;
  draw();
});
$("kind").addEventListener("change", event => { remember(); setKind(note.fields[chosen], event.target.value); draw(); });
$("lines").addEventListener("change", event => {
  remember();
  const field = note.fields[chosen];
  field.lines = between(Math.round(Number(event.target.value)) || 1, 1, MAX_FIELD_LINES);
  draw();
});
$("pitch").addEventListener("change", event => {
  remember();
  const field = note.fields[chosen];
  field.pitch = Number(event.target.value) || 0;
  fitPitch(field);
  draw();
});
$("undo").addEventListener("click", undo);
$("remove").addEventListener("click", removeChosen);
$("zoom").addEventListener("change", event => {
  svg.style.width = event.target.value === "fit" ? "" : `${WIDTH * Number(event.target.value)}px`;
  draw();
});

// ---------------------------------------------------------------- load and save

$("load").addEventListener("change", async event => {
  const file = event.target.files[0];
  if (!file) return;
  try {
    take(await file.text());
  } catch (error) {
    $("wrong").textContent = `${file.name} is not this form's JSON: ${error.message}`;
  }
  event.target.value = "";
});
function take(text) {
  const loaded = JSON.parse(text);
  if (!Array.isArray(loaded.fields)) throw new Error("it has no fields");
  for (const {name, kind, box} of loaded.fields) {
    if (typeof name !== "string" || !["text", "tick"].includes(kind)) throw new Error("a field lacks its name or kind");
    if (!Array.isArray(box) || box.length !== 4 || !box.every(Number.isFinite)) throw new Error(`${name}: a box is x, y, w, h`);
    if (box[0] < 0 || box[1] < 0 || box[2] < LEAST || box[3] < LEAST || box[0] + box[2] > WIDTH || box[1] + box[3] > HEIGHT)
      throw new Error(`${name}: its box does not lie on this form`);
  }
  if (loaded.size && String(loaded.size) !== String(note.size)) throw new Error("it is of a picture of another size");
  remember();
  note = {...note, ...loaded, size: note.size};
  for (const field of note.fields) if (field.kind === "text") { field.lines = field.lines || 1; fitPitch(field); }
  chosen = -1;
  draw();
}
$("save").addEventListener("click", () => {
  if (faults().size) return void ($("wrong").textContent = `not saved: ${$("wrong").textContent}`);
  const link = document.createElement("a");
  link.href = URL.createObjectURL(new Blob([JSON.stringify(note, null, 1)], {type: "application/json"}));
  link.download = `${note.name}.json`;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 10000);
  saved = JSON.stringify(note);
  draw();
});
addEventListener("beforeunload", event => { if (JSON.stringify(note) !== saved) event.preventDefault(); });
addEventListener("resize", draw);
draw();
