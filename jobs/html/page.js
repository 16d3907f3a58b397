// Switches, toggles and sorting. The page says everything without it, only all of it at once.
"use strict";
document.documentElement.classList.remove("no-js");

// <fieldset data-switch="slice"> with radio buttons: of the [data-slice] beside it, those of the chosen value
// are shown
for (const set of document.querySelectorAll("fieldset[data-switch]")) {
  const name = set.dataset.switch, attribute = `data-${name}`;
  const show = () => {
    const chosen = set.querySelector("input:checked").value;
    for (const part of set.parentElement.querySelectorAll(`[${attribute}]`))
      part.classList.toggle("off", part.getAttribute(attribute) !== chosen);
  };
  set.addEventListener("change", show);
  show();
}

// <fieldset data-toggle="run"> with check boxes: of the page's [data-run], those of the checked values are shown
for (const set of document.querySelectorAll("fieldset[data-toggle]")) {
  const attribute = `data-${set.dataset.toggle}`;
  set.addEventListener("change", () => {
    const chosen = new Set([...set.querySelectorAll("input:checked")].map((input) => input.value));
    for (const part of document.querySelectorAll(`[${attribute}]`))
      part.classList.toggle("off", !chosen.has(part.getAttribute(attribute)));
  });
}

// <table class="sortable">: a heading sorts by its column, by data-sort where a cell has one; unknown values stand last
const collator = new Intl.Collator(undefined, {numeric: true});
for (const table of document.querySelectorAll("table.sortable")) {
  const headings = [...table.tHead.rows[0].cells];
  headings.forEach((heading, column) => {
    if (heading.classList.contains("plot") || !heading.textContent.trim()) return;
    const button = document.createElement("button");
    button.type = "button";
    button.append(...heading.childNodes);
    heading.append(button);
    button.addEventListener("click", () => {
      const up = heading.getAttribute("aria-sort") !== "ascending";
      const key = (row) => row.cells[column].dataset.sort ?? row.cells[column].textContent.trim();
      const rows = [...table.tBodies[0].rows].sort((a, b) => {
        const [one, two] = [key(a), key(b)];
        if (!one || !two) return !one - !two;
        const order = isNaN(one) || isNaN(two) ? collator.compare(one, two) : one - two;
        return up ? order : -order;
      });
      headings.forEach((other) => other.removeAttribute("aria-sort"));
      heading.setAttribute("aria-sort", up ? "ascending" : "descending");
      table.tBodies[0].append(...rows);
    });
  });
}
