// How the page asks the server, again where the network was away, and keeps what arrives: in what review.js declares.
"use strict";
const RETRY = 1500; // ms until an answer is sent again that did not arrive
const identity = () => [...crypto.getRandomValues(new Uint8Array(16))].map((byte) => byte.toString(16).padStart(2, "0")).join("");
const pause = (ms) => new Promise((done) => setTimeout(done, ms));

async function post(path, body) {
  const answer = await fetch(path, {method: "POST", headers: {"content-type": "application/json"}, body: JSON.stringify({tab, ...body})});
  if (answer.status === 403) return {refused: "tab"};
  if (answer.status === 409 || answer.status === 503) return answer.json();
  if (!answer.ok) throw new Error(String(answer.status));
  return answer.json();
}

// again and again until it arrives: the same id is one answer, however often it is sent
async function surely(path, body) {
  for (;;) {
    try {
      const found = await post(path, body);
      complain("");
      return found;
    } catch {
      complain(say("offline"));
      await pause(RETRY);
    }
  }
}

function complain(message) { get("said").textContent = message; }

function counted(found) {
  if (found.total === undefined) return;
  count = found;
  get("state").textContent = say("state", count);
  get("bar").max = count.total;
  get("bar").value = count.done;
}

function arrived(rows) {
  for (const one of rows) {
    one.image = new Image();
    one.image.className = "crop";
    one.image.alt = say("picture");
    one.image.src = `image/${one.row}/crop`;
    one.image.decode().catch(() => { one.broken = true; });
    queue.push(one);
  }
}
