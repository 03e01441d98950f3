"use strict";
(function () {
  const data = JSON.parse(document.getElementById("explorer-data").textContent);
  const root = document.getElementById("explorer");
  const menu = root.querySelector("select");
  const plot = root.querySelector("svg");
  const note = root.querySelector(".note");
  const tip = root.querySelector(".tip");
  const box = { left: 62, top: 14, width: 560, height: 330 };

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
    return map;
  }

  function show(group, lines) {
    tip.replaceChildren();
    lines.forEach((line, i) => {
      const row = document.createElement(i ? "div" : "strong");
      row.textContent = line;
      tip.appendChild(row);
    });
    tip.hidden = false;
    const frame = root.getBoundingClientRect(), spot = group.getBoundingClientRect();
    const left = Math.min(spot.right - frame.left + 8, frame.width - tip.offsetWidth - 4);
    tip.style.left = Math.max(0, left) + "px";
    tip.style.top = spot.top - frame.top - 8 + "px";
  }

  function hide() {
    tip.hidden = true;
  }

  function draw(view) {
    plot.replaceChildren();
    hide();
    note.textContent = view.note;
    const x = scale(view.points.map((p) => p[1]), box.left, box.width);
    const y = scale(view.points.map((p) => p[2]), box.top + box.height, -box.height);
    const bottom = box.top + box.height, right = box.left + box.width;
    for (const [value, text] of view.xticks.filter((t) => x.holds(t[0]))) {
      add(plot, "line", { x1: x(value), x2: x(value), y1: box.top, y2: bottom, class: "grid" });
      add(plot, "text", { x: x(value), y: bottom + 16, "text-anchor": "middle" }, text);
    }
    for (const [value, text] of view.yticks.filter((t) => y.holds(t[0]))) {
      add(plot, "line", { x1: box.left, x2: right, y1: y(value), y2: y(value), class: "grid" });
      add(plot, "text", { x: box.left - 7, y: y(value) + 4, "text-anchor": "end" }, text);
    }
    add(plot, "text", { x: box.left + box.width / 2, y: bottom + 36, "text-anchor": "middle" }, data.source);
    const middle = box.top + box.height / 2;
    add(plot, "text", { x: 14, y: middle, "text-anchor": "middle", transform: `rotate(-90 14 ${middle})` }, view.axis);
    for (const [number, px, py, lines] of view.points) {
      const model = data.models[number];
      const label = [model.label, ...lines];
      const group = add(plot, "g", {
        transform: `translate(${x(px)} ${y(py)})`, class: "point", tabindex: 0, role: "img", "aria-label": label.join(", "),
      });
      if (model.highlight) add(group, "circle", { r: 12, class: "ring" });
      add(group, "circle", { r: 11, class: "target" });
      add(group, "path", { d: model.path, fill: model.color });
      for (const event of ["pointerenter", "focus"]) group.addEventListener(event, () => show(group, label));
      for (const event of ["pointerleave", "blur"]) group.addEventListener(event, hide);
    }
  }

  data.views.forEach((view, i) => {
    const option = document.createElement("option");
    option.value = i;
    option.textContent = view.label;
    menu.appendChild(option);
  });
  menu.addEventListener("change", () => draw(data.views[menu.value]));
  draw(data.views[0]);
  root.hidden = false;
})();
