"use strict";
// Filters: show the steps with a flag, and only the traces that hold one.
for (const group of document.querySelectorAll(".filters")) {
  const section = group.closest("section");
  const output = group.querySelector("output");
  const apply = () => {
    const wanted = group.querySelector("input:checked").value;
    const has = (node) => wanted === "all" || node.dataset.flags.split(" ").includes(wanted);
    let shown = 0;
    for (const trace of section.querySelectorAll(".trace")) {
      trace.hidden = !has(trace);
      for (const step of trace.querySelectorAll(".step")) {
        step.hidden = !has(step);
        if (!step.hidden) shown += 1;
      }
    }
    output.textContent = wanted === "all" ? "" : `${shown} step${shown === 1 ? "" : "s"}`;
  };
  group.addEventListener("change", apply);
  apply();
}
