"use strict";
// Rates and stages over time, drawn as SVG at the available width.

const LEFT = 48, RIGHT = 12, TOP = 10, BOTTOM = 22;

function ticks_of(largest, wanted) {
  const rough = largest / wanted, power = 10 ** Math.floor(Math.log10(rough || 1));
  const step = [1, 2, 2.5, 5, 10].map((f) => f * power).find((s) => s >= rough) || 1;
  const ticks = [];
  for (let tick = 0; tick < largest + step * 0.999; tick += step) ticks.push(tick);
  return ticks;
}

const TIME_STEPS = [1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 14400, 21600, 43200, 86400, 172800, 604800];

function time_ticks(begin, end, wanted) {
  const rough = (end - begin) / 1000 / wanted;
  const step = 1000 * (TIME_STEPS.find((s) => s >= rough) || 2592000);
  const shift = new Date(begin).getTimezoneOffset() * 60000, ticks = [];
  for (let tick = Math.ceil((begin - shift) / step) * step + shift; tick <= end; tick += step) ticks.push(tick);
  const text = (t) => {
    const date = new Date(t);
    if (step >= 86400000) return date.toLocaleDateString("en-GB", { day: "numeric", month: "short" });
    return date.toLocaleTimeString("en-GB", step < 60000 ? {} : { hour: "2-digit", minute: "2-digit" });
  };
  return ticks.map((t) => [t, text(t)]);
}

function time_axis(svg, x, begin, end, width, height) {
  const wanted = Math.max(2, Math.floor(width / 130));
  for (const [tick, text] of time_ticks(begin, end, wanted)) {
    const place = x(tick);
    if (place < LEFT + 20 || place > width - 24) continue;
    svg.append(make("text", { x: place, y: height - 5, "text-anchor": "middle" }, text));
  }
}

function draw_curve(box, curve, holds) {
  const width = box.clientWidth || 600, height = 190;
  if (!curve) {
    box.replaceChildren(make("p", { class: "muted" }, "No rows have been written yet."));
    return;
  }
  const begin = ms(curve.begins_at), end = Math.max(ms(curve.ends_at), begin + 1000);
  const ticks = ticks_of(Math.max(...curve.rates, 1), 3), top = ticks[ticks.length - 1];
  const x = (t) => LEFT + ((t - begin) / (end - begin)) * (width - LEFT - RIGHT);
  const y = (rate) => TOP + (1 - rate / top) * (height - TOP - BOTTOM);
  const middle = (i) => Math.min(begin + (i + 0.5) * curve.bucket_s * 1000, (begin + i * curve.bucket_s * 1000 + end) / 2);
  const last = curve.rates[curve.rates.length - 1], highest = Math.max(...curve.rates);
  const svg = make("svg", { viewBox: `0 0 ${width} ${height}`, height, role: "img",
    "aria-label": `Rows per second from ${clock_text(begin)} to ${clock_text(end)}: last ${count_text(last)}, highest ${count_text(highest)}` });
  for (const hold of holds) {
    const from = Math.max(begin, ms(hold.begins_at)), to = hold.ends_at ? ms(hold.ends_at) : end;
    if (to <= begin || from >= end) continue;
    const place = { x: x(from), width: Math.max(1.5, x(to) - x(from)) };
    svg.append(make("rect", { ...place, y: TOP, height: height - TOP - BOTTOM, class: "hold" }));
    svg.append(make("rect", { ...place, y: height - BOTTOM - 3, height: 3, class: "hold-edge" }, make("title", {}, hold.reason)));
  }
  for (const tick of ticks) {
    svg.append(make("line", { x1: LEFT, x2: width - RIGHT, y1: y(tick), y2: y(tick), class: "grid" }));
    svg.append(make("text", { x: LEFT - 8, y: y(tick) + 4, "text-anchor": "end" }, short_count(tick)));
  }
  const points = curve.rates.map((rate, i) => [x(middle(i)), y(rate)]);
  const path = points.map(([a, b], i) => `${i ? "L" : "M"}${a.toFixed(1)} ${b.toFixed(1)}`).join("");
  const first = points[0], final = points[points.length - 1];
  svg.append(make("path", { d: `${path}L${final[0]} ${y(0)}L${first[0]} ${y(0)}Z`, class: "area" }));
  svg.append(make("path", { d: path, class: "line" }));
  svg.append(make("circle", { cx: final[0], cy: final[1], r: 3, class: "point" }));
  time_axis(svg, x, begin, end, width, height);
  const readout = make("p", { class: "readout" }, ...chart_keys(holds));
  box.replaceChildren(svg, readout);
  svg.addEventListener("pointermove", (event) => {
    const share = (event.clientX - svg.getBoundingClientRect().left - LEFT) / (width - LEFT - RIGHT);
    const i = Math.min(curve.rates.length - 1, Math.max(0, Math.floor((share * (end - begin)) / curve.bucket_s / 1000)));
    say(readout, `${clock_text(begin + i * curve.bucket_s * 1000)}: ${count_text(curve.rates[i])} rows/s`);
  });
  svg.addEventListener("pointerleave", () => readout.replaceChildren(...chart_keys(holds)));
}

