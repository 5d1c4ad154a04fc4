"use strict";
// The sections of the report, which need the whole journal.

const NUMBER = "number";

// columns: [title, row → text or element, class]
function facts_table(caption, columns, rows) {
  const head = make("tr", {}, ...columns.map(([title, , kind]) => make("th", { scope: "col", class: kind }, title)));
  const content = (text) => (typeof text === "string" ? breakable(text) : [text]);
  const body = rows.map((row) => make("tr", {}, ...columns.map(([, text, kind], i) =>
    make(i ? "td" : "th", { class: kind, scope: i ? null : "row" }, ...content(text(row))))));
  return make("div", { class: "scroll" }, make("table", { class: "facts" }, make("caption", { class: "vh" }, caption),
    make("thead", {}, head), make("tbody", {}, ...body)));
}

function chapter(title, ...content) {
  const id = `chapter-${title.toLowerCase().replace(/[^a-z]+/g, "-")}`;
  return make("section", { "aria-labelledby": id }, make("h2", { id }, title), ...content);
}

const nothing = (text) => make("p", { class: "muted" }, text);

function draw_report(report) {
  const timeline = make("div");
  at("report").replaceChildren(
    chapter("Timeline", timeline, stage_table(report)),
    chapter("Holds", ...hold_tables(report)),
    chapter("Locks", ...lock_tables(report)),
    chapter("Throughput", throughput_table(report)),
    chapter("Growth", growth_table(report)),
    chapter("Approvals", approval_table(report)),
    chapter("Findings", finding_table(report)),
    chapter("Verified", ...verified_tables(report)));
  draw_timeline(timeline, report);
}

function stage_table(report) {
  return facts_table("Stages with their times", [
    ["Stage", (s) => s.stage], ["Phase", (s) => s.phase, "wide"], ["State", (s) => MARKS[s.state] || s.state],
    ["Started", (s) => (s.begins_at ? date_text(s.begins_at) : ""), "wide time"],
    ["Steps", (s) => `${s.steps_done} / ${s.steps_total}`, NUMBER],
    ["Duration", (s) => (s.seconds === null ? "" : seconds_text(s.seconds)), NUMBER],
  ], report.stages);
}

function hold_tables(report) {
  if (!report.holds.length) return [nothing("The run was never held.")];
  return [
    facts_table("Holds by kind", [
      ["Kind", (k) => k.kind], ["Count", (k) => count_text(k.times), NUMBER],
      ["Total", (k) => seconds_text(k.seconds), NUMBER], ["Longest", (k) => seconds_text(k.longest_s), NUMBER],
    ], report.hold_kinds),
    make("h3", {}, report.holds_left_out ? `The ${report.holds.length} longest` : "All of them"),
    facts_table("Holds", [
      ["Started", (h) => clock_text(h.begins_at), "time"], ["Duration", (h) => seconds_text(h.seconds), NUMBER], ["Where", (h) => h.place, "wide"],
      ["Reason", (h) => `${h.reason}${h.ends_at ? "" : " (still held)"}`],
    ], report.holds),
  ];
}

function lock_tables(report) {
  const sum = report.locks;
  if (!sum.windows && !sum.failed_attempts) return [nothing("No strong lock was requested.")];
  return [
    make("p", {}, `${count_text(sum.windows)} lock windows, ${count_text(sum.failed_attempts)} failed lock attempts. Held ${seconds_text(sum.held_p50_s)} (median), `
      + `${seconds_text(sum.held_p99_s)} (99th percentile), ${seconds_text(sum.held_longest_s)} at most. Waited ${seconds_text(sum.waited_longest_s)} at most.`),
    make("h3", {}, "By stage"),
    facts_table("Lock windows by stage", [
      ["Stage", (l) => l.stage], ["Windows", (l) => count_text(l.windows), NUMBER], ["Failed attempts", (l) => count_text(l.failed_attempts), NUMBER],
      ["Longest hold", (l) => seconds_text(l.held_longest_s), NUMBER], ["Longest wait", (l) => seconds_text(l.waited_longest_s), NUMBER],
    ], sum.stages),
    make("h3", {}, sum.longest.length < sum.windows ? `The ${sum.longest.length} longest` : "All of them"),
    facts_table("Lock windows", [
      ["At", (l) => clock_text(l.at), "time"], ["Relation", (l) => l.relation, "name"], ["Lock", (l) => l.lock, "wide time"], ["Step", (l) => l.place, "wide"],
      ["Waited", (l) => seconds_text(l.waited_s), NUMBER], ["Held", (l) => seconds_text(l.held_s), NUMBER],
      ["Attempts", (l) => count_text(l.attempts), `${NUMBER} wide`],
    ], sum.longest),
  ];
}

function throughput_table(report) {
  if (!report.throughput.length) return nothing("No rows were written.");
  return facts_table("Rows written by table", [
    ["Table", (t) => t.table], ["Rows", (t) => count_text(t.rows), NUMBER], ["Batches", (t) => count_text(t.batches), NUMBER],
    ["Writing", (t) => seconds_text(t.worked_s), NUMBER], ["Pausing", (t) => seconds_text(t.paused_s), `${NUMBER} wide`],
    ["Rows/s", (t) => (t.rate === null ? "n/a" : count_text(t.rate)), NUMBER],
    ["Left to the sweep", (t) => count_text(t.skipped_locked), `${NUMBER} wide`],
  ], report.throughput);
}

function growth_table(report) {
  if (!report.growth.length) return nothing("The journal has no table sizes of this run.");
  const change = (before, after) => (after === null ? "n/a" : `${after > before ? "+" : ""}${bytes_text(after - before)}`);
  return facts_table("Sizes of tables and of their indexes", [
    ["Table", (t) => t.table], ["Before", (t) => bytes_text(t.table_before), NUMBER], ["Change", (t) => change(t.table_before, t.table_after), NUMBER],
    ["Indexes before", (t) => bytes_text(t.indexes_before), `${NUMBER} wide`],
    ["Index change", (t) => change(t.indexes_before, t.indexes_after), NUMBER],
  ], report.growth);
}

function approval_table(report) {
  if (!report.approvals.length) return nothing("No gate was approved, no change accepted.");
  return facts_table("Approvals", [
    ["Stage", (a) => a.stage], ["By", (a) => a.approved_by], ["At", (a) => date_text(a.at), "wide time"], ["Note", (a) => a.note],
    ["State", (a) => a.state], ["Account", (a) => a.account],
  ], report.approvals);
}

function finding_table(report) {
  if (!report.findings.length) return nothing("The check had no findings.");
  return facts_table("Findings", [
    ["Severity", (f) => f.severity, "time"],
    ["Finding and remedy", (f) => make("div", {}, ...breakable(f.fact), make("div", { class: "muted" }, f.remedy))],
    ["Where", (f) => f.where, "wide"],
  ], report.findings);
}

function verified_tables(report) {
  const sum = make("p", {}, report.verified_text);
  if (!report.verified.length) return [sum];
  return [sum, make("h3", {}, "Verification steps"), facts_table("Verification steps", [
    ["Step", (v) => v.step], ["Stage", (v) => v.stage, "wide"], ["Tables", (v) => (v.tables ? count_text(v.tables) : ""), NUMBER],
    ["Passed", (v) => `${v.done} of ${v.total}`, NUMBER], ["Last", (v) => (v.at ? date_text(v.at) : ""), "wide time"],
  ], report.verified)];
}
