"use strict";
// Head to head: the paired test, and the prompts where two systems differ most.
const page = document.getElementById("versus");
const first = document.getElementById("first");
const second = document.getElementById("second");
const N_EACH_WAY = 5;

const showP = (p) => (p === null ? "–" : p < 0.0001 ? "< 0.0001" : p.toFixed(4));
const isZero = (value) => Math.abs(value).toFixed(2) === "0.00";
const direction = (value) => (isZero(value) ? "soft" : value > 0 ? "up" : "down");
const signed = (value) => (value === null ? "–" : isZero(value) ? "0.00" : (value < 0 ? "−" : "+") + Math.abs(value).toFixed(2));

async function loadTest(a, b) {
  const tests = await load(`data/${page.dataset.board}/pairs/${a}.json`);
  return tests[b] ?? null;
}

function means(items) {
  const found = new Map();
  items.ids.forEach((id, i) => {
    if (items.values[i] === null) return;
    const one = found.get(id) ?? { sum: 0, n: 0, index: i };
    one.sum += items.values[i];
    one.n += 1;
    found.set(id, one);
  });
  return found;
}

function fact(name, value) {
  const all = make("div");
  all.append(make("dt", name), make("dd", value));
  return all;
}

function conclude(test, names) {
  const verdict = document.getElementById("verdict");
  if (!test || test.difference === null) {
    verdict.textContent = "These two have no prompt in common that both were scored on.";
    document.getElementById("figures").replaceChildren();
    return;
  }
  const told = test.p_holm !== null && test.p_holm <= 0.05;
  const [better, worse] = test.difference > 0 ? names : [names[1], names[0]];
  verdict.textContent = told ? `${better} is better than ${worse} on these prompts.` : `The tests do not tell ${names[0]} and ${names[1]} apart.`;
  document.getElementById("figures").replaceChildren(
    fact("Difference", signed(test.difference)),
    fact("95 % interval", test.low === null ? "–" : `${signed(test.low)} to ${signed(test.high)}`),
    fact("p", showP(test.p_value)),
    fact("p (Holm, whole board)", showP(test.p_holm)),
    fact("Common prompts", String(test.n_common)),
  );
}

function showDifference(id, gap, sides, names) {
  const details = make("details");
  const summary = make("summary");
  summary.append(make("b", signed(gap), `${direction(gap)} num`), ` ${id} `, make("span", sides.map((side) => show(side.value)).join(" against "), "soft small"));
  details.append(summary);
  details.addEventListener("toggle", async () => {
    if (!details.open || details.children.length > 1) return;
    const inside = make("div");
    details.append(inside);
    try {
      const prompt = await loadPrompt(page.dataset.board, id);
      const texts = await Promise.all(sides.map((side) => loadText(side.row, side.items, side.index)));
      const pair = make("div", undefined, "sides");
      texts.forEach((text, i) => {
        const side = make("div");
        side.append(make("h3", names[i]), showAnswer(text));
        pair.append(side);
      });
      inside.append(block("Prompt", prompt || "(not recorded)"), pair);
    } catch (error) { complain(inside, error); }
  });
  return details;
}

let asked = 0;
async function compare() {
  const turn = ++asked;
  const rows = [first.value, second.value];
  const names = [first, second].map((select) => select.selectedOptions[0].textContent);
  history.replaceState(null, "", `#${rows.join(",")}`);
  const place = document.getElementById("differences");
  try {
    const [test, ...items] = await Promise.all([loadTest(...rows), ...rows.map((row) => load(`data/${row}/items.json`))]);
    if (turn !== asked) return;
    conclude(test, names);
    const tables = items.map(means);
    const gaps = [...tables[0].keys()].filter((id) => tables[1].has(id)).map((id) => {
      const sides = tables.map((table, i) => ({ value: table.get(id).sum / table.get(id).n, index: table.get(id).index, items: items[i], row: rows[i] }));
      return { id, sides, gap: sides[0].value - sides[1].value };
    });
    gaps.sort((a, b) => b.gap - a.gap || (a.id < b.id ? -1 : 1));
    const few = gaps.length <= 2 * N_EACH_WAY ? gaps : [...gaps.slice(0, N_EACH_WAY), ...gaps.slice(-N_EACH_WAY)];
    if (few.every((one) => isZero(one.gap))) place.replaceChildren(make("p", few.length ? "On every common prompt the mean verdicts agree." : "", "soft"));
    else place.replaceChildren(...few.map((one) => showDifference(one.id, one.gap, one.sides, names)));
  } catch (error) { complain(place, error); }
}

if (first.options.length > 1) {
  const [a, b] = location.hash.slice(1).split(",");
  const known = (slug) => [...first.options].some((option) => option.value === slug);
  if (known(a)) first.value = a;
  if (known(b)) second.value = b; else second.selectedIndex = first.selectedIndex === 0 ? 1 : 0;
  first.addEventListener("change", compare);
  second.addEventListener("change", compare);
  document.getElementById("swap").addEventListener("click", () => { [first.value, second.value] = [second.value, first.value]; compare(); });
  page.hidden = false;
  compare();
}
