// The leaderboard: one protocol at a time, filtered and sorted; its state is in the address, so that a view can be linked.
"use strict";
const data = JSON.parse(document.getElementById("scores").textContent);
const element = (id) => document.getElementById(id);
const ANY = "all";
const FAMILY = 2, ARCH = 3, DATA = 4;
const state = { block: data.columns[0].block, dataset: ANY, arch: ANY, data: ANY, text: "", sort: "", down: true };

function unique(values) { return [...new Set(values)]; }

function fill(id, values, labels) {
  const select = element(id);
  select.replaceChildren(...values.map((value) => new Option(labels(value), value)));
  if (!values.includes(state[id])) state[id] = values[0];
  select.value = state[id];
}

function cell(row, name, text) {
  const made = document.createElement(name);
  made.textContent = text;
  row.append(made);
  return made;
}

function columns() {
  return data.columns.filter((c) => c.block === state.block && (state.dataset === ANY || c.dataset === state.dataset));
}

function shownModels(shown) {
  const scored = new Set(shown.flatMap((c) => c.values.map((v) => v[0])));
  const wanted = state.text.toLowerCase();
  return data.models.map((model, number) => ({ model, number })).filter(({ model, number }) => scored.has(number)
    && (state.arch === ANY || model[ARCH] === state.arch) && (state.data === ANY || model[DATA] === state.data)
    && (model[1].toLowerCase().includes(wanted) || model[FAMILY].toLowerCase().includes(wanted)));
}

function heading(row, text, key) {
  const made = cell(row, "th", "");
  made.scope = "col";
  const button = document.createElement("button");
  const sorted = state.sort === key;
  button.type = "button";
  button.dataset.key = key;
  button.textContent = text + (sorted ? (state.down ? " ↓" : " ↑") : "");
  made.setAttribute("aria-sort", sorted ? (state.down ? "descending" : "ascending") : "none");
  button.addEventListener("click", () => {
    state.down = sorted ? !state.down : true;
    state.sort = key;
    draw();
    element("board").querySelector(`button[data-key="${CSS.escape(key)}"]`).focus();
  });
  made.append(button);
}

function draw() {
  const blocks = unique(data.columns.map((c) => c.block));
  fill("block", blocks, (b) => b);
  fill("dataset", [ANY, ...unique(data.columns.filter((c) => c.block === state.block).map((c) => c.dataset))],
    (d) => (d === ANY ? "all" : data.datasets[d] || d));
  const inBlock = new Set(data.columns.filter((c) => c.block === state.block).flatMap((c) => c.values.map((v) => v[0])));
  const models = data.models.filter((_, number) => inBlock.has(number));
  fill("arch", [ANY, ...unique(models.map((m) => m[ARCH])).sort()], (a) => a);
  fill("data", [ANY, ...unique(models.map((m) => m[DATA])).sort()], (a) => a);
  element("text").value = state.text;
  const shown = columns();
  const keys = shown.map((c) => `${c.dataset}/${c.name}`);
  if (!keys.includes(state.sort) && state.sort !== "model") state.sort = keys[0];
  const rows = shownModels(shown);
  const values = shown.map((c) => new Map(c.values.map((v) => [v[0], v])));
  const by = keys.indexOf(state.sort);
  const sign = (state.down ? 1 : -1) * (by < 0 ? 1 : shown[by].better || 1);
  rows.sort((a, b) => {
    if (by < 0) return sign * a.model[1].localeCompare(b.model[1]);
    const [x, y] = [values[by].get(a.number), values[by].get(b.number)];
    if (!x || !y) return (x ? 0 : 1) - (y ? 0 : 1);
    return sign * (y[1] - x[1]);
  });
  const head = document.createElement("thead");
  const first = document.createElement("tr");
  heading(first, "Model", "model");
  shown.forEach((c, i) => heading(first, `${data.datasets[c.dataset] || c.dataset}: ${c.name}`, keys[i]));
  head.append(first);
  const body = document.createElement("tbody");
  for (const { model, number } of rows) {
    const row = document.createElement("tr");
    const name = cell(row, "th", "");
    name.scope = "row";
    const link = document.createElement("a");
    link.href = `models/${model[0]}.html`;
    link.textContent = model[1];
    name.append(link);
    shown.forEach((c, i) => {
      const found = values[i].get(number);
      const made = cell(row, "td", found ? found[1].toFixed(c.digits) : "–");
      if (!found) return;
      if (found[2] !== null) {
        const interval = document.createElement("small");
        interval.textContent = ` [${found[2].toFixed(c.digits)}, ${found[3].toFixed(c.digits)}]`;
        made.append(interval);
      }
      made.append((found[4] === "tied" ? "≈" : "") + (found[5] ? "‡" : ""));
      made.className = found[4];
      made.title = [model[ARCH], found[5] || "", found[4] === "tied" ? "not separable from the best" : ""].filter(Boolean).join("; ");
    });
    body.append(row);
  }
  element("board").replaceChildren(head, body);
  const untested = shown.filter((c) => !c.tested).length;
  element("status").textContent = `${rows.length} models, ${shown.length} columns`
    + (untested ? `; no paired tests in ${untested}, whose outcomes of test images are not known` : "");
  const address = new URLSearchParams(Object.entries(state).map(([key, value]) => [key, String(value)]));
  history.replaceState(null, "", `#${address}`);
}

for (const [key, value] of new URLSearchParams(location.hash.slice(1))) {
  if (key in state) state[key] = key === "down" ? value === "true" : value;
}
for (const id of ["block", "dataset", "arch", "data"]) {
  element(id).addEventListener("change", (event) => { state[id] = event.target.value; draw(); });
}
element("text").addEventListener("input", (event) => { state.text = event.target.value; draw(); });
element("filters").addEventListener("submit", (event) => event.preventDefault());
draw();
