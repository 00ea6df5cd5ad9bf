"use strict";
// Samples of a model: a list first, a text only when it is opened. Texts enter as text, never as HTML.
const base = document.body.dataset.root;
const loaded = new Map();

function load(path) {
  if (!loaded.has(path)) {
    loaded.set(path, fetch(base + path).then((reply) => {
      if (!reply.ok) throw new Error(`${path}: ${reply.status}`);
      return reply.json();
    }));
  }
  return loaded.get(path);
}

function make(tag, text, className) {
  const element = document.createElement(tag);
  if (text !== undefined) element.textContent = text;
  if (className) element.className = className;
  return element;
}

const show = (value, digits = 2) => (value === null || value === undefined ? "–" : value.toFixed(digits));

function complain(place, error) {
  const local = location.protocol === "file:" ? " Browsers load no data files from disk; serve the folder: python -m http.server" : "";
  place.replaceChildren(make("p", `The data could not be loaded (${error.message}).${local}`, "soft"));
}

async function loadText(row, items, index) {
  const place = items.places[index];
  if (!place) return null;
  return (await load(`data/${row}/texts-${place[0]}.json`))[place[1]];
}

async function loadPrompt(board, id) {
  const index = await load(`data/${board}/prompts.json`);
  const place = index[id];
  return place ? (await load(`data/${board}/prompts-${place[0]}.json`))[place[1]] : "";
}

function block(label, text, folded) {
  const box = make("div", text, "text");
  box.dir = "auto";
  box.tabIndex = 0;
  box.setAttribute("role", "group");
  box.setAttribute("aria-label", label);
  if (!folded) {
    const all = make("div");
    all.append(make("p", label, "label"), box);
    return all;
  }
  const details = make("details");
  details.append(make("summary", label), box);
  return details;
}

function showVerdict(verdict) {
  const all = make("div", undefined, "verdict");
  all.append(make("b", show(verdict.value)), make("span", verdict.criterion + (verdict.status === "ok" ? "" : ` (${verdict.status})`)));
  if (verdict.reason) all.append(make("p", verdict.reason));
  if (verdict.raw) all.append(block("What the judge wrote", verdict.raw, true));
  return all;
}

function showAnswer(text) {
  const all = make("div");
  if (!text) {
    all.append(make("p", "The text of this answer is not here.", "soft"));
    return all;
  }
  if (text.thinking) all.append(block(`Thinking (${text.thinking.length.toLocaleString("en")} characters)`, text.thinking, true));
  all.append(block("Answer", text.answer || "(empty)"));
  all.append(...text.verdicts.map(showVerdict));
  if (text.n_more_verdicts) all.append(make("p", `${text.n_more_verdicts} more verdicts are in the run folder.`, "soft"));
  return all;
}

function listSamples(place, items) {
  const { row, board } = place.dataset;
  const order = items.ids.map((_, i) => i);
  const list = make("div");
  const more = make("button", "Show more");
  more.type = "button";
  let shown = 0;
  const next = () => {
    for (const i of order.slice(shown, shown + 25)) list.append(entry(i));
    shown = Math.min(shown + 25, order.length);
    more.hidden = shown >= order.length;
  };
  const entry = (i) => {
    const details = make("details");
    const summary = make("summary");
    const status = items.statuses[i] === "ok" ? "" : ` · ${items.statuses[i]}`;
    summary.append(make("b", show(items.values[i]), "num"), ` ${items.ids[i]}`, make("span", `${status} · ${items.characters[i].toLocaleString("en")} characters`, "soft small"));
    details.append(summary);
    details.addEventListener("toggle", async () => {
      if (!details.open || details.children.length > 1) return;
      const inside = make("div");
      details.append(inside);
      try {
        const [prompt, text] = await Promise.all([loadPrompt(board, items.ids[i]), loadText(row, items, i)]);
        inside.append(block("Prompt", prompt || "(not recorded)"), showAnswer(text));
      } catch (error) { complain(inside, error); }
    });
    return details;
  };
  const sorts = { "in the suite's order": (a, b) => a - b, "lowest first": (a, b) => (items.values[a] ?? -Infinity) - (items.values[b] ?? -Infinity) || a - b, "highest first": (a, b) => (items.values[b] ?? -Infinity) - (items.values[a] ?? -Infinity) || a - b };
  const label = make("label", "Order ");
  const select = make("select");
  for (const name of Object.keys(sorts)) select.append(make("option", name));
  select.addEventListener("change", () => { order.sort(sorts[select.value]); list.replaceChildren(); shown = 0; next(); });
  label.append(select);
  const bar = make("div", undefined, "controls");
  bar.append(label, make("span", `${items.ids.length.toLocaleString("en")} answer${items.ids.length === 1 ? "" : "s"}, each with the mean of its verdicts`, "soft small"));
  more.addEventListener("click", next);
  place.append(bar, list, more);
  next();
}

// one list after another, the first on the page first: what is printed has them all
(async () => {
  for (const place of document.querySelectorAll(".samples")) {
    try { listSamples(place, await load(`data/${place.dataset.row}/items.json`)); } catch (error) { complain(place, error); }
  }
})();
