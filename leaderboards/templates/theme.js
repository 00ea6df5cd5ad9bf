"use strict";
// Light, dark or the system's own; runs before the page is drawn, so that nothing flashes.
const themes = ["system", "light", "dark"];
const root = document.documentElement;
let theme = "system";
try { theme = localStorage.getItem("theme") || "system"; } catch { /* storage is off: the system decides */ }
if (theme !== "system") root.dataset.theme = theme;
document.addEventListener("DOMContentLoaded", () => {
  const button = document.getElementById("theme");
  const show = () => { button.textContent = `Theme: ${theme}`; };
  button.hidden = false;
  show();
  button.addEventListener("click", () => {
    theme = themes[(themes.indexOf(theme) + 1) % themes.length];
    if (theme === "system") delete root.dataset.theme; else root.dataset.theme = theme;
    try { localStorage.setItem("theme", theme); } catch { /* not kept: only for this page */ }
    show();
  });
});
