"use strict";
// Sorting, search and columns of the ranking. The table is complete without this script.
const table = document.getElementById("ranking");
const body = table.tBodies[0];
const controls = document.getElementById("controls");
const search = document.getElementById("search");
const nulls = document.getElementById("nulls");
const which = document.getElementById("which");
const count = document.getElementById("count");

const read = (row, column, kind) => {
  const cell = row.cells[column];
  const value = cell.dataset.v ?? cell.textContent.trim();
  if (kind === "text") return value.toLowerCase();
  return value === "" ? null : Number(value);
};

function sortBy(button, upwards) {
  const head = button.closest("th");
  const column = head.cellIndex;
  const kind = button.dataset.kind;
  for (const other of head.parentNode.cells) other.removeAttribute("aria-sort");
  head.setAttribute("aria-sort", upwards ? "ascending" : "descending");
  const rows = [...body.rows].map((row) => [read(row, column, kind), row]);
  // what is missing stands last, whichever way the column is sorted
  rows.sort(([a], [b]) => {
    if (a === null || b === null) return (a === null) - (b === null);
    const order = a < b ? -1 : a > b ? 1 : 0;
    return upwards ? order : -order;
  });
  body.append(...rows.map(([, row]) => row));
}

function filter() {
  const words = search.value.toLowerCase().split(/\s+/).filter((word) => word && word !== "-");
  const fits = (name, word) => (word.startsWith("-") ? !name.includes(word.slice(1)) : name.includes(word));
  let shown = 0;
  for (const row of body.rows) {
    const hidden = (!nulls.checked && row.classList.contains("null")) || !words.every((word) => fits(row.dataset.name, word));
    row.hidden = hidden;
    shown += !hidden;
  }
  count.textContent = `${shown} of ${body.rows.length} systems`;
}

function choose() {
  for (const row of body.rows) {
    const cell = row.querySelector(".score");
    cell.textContent = cell.dataset[which.value];
    cell.dataset.v = which.value === "raw" ? cell.dataset.raw.replaceAll(",", "").replace("−", "-") : cell.dataset.adjustedV;
  }
  sortBy(table.querySelector('[data-key="score"]'), false);
}

for (const button of table.querySelectorAll("thead button")) {
  button.addEventListener("click", () => {
    const now = button.closest("th").getAttribute("aria-sort");
    // numbers start with the highest, names and ranks with the first
    const first = button.dataset.kind === "text" || button.dataset.key === "rank";
    sortBy(button, now === null ? first : now === "descending");
  });
}
search.addEventListener("input", filter);
nulls.addEventListener("change", filter);
which.addEventListener("change", choose);
document.getElementById("wide").addEventListener("change", (event) => table.classList.toggle("all-columns", event.target.checked));
controls.hidden = false;
filter();
