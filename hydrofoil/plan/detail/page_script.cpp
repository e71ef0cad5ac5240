#include "hydrofoil/plan/detail/page_assets.h"

namespace hydrofoil::plan::detail {

const std::string_view kPageScript = R"js(
"use strict";
(() => {
const data = JSON.parse(document.getElementById("plan-data").textContent);
const color = name => `var(--${name})`;
const tip = document.getElementById("tip");

// -- text ------------------------------------------------------------------------------------------------------------
const BYTES = ["B", "KiB", "MiB", "GiB", "TiB", "PiB"];
const short = value => String(value >= 99.95 ? Math.round(value) : Number(value.toPrecision(3)));
function bytes(n) {
  let unit = 0, value = n;
  while (value >= 1024 && unit < 5) { value /= 1024; ++unit; }
  return `${short(value)} ${BYTES[unit]}`;
}
const timeUnit = s => s >= 1 ? [1, "s"] : s >= 1e-3 ? [1e-3, "ms"] : [1e-6, "\u00b5s"];
function time(s) { const [unit, name] = timeUnit(s); return `${short(s / unit)} ${name}`; }
function niceStep(span, most) {
  const raw = span / most, power = 10 ** Math.floor(Math.log10(raw));
  return [1, 2, 5, 10].map(f => f * power).find(step => step >= raw * (1 - 1e-9));
}
const where = (unit, module) => [unit >= 0 ? data.units[unit] : "", module >= 0 ? data.modules[module] : ""];

// -- drawing ---------------------------------------------------------------------------------------------------------
function node(parent, name, attributes = {}, text) {
  const child = document.createElementNS("http://www.w3.org/2000/svg", name);
  for (const key in attributes) child.setAttribute(key, attributes[key]);
  if (text !== undefined) child.textContent = text;
  return parent.appendChild(child);
}
function showTip(event, title, rows) {
  tip.replaceChildren();
  tip.appendChild(document.createElement("b")).textContent = title;
  const table = tip.appendChild(document.createElement("table"));
  for (const [name, value] of rows) {
    const row = table.insertRow();
    row.insertCell().textContent = name;
    row.insertCell().textContent = value;
  }
  tip.hidden = false;
  const width = document.documentElement.clientWidth, box = tip.getBoundingClientRect();
  const x = event.clientX + 14 + box.width > width ? event.clientX - 14 - box.width : event.clientX + 14;
  const y = event.clientY + 14 + box.height > innerHeight ? event.clientY - 14 - box.height : event.clientY + 14;
  tip.style.left = `${scrollX + Math.max(8, Math.min(x, width - 8 - box.width))}px`;
  tip.style.top = `${scrollY + Math.max(8, y)}px`;
}
const hideTip = () => { tip.hidden = true; };

// -- the timeline ----------------------------------------------------------------------------------------------------
// Micro steps that are left out take no room: `drawn` maps seconds of the step to seconds of the axis.
const gap = data.gap, gapEnd = gap.at + gap.length;
const drawn = t => t <= gap.at || gap.length === 0 ? t : t <= gapEnd ? gap.at : t - gap.length;
const undrawn = d => d <= gap.at || gap.length === 0 ? d : d + gap.length;
const whole = [0, drawn(data.end_s) || 1];
let view = whole;
const fixed = data.states.reduce((sum, state) => sum + state.bytes, 0);
const transient = point => point[1] + point[2] + point[3];
const points = data.memory, peak = data.peak.bytes;
const peakAt = points.find(point => fixed + transient(point) === peak);

const bands = [];
{
  const moments = points.map(p => [p[0], p[4], p[5]]).concat(data.events.map(e => [e[6], e[2], e[3]])).sort((a, b) => a[0] - b[0]);
  for (const [t, phase, micro] of moments) {
    const last = bands[bands.length - 1];
    if (last && last.phase === phase && last.micro === micro) continue;
    if (last) last.end = t;
    bands.push({begin: t, end: data.end_s, phase, micro});
  }
}

const box = document.getElementById("timeline"), back = document.getElementById("whole-step");
function draw() {
  const width = Math.max(280, box.clientWidth), left = 62, right = 8, plot = width - left - right;
  const top = 24, tall = width < 560 ? 190 : 260, lanesTop = top + tall + 26, laneHeight = 24, laneGap = 6;
  const bottom = lanesTop + 3 * (laneHeight + laneGap), height = bottom + 2;
  const svg = document.createElementNS("http://www.w3.org/2000/svg", "svg");
  for (const [key, value] of Object.entries({id: "timeline-svg", width, height, viewBox: `0 0 ${width} ${height}`, role: "img",
    "aria-label": "Memory over time, and what computes and communicates below it; the tables below have the sums"})) svg.setAttribute(key, value);
  const clip = node(node(svg, "clipPath", {id: "plot-area"}), "rect", {x: left, y: 0, width: plot, height});
  const span = view[1] - view[0];
  const x = t => left + (drawn(t) - view[0]) / span * plot;
  const limitShown = data.limit !== null && data.limit <= 2 * peak;
  const most = 1.12 * Math.max(peak, limitShown ? data.limit : 0, 1);
  const y = b => top + tall - b / most * tall;

  // Memory: bands of permanent state, then steps of what comes and goes.
  const unit = BYTES.findLastIndex((name, i) => most >= 1024 ** i), step = niceStep(most / 1024 ** unit, 5);
  for (let value = 0; value * 1024 ** unit <= most; value += step) {
    const at = Math.round(y(value * 1024 ** unit)) + 0.5;
    node(svg, "line", {class: "grid", x1: left, x2: left + plot, y1: at, y2: at});
    node(svg, "text", {class: "soft", x: left - 6, y: at + 4, "text-anchor": "end"}, `${Number(value.toPrecision(6))} ${BYTES[unit]}`);
  }
  const memory = node(svg, "g", {id: "memory", "clip-path": "url(#plot-area)"});
  let base = 0;
  for (const state of data.states) {
    if (state.bytes > 0) node(memory, "rect", {class: "state", x: left, width: plot, y: y(base + state.bytes), height: y(base) - y(base + state.bytes), fill: color(state.color)});
    base += state.bytes;
  }
  const stairs = level => {
    let path = `M${x(0).toFixed(2)} ${y(level(null)).toFixed(2)}`;
    for (const point of points) path += `H${x(point[0]).toFixed(2)}V${y(level(point)).toFixed(2)}`;
    return path + `H${x(data.end_s).toFixed(2)}`;
  };
  // Each area reaches down to the permanent state; the next one covers it.
  for (const [name, level] of [["workspace", p => p ? fixed + transient(p) : fixed], ["activations", p => p ? fixed + p[1] + p[2] : fixed], ["slots", p => p ? fixed + p[1] : fixed]]) {
    node(memory, "path", {class: "area", d: `${stairs(level)}V${y(fixed).toFixed(2)}H${x(0).toFixed(2)}Z`, fill: color(name)});
  }
  node(memory, "path", {id: "memory-curve", d: stairs(p => p ? fixed + transient(p) : fixed), fill: "none", stroke: color("ink"), "stroke-width": 0.7});

  // Phases above, a break where micro steps are left out.
  for (const band of bands) {
    const from = Math.max(left, x(band.begin)), to = Math.min(left + plot, x(band.end));
    if (to <= from) continue;
    if (from > left) node(svg, "line", {class: "grid", x1: from, x2: from, y1: 6, y2: bottom, "stroke-dasharray": "2 3"});
    for (const text of [`${band.phase} ${band.micro + 1}`, band.phase, band.phase[0]]) {
      if (6.3 * text.length > to - from - 4) continue;
      node(svg, "text", {class: "soft", x: (from + to) / 2, y: 15, "text-anchor": "middle"}, band.phase === "step" ? text.replace(/ .*/, "") : text);
      break;
    }
  }
  if (gap.count > 0 && drawn(gap.at) > view[0] && drawn(gap.at) < view[1]) {
    node(svg, "line", {id: "break", x1: x(gap.at), x2: x(gap.at), y1: 0, y2: bottom, stroke: color("page"), "stroke-width": 5});
    node(svg, "line", {x1: x(gap.at), x2: x(gap.at), y1: 0, y2: bottom, stroke: color("soft"), "stroke-width": 2, "stroke-dasharray": "6 3"});
  }

  // Ticks of each side of the break, in its own times.
  let taken = left - 100;
  const parts = gap.count > 0 ? [[0, gap.at], [gapEnd, data.end_s]] : [[0, data.end_s]];
  const tick = niceStep(span, Math.max(3, plot / 80)), [scale, name] = timeUnit(Math.max(tick, data.end_s / 20));
  for (const [begin, end] of parts) {
    const from = Math.max(begin, undrawn(view[0])), to = Math.min(end, undrawn(view[1]) + 1e-12 * span);
    for (let k = Math.ceil(from / tick - 1e-9); k * tick <= to; ++k) {
      const at = x(k * tick), text = `${Number((k * tick / scale).toPrecision(6))} ${name}`;
      node(svg, "line", {class: "grid", x1: at, x2: at, y1: top + tall, y2: top + tall + 5});
      if (at - taken < 7 * text.length + 10) continue;
      const end = at > width - 30, start = at < left + 10;
      node(svg, "text", {class: "soft", x: end ? width - 2 : at, y: top + tall + 16, "text-anchor": end ? "end" : start ? "start" : "middle"}, text);
      taken = at;
    }
  }

  // Lanes.
  const lanes = ["compute", "gather", "reduce"];
  lanes.forEach((lane, i) => {
    const laneY = lanesTop + i * (laneHeight + laneGap);
    node(svg, "text", {x: left - 6, y: laneY + 16, "text-anchor": "end"}, lane);
    node(svg, "rect", {x: left, y: laneY, width: plot, height: laneHeight, fill: color("panel")});
    const group = node(svg, "g", {class: "lane", "data-lane": lane, "clip-path": "url(#plot-area)"});
    let count = 0;
    data.events.forEach((event, index) => {
      if (event[1] !== lane) return;
      ++count;
      const from = x(event[6]), to = x(event[7]);
      if (to < left || from > left + plot) return;
      const wide = Math.max(0.8, to - from - (to - from > 4 ? 1 : 0));
      const fill = event[0] === "compute" ? event[2] : event[0] === "publish" ? "gather" : event[0];
      node(group, "rect", {class: "event", "data-event": index, x: from.toFixed(2), y: laneY, width: wide.toFixed(2), height: laneHeight, rx: wide > 6 ? 2 : 0, fill: color(fill)});
      const [unitName, moduleName] = where(event[4], event[5]), label = unitName || moduleName;
      if (label && 6.6 * label.length < wide - 6) node(group, "text", {class: "label", x: from + wide / 2, y: laneY + 16, "text-anchor": "middle"}, label);
    });
    if (count === 0) node(group, "text", {class: "soft", x: left + 8, y: laneY + 16}, lane === "compute" ? "not planned: no step was traced" : "nothing");
  });

  // Peak and limit, over everything else.
  const mark = node(svg, "g", {id: "peak"}), peakX = peakAt ? x(peakAt[0]) : left;
  const onLeft = peakX < left + plot / 2;
  if (peakX >= left && peakX <= left + plot) {
    node(mark, "circle", {cx: peakX, cy: y(peak), r: 4, fill: color("page"), stroke: color("ink"), "stroke-width": 2});
    node(mark, "text", {class: "halo", x: peakX + (onLeft ? 9 : -9), y: y(peak) - 3, "text-anchor": onLeft ? "start" : "end"}, `peak ${bytes(peak)}`);
  }
  if (data.limit !== null) {
    const group = node(svg, "g", {id: "limit"}), text = `memory of a rank ${bytes(data.limit)}`;
    const textX = onLeft ? left + plot - 4 : left + 6, anchor = onLeft ? "end" : "start";
    const lineY = limitShown ? y(data.limit) : top + 2;
    if (limitShown) node(group, "line", {x1: left, x2: left + plot, y1: lineY, y2: lineY, stroke: color("limit"), "stroke-width": 1.5, "stroke-dasharray": "7 4"});
    node(group, "text", {class: "halo", x: textX, y: limitShown ? lineY - 5 : lineY + 12, "text-anchor": anchor, style: `fill:${color("limit")}`}, limitShown ? text : `${text} (above)`);
  }
  const cursor = node(svg, "line", {id: "cursor", y1: top, y2: bottom, stroke: color("soft"), visibility: "hidden"});
  const shade = node(svg, "rect", {y: top, height: bottom - top, fill: color("soft"), opacity: 0.25, visibility: "hidden"});
  box.replaceChildren(svg);
  interact(svg, {left, plot, span, top, tall, cursor, shade});
}

// Hover names; a drag with the mouse zooms into its range, a double click shows the whole step again.
function interact(svg, {left, plot, span, top, tall, cursor, shade}) {
  const axis = clientX => Math.min(view[1], Math.max(view[0], view[0] + (clientX - svg.getBoundingClientRect().left - left) / plot * span));
  let start = null;
  const hover = event => {
    const rect = svg.getBoundingClientRect(), at = event.clientX - rect.left, down = event.clientY - rect.top;
    if (start !== null && Math.abs(event.clientX - start) > 4) {
      const from = Math.max(left, Math.min(start - rect.left, at)), to = Math.min(left + plot, Math.max(start - rect.left, at));
      for (const [key, value] of [["x", from], ["width", Math.max(0, to - from)], ["visibility", "visible"]]) shade.setAttribute(key, value);
      return hideTip();
    }
    const index = event.target.getAttribute && event.target.getAttribute("data-event");
    if (index !== null && index !== undefined) return showTip(event, ...describeEvent(data.events[index]));
    cursor.setAttribute("visibility", "hidden");
    if (at < left || at > left + plot || down < top || down > top + tall) return hideTip();
    for (const key of ["x1", "x2"]) cursor.setAttribute(key, at);
    cursor.setAttribute("visibility", "visible");
    showTip(event, ...describeMemory(undrawn(axis(event.clientX))));
  };
  svg.addEventListener("pointermove", hover);
  svg.addEventListener("pointerdown", event => { if (event.pointerType === "touch") hover(event); else start = event.clientX; });
  svg.addEventListener("pointerup", event => {
    if (start !== null && Math.abs(event.clientX - start) > 8) {
      const range = [axis(start), axis(event.clientX)].sort((a, b) => a - b);
      if (range[1] - range[0] > 1e-6 * whole[1]) { view = range; back.hidden = false; draw(); }
    }
    start = null;
    shade.setAttribute("visibility", "hidden");
  });
  svg.addEventListener("pointerleave", event => {
    if (event.pointerType === "touch") return;  // a finger leaves with each tap
    start = null;
    shade.setAttribute("visibility", "hidden");
    cursor.setAttribute("visibility", "hidden");
    hideTip();
  });
  svg.addEventListener("dblclick", showWhole);
}
function showWhole() { view = whole; back.hidden = true; hideTip(); draw(); }

function describeEvent(event) {
  const [activity, lane, phase, micro, unit, module, begin, end, size] = event, [unitName, moduleName] = where(unit, module);
  const rows = [["phase", phase === "step" ? phase : `${phase}, micro step ${micro + 1}`]];
  if (moduleName && unitName && moduleName !== unitName) rows.push(["module", moduleName]);
  if (size > 0) rows.push([activity === "update" ? "reads and writes" : "tensor", bytes(size)]);
  rows.push(["begins at", time(begin)], ["takes", time(end - begin)]);
  return [`${activity} ${unitName || moduleName}`, rows];
}
function describeMemory(t) {
  let low = 0, high = points.length;  // the last point that is not later
  while (low < high) { const middle = (low + high) >> 1; if (points[middle][0] <= t) low = middle + 1; else high = middle; }
  const point = points[low - 1] || [0, 0, 0, 0, "forward", 0, -1, -1];
  const [unitName, moduleName] = where(point[6], point[7]);
  const rows = [["time", time(t)], ["phase", point[4] === "step" ? "step" : `${point[4]}, micro step ${point[5] + 1}`]];
  if (unitName) rows.push(["unit", unitName]);
  if (moduleName) rows.push(["module", moduleName]);
  rows.push(["states", bytes(fixed)], ["units and buckets", bytes(point[1])], ["activations", bytes(point[2])], ["temporaries", bytes(point[3])]);
  return [`${bytes(fixed + transient(point))} in all`, rows];
}

// -- scaling ---------------------------------------------------------------------------------------------------------
function drawScaling(scaling, box) {
  const width = Math.max(280, box.clientWidth), left = 46, right = 14, top = 10, tall = 220, plot = width - left - right, height = top + tall + 36;
  const svg = document.createElementNS("http://www.w3.org/2000/svg", "svg");
  for (const [key, value] of Object.entries({id: "scaling-svg", width, height, viewBox: `0 0 ${width} ${height}`, role: "img",
    "aria-label": "Efficiency of ZeRO stages 1 to 3 over ranks; the table below has the numbers"})) svg.setAttribute(key, value);
  const worlds = [...new Set(scaling.points.map(p => p.world_size))], last = Math.max(1, worlds.length - 1);
  const x = world => left + worlds.indexOf(world) / last * plot, y = share => top + tall - share * tall;
  for (const share of [0, 0.25, 0.5, 0.75, 1]) {
    node(svg, "line", {class: "grid", x1: left, x2: left + plot, y1: y(share), y2: y(share)});
    node(svg, "text", {class: "soft", x: left - 6, y: y(share) + 4, "text-anchor": "end"}, `${100 * share} %`);
  }
  const every = Math.ceil(worlds.length * 38 / plot);
  worlds.forEach((world, i) => {
    if ((last - i) % every === 0) node(svg, "text", {class: "soft", x: Math.min(x(world), width - 14), y: top + tall + 16, "text-anchor": "middle"}, world);
  });
  node(svg, "text", {class: "soft", x: left + plot / 2, y: height - 4, "text-anchor": "middle"}, "ranks");
  // Stages 1 and 2 often fall together: the dashes let the line below be seen.
  [["1", ""], ["2", "7 6"], ["3", ""]].forEach(([stage, dash]) => {
    const curve = scaling.points.filter(p => p.stage === Number(stage));
    node(svg, "path", {class: "curve", "data-stage": stage, fill: "none", stroke: color(`stage${stage}`), "stroke-width": stage === "2" ? 2.5 : 3, "stroke-dasharray": dash,
      d: curve.map((p, i) => `${i ? "L" : "M"}${x(p.world_size).toFixed(1)} ${y(p.efficiency).toFixed(1)}`).join("")});
  });
  svg.addEventListener("pointermove", event => {
    const at = event.clientX - svg.getBoundingClientRect().left;
    const world = worlds.reduce((a, b) => Math.abs(x(b) - at) < Math.abs(x(a) - at) ? b : a);
    showTip(event, `${world} ranks`, scaling.points.filter(p => p.world_size === world).map(p =>
      [`stage ${p.stage}`, `${(100 * p.efficiency).toFixed(1)} %, ${time(p.step_seconds)}, ${bytes(p.peak_bytes)}`]));
  });
  svg.addEventListener("pointerleave", hideTip);
  box.replaceChildren(svg);
}

function drawAll() {
  draw();
  if (data.scaling) drawScaling(data.scaling, document.getElementById("scaling"));
}
back.addEventListener("click", showWhole);
let width = innerWidth;
addEventListener("resize", () => { if (innerWidth !== width) { width = innerWidth; hideTip(); drawAll(); } });
drawAll();
})();
)js";

}  // namespace hydrofoil::plan::detail