function chart_keys(holds) {
  const keys = [make("span", { class: "key" }, "written")];
  if (holds.length) keys.push(make("span", { class: "key hold" }, "held"));
  return keys;
}

// Stages as bars over the whole run, when it was held, and when no runner was at work.
function draw_timeline(box, report) {
  const width = box.clientWidth || 900, row = 24, name = Math.min(130, width / 3.4);
  const spans = report.stages.filter((stage) => stage.begins_at);
  const begin = ms(report.begins_at), end = Math.max(ms(report.ends_at), begin + 1000);
  const height = TOP + row * spans.length + BOTTOM;
  const x = (t) => name + ((t - begin) / (end - begin)) * (width - name - RIGHT);
  const svg = make("svg", { viewBox: `0 0 ${width} ${height}`, height, role: "img",
    "aria-label": "Stages over time; the table below has the same figures" });
  const bottom = TOP + row * spans.length;
  for (const away of report.away) {
    svg.append(make("rect", { x: x(ms(away.begins_at)), width: Math.max(1, x(ms(away.ends_at)) - x(ms(away.begins_at))), y: TOP, height: bottom - TOP, class: "away" },
      make("title", {}, `no runner at work: ${away.outcome}`)));
  }
  spans.forEach((stage, i) => {
    const from = x(ms(stage.begins_at)), to = x(stage.ends_at ? ms(stage.ends_at) : end), y = TOP + i * row;
    svg.append(make("text", { x: 0, y: y + 16, class: "name" }, stage.stage));
    svg.append(make("rect", { x: from, width: Math.max(2, to - from), y: y + 5, height: row - 12, rx: 2, class: `span ${stage.phase}` },
      make("title", {}, `${stage.stage}: ${seconds_text(stage.seconds)}`)));
  });
  for (const hold of report.holds) {
    const from = x(ms(hold.begins_at)), to = x(hold.ends_at ? ms(hold.ends_at) : end);
    svg.append(make("rect", { x: from, width: Math.max(1.5, to - from), y: bottom - 2, height: 5, class: "hold-edge" },
      make("title", {}, `${hold.kind}: ${hold.reason}`)));
  }
  const wanted = Math.max(2, Math.floor((width - name) / 130));
  for (const [tick, text] of time_ticks(begin, end, wanted)) {
    if (x(tick) > width - 24 || x(tick) < name + 16) continue;
    svg.append(make("text", { x: x(tick), y: height - 3, "text-anchor": "middle" }, text));
  }
  const keys = [make("span", { class: "key" }, "stage running")];
  if (report.holds.length) keys.push(make("span", { class: "key hold" }, "held"));
  if (report.away.length) keys.push(make("span", { class: "key away" }, "no runner"));
  box.replaceChildren(svg, make("p", { class: "readout" }, ...keys));
}
