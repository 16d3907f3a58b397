// The page of progress: figures alone.
"use strict";
const get = (id) => document.getElementById(id);
const share = (value, digits = 1) => (value == null ? "–" : `${(100 * value).toFixed(digits)} %`);
const within = (value, pair) => (value == null ? "–" : (100 * value).toFixed(1) + (pair ? ` [${pair.map((v) => (100 * v).toFixed(1)).join("; ")}]` : ""));

function row(cells) {
  const line = document.createElement("tr");
  cells.forEach((cell, i) => {
    const part = document.createElement(i ? "td" : "th");
    if (i) part.className = "n"; else part.scope = "row";
    part.textContent = cell;
    line.append(part);
  });
  return line;
}

function show(found) {
  translate();
  document.title = say("progress");
  get("bar").max = found.total;
  get("bar").value = found.done;
  get("headline").textContent = say("state", found);
  const parts = [];
  for (const [name, title] of Object.entries(say("figures"))) {
    const value = found[name], term = document.createElement("dt"), said = document.createElement("dd");
    term.textContent = title;
    said.dataset.figure = name;
    said.textContent = value == null ? "–" : name === "taken_as_read" ? share(value) : Number.isInteger(value) ? value : value.toFixed(1);
    if (name === "seconds_typing") said.textContent += ` (${say(found.seconds_measured ? "measured" : "assumed")})`;
    parts.push(term, said);
  }
  get("figures").replaceChildren(...parts);
  const agree = found.agreement, line = (name, one) => row([name, one.rows, within(one.exact, one.exact_interval), within(one.cer, one.cer_interval)]);
  get("agreement").tBodies[0].replaceChildren(line(say("all"), agree), ...Object.entries(agree.by).map(([name, one]) => line(name, one)));
  get("uncertain").textContent = say("uncertain", agree.uncertain);
  const told = found.accepted.filter((one) => one.sampled);
  get("accepted").textContent = told.map((one) => (one.wrong == null ? say("accepted_part", one) : say("accepted_is", one, share))).join(" ") || say("no_sample");
}

let last = null;
async function look() {
  const answer = await fetch("figures").catch(() => null);
  if (answer && answer.ok) show((last = await answer.json()));
}
get("language").addEventListener("click", () => { language = say("other_code"); if (last) show(last); else translate(); });
get("write").addEventListener("click", async () => {
  const answer = await fetch("write", {method: "POST", headers: {"content-type": "application/json"}, body: "{}"}).catch(() => null);
  const found = answer && (answer.ok || answer.status === 409) ? await answer.json() : {refused: "disk"};
  get("wrote").textContent = found.refused ? say("refused")[found.refused] : say("written", found.tables);
});
translate();
look();
setInterval(look, 10000);
