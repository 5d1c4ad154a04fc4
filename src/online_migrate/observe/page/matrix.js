"use strict";
// Tables × steps; on a narrow screen tables × stages.  Built once, then only what changed is updated.

const NO_TABLE = "(no table)";
const narrow = window.matchMedia("(max-width: 44rem)");
const WORDS = { done: "done", running: "running", pending: "pending", failed: "failed", "": "" };
let matrix = null;

function state_of(steps) {
  const states = new Set(steps.map((step) => step.state));
  if (states.size < 2) return steps.length ? steps[0].state : "";
  if (states.has("failed")) return "failed";
  return states.has("running") || states.has("done") ? "running" : "pending";
}

// The state of a table: it is running if one of its steps is.
function row_state(steps) {
  const states = new Set(steps.map((step) => step.state));
  return states.has("failed") ? "failed" : states.has("running") ? "running" : states.size === 1 && states.has("done") ? "done" : "pending";
}

function columns_of(stages) {
  if (narrow.matches) return stages.map((stage) => ({ stage, title: null, steps: stage.steps, is_first: true }));
  return stages.flatMap((stage) => {
    const titles = [...new Set(stage.steps.map((step) => step.step))];
    return titles.map((title, i) => ({ stage, title, steps: stage.steps.filter((s) => s.step === title), is_first: !i }));
  });
}

function draw_matrix(stages) {
  const columns = columns_of(stages), rows = new Map();
  const names = [...new Set(stages.flatMap((stage) => stage.steps.map((step) => step.table)))];
  for (const name of [...names.filter((n) => n !== null), ...names.filter((n) => n === null)]) {
    rows.set(name, columns.map(() => []));
  }
  columns.forEach((column, i) => column.steps.forEach((step) => rows.get(step.table)[i].push(step)));
  const shape = JSON.stringify([names, columns.map((c) => [c.stage.stage, c.title])]);
  if (!matrix || matrix.shape !== shape) build_matrix(columns, [...rows.keys()], shape);
  for (const [name, cells] of rows) {
    const row = matrix.rows.get(name);
    row.state = row_state(cells.flat());
    cells.forEach((steps, i) => paint_cell(row.cells[i], steps));
  }
  filter_matrix();
}

function build_matrix(columns, names, shape) {
  const stages = [...new Set(columns.map((column) => column.stage))];
  const span = (stage) => columns.filter((column) => column.stage === stage).length;
  const stage_row = make("tr", {}, make("th", { rowspan: narrow.matches ? 1 : 2, scope: "col" }, make("span", { class: "vh" }, "Table")),
    ...stages.map((stage) => make("th", { scope: narrow.matches ? "col" : "colgroup", colspan: span(stage), title: stage.stage,
      class: "stage" }, make("span", {}, stage.stage))));
  const step_row = make("tr", {}, ...columns.map((column) =>
    make("th", { scope: "col", class: column.is_first ? "step first" : "step", title: column.title }, make("span", {}, column.title || ""))));
  const rows = new Map();
  const body = make("tbody", {}, ...names.map((name) => {
    const cells = columns.map((column) => ({ td: make("td", { class: "" }, make("i"), make("span", { class: "vh" })), column, key: null }));
    const tr = make("tr", {}, make("th", { scope: "row", title: name }, name === null ? NO_TABLE : name), ...cells.map((cell) => cell.td));
    rows.set(name, { tr, cells, state: "" });
    return tr;
  }));
  const head = narrow.matches ? make("thead", {}, stage_row) : make("thead", {}, stage_row, step_row);
  at("matrix").replaceChildren(make("table", { class: "grid-table" }, make("caption", { class: "vh" }, "The state of each step on each table"), head, body));
  at("matrix").classList.toggle("long", names.length > 60);
  matrix = { shape, rows };
}

function paint_cell(cell, steps) {
  const state = state_of(steps), busy = steps.find((step) => step.state === "running");
  const share = busy && busy.share_done !== null && steps.length === 1 ? busy.share_done : null;
  const key = `${state} ${share} ${steps.map((step) => step.rows_done + step.reason).join(" ")}`;
  if (cell.key === key) return;
  cell.key = key;
  const { td, column } = cell;
  td.className = `cell ${state}${column.is_first ? " first" : ""}${share === null ? " unknown" : ""}`;
  td.style.setProperty("--share", share === null ? "0%" : `${100 * share}%`);
  td.firstChild.hidden = !state;
  say(td.lastChild, share === null ? WORDS[state] : `${WORDS[state]}, ${share_text(share)}`);
  td.title = steps.map((step) => [`${step.step}: ${WORDS[step.state]}`,
    step.rows_done ? `${count_text(step.rows_done)} rows` : "", step.seconds === null ? "" : seconds_text(step.seconds), step.reason,
  ].filter(Boolean).join(", ")).join("\n");
}

function filter_matrix() {
  const wanted = at("show").value, part = at("find").value.trim().toLowerCase();
  let shown = 0;
  for (const [name, row] of matrix.rows) {
    const fits = !wanted || row.state === wanted || (wanted === "open" && row.state !== "done");
    const is_shown = fits && (!part || (name || NO_TABLE).toLowerCase().includes(part));
    if (row.tr.hidden === is_shown) row.tr.hidden = !is_shown;
    shown += is_shown && name !== null;
  }
  const all = matrix.rows.size - matrix.rows.has(null);
  say(at("shown"), shown === all ? `${all} tables` : `${shown} of ${all} tables`);
}
