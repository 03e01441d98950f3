"use strict";
(function () {
  const data = JSON.parse(document.getElementById("explorer-data").textContent);
  const root = document.getElementById("explorer");
  const [menu, xmenu] = root.querySelectorAll("select");
  const plot = root.querySelector("svg");
  const note = root.querySelector(".note");
  const tip = root.querySelector(".tip");
  const legend = document.querySelectorAll(".legend li");
  const directions = { "1": "higher is better", "-1": "lower is better", "0": "no better direction" };
  const gap = 12;

  function add(parent, name, attributes, text) {
    const element = document.createElementNS("http://www.w3.org/2000/svg", name);
    for (const key in attributes) element.setAttribute(key, attributes[key]);
    if (text !== undefined) element.textContent = text;
    parent.appendChild(element);
    return element;
  }

  function scale(values, start, length) {
    let low = Math.min(...values), high = Math.max(...values);
    const margin = (high - low || 1) * 0.07;
    low -= margin;
    high += margin;
    const map = (value) => start + ((value - low) / (high - low)) * length;
    map.holds = (value) => value >= low && value <= high;
    map.cut = (value) => map(Math.max(low, Math.min(high, value)));
    return map;
  }

  // The tip stands beside its point, on the side with more room, and above or below it where neither side has enough.
  function show(group, lines) {
    tip.replaceChildren();
    lines.forEach((line, i) => {
      const row = document.createElement(i ? "div" : "strong");
      row.textContent = line;
      tip.appendChild(row);
    });
    tip.hidden = false;
    const frame = root.getBoundingClientRect(), spot = group.querySelector(".target").getBoundingClientRect();
    const width = tip.offsetWidth, height = tip.offsetHeight;
    const before = spot.left - frame.left - gap - width, after = spot.right - frame.left + gap;
    const middle = (spot.top + spot.bottom) / 2 - frame.top;
    const beside = after + width <= frame.width ? after : before >= 0 ? before : null;
    tip.style.left = (beside ?? Math.max(0, Math.min(frame.width - width, spot.left - frame.left - width / 2))) + "px";
    tip.style.top = (beside !== null ? middle - height / 2 : spot.top - frame.top - height - gap) + "px";
  }

  function hide() {
    tip.hidden = true;
    document.querySelectorAll("#explorer .active, .legend .active").forEach((element) => element.classList.remove("active"));
  }

  // Names stand where they cover no point and no other name, or are left to the legend and the tip.
  function label(points, x, y, area) {
    const taken = points.map((p) => ({ left: x(p[1]) - 7, right: x(p[1]) + 7, top: y(p[2]) - 7, bottom: y(p[2]) + 7 }));
    for (const [number, px, py] of points) {
      const text = add(plot, "text", { class: "name" }, data.models[number].label);
      if (data.models[number].highlight) text.classList.add("own");
      const width = text.getComputedTextLength(), cx = x(px), cy = y(py);
      const spots = [[cx + 10, cy + 4], [cx - 10 - width, cy + 4], [cx - width / 2, cy - 11], [cx - width / 2, cy + 19]];
      const free = spots.find(([left, base]) => {
        const box = { left, right: left + width, top: base - 10, bottom: base + 3 };
        const inside = box.left >= area.left && box.right <= area.right && box.top >= area.top && box.bottom <= area.bottom;
        const clear = taken.every((t) => box.right < t.left || box.left > t.right || box.bottom < t.top || box.top > t.bottom);
        if (inside && clear) taken.push(box);
        return inside && clear;
      });
      if (!free) { text.remove(); continue; }
      text.setAttribute("x", free[0]);
      text.setAttribute("y", free[1]);
    }
  }

  // Points of a view at the values of a predictor: model number, x, y, low, high, lines of text.
  function place(view, predictor) {
    const scores = new Map(view.points.map((point) => [point[0], point]));
    return predictor.points.map(([number, x, text]) => {
      const [, y, low, high, lines] = scores.get(number);
      return [number, x, y, low, high, [`${predictor.label}: ${text}`, ...lines]];
    });
  }

  function draw(view, predictor) {
    plot.replaceChildren();
    hide();
    const points = place(view, predictor);
    note.textContent = [directions[view.better], predictor.note].filter(Boolean).join("; ");
    const width = Math.max(280, root.clientWidth), height = Math.round(Math.min(470, Math.max(300, width * 0.55)));
    plot.setAttribute("viewBox", `0 0 ${width} ${height}`);
    const area = { left: 58, top: 10, right: width - 10, bottom: height - 46 };
    const ends = points.flatMap((p) => [p[2], p[2], p[3] ?? p[2], p[4] ?? p[2]]);
    // An interval may be many times as long as the range of the points; it is cut there.
    const values = points.map((p) => p[2]), low = Math.min(...values), high = Math.max(...values);
    const room = 0.6 * (high - low || 1);
    const x = scale(points.map((p) => p[1]), area.left, area.right - area.left);
    const y = scale(ends.map((e) => Math.max(low - room, Math.min(high + room, e))), area.bottom, area.top - area.bottom);
    let edge = -Infinity;
    for (const [value, text] of predictor.xticks.filter((t) => x.holds(t[0]))) {
      add(plot, "line", { x1: x(value), x2: x(value), y1: area.top, y2: area.bottom, class: "grid" });
      if (x(value) - edge < 30) continue;
      edge = x(value);
      add(plot, "text", { x: x(value), y: area.bottom + 16, "text-anchor": "middle" }, text);
    }
    for (const [value, text] of view.yticks.filter((t) => y.holds(t[0]))) {
      add(plot, "line", { x1: area.left, x2: area.right, y1: y(value), y2: y(value), class: "grid" });
      add(plot, "text", { x: area.left - 7, y: y(value) + 4, "text-anchor": "end" }, text);
    }
    const middle = (area.top + area.bottom) / 2;
    add(plot, "text", { x: (area.left + area.right) / 2, y: area.bottom + 36, "text-anchor": "middle" }, predictor.label);
    const axis = view.better ? `${view.axis} (${view.better > 0 ? "↑" : "↓"} better)` : view.axis;
    add(plot, "text", { x: 13, y: middle, "text-anchor": "middle", transform: `rotate(-90 13 ${middle})` }, axis);
    if (predictor.line.length) {
      const [x1, y1, x2, y2] = predictor.line;
      add(plot, "line", { x1: x(x1), y1: y(y1), x2: x(x2), y2: y(y2), class: "fit" });
    }
    for (const [number, px, , bottom, top] of points) {
      if (bottom === null || top === null) continue;
      const ends = { x1: x(px), x2: x(px), y1: y.cut(bottom), y2: y.cut(top) };
      add(plot, "line", { ...ends, class: "whisker", stroke: data.models[number].color });
    }
    label(points, x, y, area);
    for (const [number, px, py, , , lines] of points) {
      const model = data.models[number];
      const text = [model.label, ...lines];
      const group = add(plot, "g", {
        transform: `translate(${x(px)} ${y(py)})`, class: "point", tabindex: 0, role: "img", "aria-label": text.join(", "),
      });
      if (model.highlight) add(group, "circle", { r: 12, class: "ring" });
      add(group, "circle", { r: 11, class: "target" });
      add(group, "path", { d: model.path, fill: model.color });
      const item = legend[number];
      const activate = () => {
        hide();
        group.classList.add("active");
        item.classList.add("active");
      };
      for (const event of ["pointerenter", "focus"]) group.addEventListener(event, () => { activate(); show(group, text); });
      for (const event of ["pointerleave", "blur"]) group.addEventListener(event, hide);
    }
  }

  function fill(select, texts) {
    select.replaceChildren(...texts.map((text, i) => new Option(text, i)));
  }

  fill(menu, data.views.map((view) => view.label));
  const redraw = () => draw(data.views[menu.value], data.views[menu.value].predictors[xmenu.value]);
  // The predictor stays when the view changes, where the view has it.
  function choose() {
    const before = xmenu.selectedOptions[0]?.textContent;
    const labels = data.views[menu.value].predictors.map((predictor) => predictor.label);
    fill(xmenu, labels);
    xmenu.value = Math.max(0, labels.indexOf(before));
    xmenu.parentElement.hidden = labels.length < 2;
    redraw();
  }
  menu.addEventListener("change", choose);
  xmenu.addEventListener("change", redraw);
  window.addEventListener("keydown", (event) => { if (event.key === "Escape") hide(); });
  root.hidden = false;
  choose();
  let drawn = root.clientWidth;
  window.addEventListener("resize", () => {
    if (root.clientWidth === drawn) return;
    drawn = root.clientWidth;
    redraw();
  });
})();
