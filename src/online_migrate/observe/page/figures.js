"use strict";
// Elements and figures.  Text goes into the page as text only: a table may be called <script>.

const SVG = "http://www.w3.org/2000/svg";

function make(name, attributes, ...children) {
  const is_svg = ["svg", "g", "path", "rect", "line", "text", "circle", "title"].includes(name);
  const element = is_svg ? document.createElementNS(SVG, name) : document.createElement(name);
  for (const [key, value] of Object.entries(attributes || {})) {
    if (value !== null && value !== undefined && value !== false) element.setAttribute(key, value);
  }
  element.append(...children.filter((child) => child !== null && child !== undefined && child !== ""));
  return element;
}

// A text that may be broken after _ and /, as table names need.
function breakable(text) {
  const parts = String(text).split(/(?<=[_/])/), pieces = [];
  parts.forEach((part, i) => pieces.push(...(i ? [make("wbr"), part] : [part])));
  return pieces;
}

const at = (id) => document.getElementById(id);

// Changes the text only if it is different: a screen reader reads a live region aloud at each change.
function say(element, text) {
  if (element.textContent !== text) element.textContent = text;
}

function seconds_text(seconds) {
  if (seconds === null || seconds === undefined) return "n/a";
  if (seconds < 1) return `${Math.round(seconds * 1000)} ms`;
  if (seconds < 9.95) return `${seconds.toFixed(1)} s`;
  const whole = Math.round(seconds);
  const two = (n) => String(Math.floor(n)).padStart(2, "0");
  if (whole < 60) return `${whole} s`;
  if (whole < 3600) return `${Math.floor(whole / 60)} min ${two(whole % 60)} s`;
  if (whole < 86400) return `${Math.floor(whole / 3600)} h ${two((whole % 3600) / 60)} min`;
  return `${Math.floor(whole / 86400)} d ${two((whole % 86400) / 3600)} h`;
}

const count_text = (n) => (n === null || n === undefined ? "?" : Math.round(n).toLocaleString("en-US"));
const share_text = (share) => `${Math.floor(share * 100)} %`;

function short_count(n) {
  for (const [limit, divisor, unit] of [[9950, 1, ""], [999500, 1e3, "k"], [999500000, 1e6, "M"]]) {
    if (n < limit) return unit && n / divisor < 9.95 ? `${(n / divisor).toFixed(1)}${unit}` : `${Math.round(n / divisor)}${unit}`;
  }
  return `${(n / 1e9).toFixed(1)}G`;
}

function bytes_text(bytes) {
  let size = Math.abs(bytes), unit = 0;
  while (size >= 1024 && unit < 4) { size /= 1024; unit += 1; }
  return `${bytes < 0 ? "−" : ""}${unit ? size.toFixed(1) : size} ${["B", "kB", "MB", "GB", "TB"][unit]}`;
}

const clock_text = (iso) => new Date(iso).toLocaleTimeString("en-GB");
const date_text = (iso) => new Date(iso).toLocaleString("en-GB", { dateStyle: "medium", timeStyle: "medium" });
const ms = (iso) => new Date(iso).getTime();

function track(share) {
  const full = make("i");
  full.style.width = `${100 * (share || 0)}%`;
  return make("div", { class: "track", "aria-hidden": "true" }, full);
}
