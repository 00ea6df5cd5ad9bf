"use strict";
// Sorting of the answers' table: click or Enter on a heading.
for (const button of document.querySelectorAll("th button")) {
  button.addEventListener("click", () => {
    const head = button.closest("th");
    const table = head.closest("table");
    const column = [...head.parentNode.children].indexOf(head);
    const upwards = head.getAttribute("aria-sort") !== "ascending";
    for (const other of head.parentNode.children) other.removeAttribute("aria-sort");
    head.setAttribute("aria-sort", upwards ? "ascending" : "descending");
    const value = (row) => {
      const text = row.children[column].textContent.replaceAll(",", "").trim();
      return text === "–" ? -Infinity : Number.isNaN(Number(text)) ? text : Number(text);
    };
    const rows = [...table.tBodies[0].rows].sort((a, b) => {
      const [x, y] = [value(a), value(b)];
      const order = typeof x === typeof y ? (x < y ? -1 : x > y ? 1 : 0) : typeof x === "number" ? -1 : 1;
      return upwards ? order : -order;
    });
    table.tBodies[0].append(...rows);
  });
}
