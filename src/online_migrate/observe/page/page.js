"use strict";
// Draws a document: the one in this file, else the server's, every two seconds while the page is visible.

const POLL_MS = 2000, QUIET_MS = 15000;
const MARKS = { pending: "pending", waiting: "at its gate", running: "running", done: "done", failed: "failed" };
let drawn = null, etag = "", answered_at = Date.now(), changed_at = Date.now(), timer = 0;

function draw(doc) {
  drawn = doc;
  document.title = `${doc.word}: ${doc.plan}`;
  say(at("plan"), doc.plan);
  say(at("word"), doc.word);
  at("word").className = `word ${doc.word.replace("at a ", "").split(" ")[0]}`;
  if (doc.state === "starting") {
    say(at("facts"), "The journal has no run of this plan yet.");
    return;
  }
  say(at("facts"), [`run ${doc.run_id}`, `started ${date_text(doc.started_at)}`,
    doc.ended_at ? `ended ${date_text(doc.ended_at)}` : "", doc.is_live && doc.runner ? `by ${doc.runner}` : ""].filter(Boolean).join(" · "));
  draw_why(doc);
  draw_figures(doc);
  draw_stages(doc.stages);
  draw_working(doc);
  draw_blockers(doc.blockers);
  draw_curve(at("curve"), doc.curve, doc.holds);
  draw_events(doc.events);
  draw_matrix(doc.stages);
  say(at("foot"), `online-migrate ${doc.version}, read ${date_text(doc.read_at)}${doc.report ? ", from the journal" : ""}. This page only reads.`);
}

const names_text = (names) => (names.length > 3 ? `${names.slice(0, 2).join(", ")} and ${names.length - 2} more` : names.join(" and "));

// Why it waits; if tables that run side by side wait for different reasons, each with its name, a few of each kind.
function wait_lines(waits) {
  const reasons = [...new Set(waits.map((wait) => wait.reason))];
  if (reasons.length < 2) return reasons;
  return [...new Set(waits.map((wait) => wait.kind))].flatMap((kind) => {
    const same = waits.filter((wait) => wait.kind === kind), own = [...new Set(same.map((wait) => wait.reason))];
    const shown = own.length > 3 ? own.slice(0, 2) : own, rest = same.filter((wait) => !shown.includes(wait.reason)).length;
    const lines = shown.map((reason) => `${names_text(same.filter((wait) => wait.reason === reason).map((wait) => wait.place))}: ${reason}`);
    return rest ? [...lines, `${rest} more (${kind})`] : lines;
  });
}

function since_text(waits) {
  const shown = [...waits].sort((a, b) => b.seconds - a.seconds).slice(0, waits.length > 4 ? 3 : 4);
  const texts = shown.map((wait) => `${wait.place}, for ${seconds_text(wait.seconds)}`);
  return [...texts, ...(waits.length > shown.length ? [`${waits.length - shown.length} more`] : [])].join("; ");
}

function draw_why(doc) {
  const gates = doc.stages.filter((stage) => stage.state === "waiting" && !doc.reason.includes(stage.reason));
  const reasons = [...doc.notes, ...(doc.waits.length ? wait_lines(doc.waits) : [doc.reason]), ...gates.map((stage) => `gate of ${stage.stage}: ${stage.reason}`)].filter(Boolean);
  at("why").hidden = !reasons.length;
  at("why").className = `notice ${doc.word === "failed" ? "bad" : ""}`;
  say(at("reasons"), reasons.join("\n"));
  say(at("since"), since_text(doc.waits));
}

function draw_figures(doc) {
  const stage = doc.stages.find((s) => s.stage === doc.stage);
  const is_over = doc.state === "done";
  const figures = [
    ["Steps done", count_text(doc.steps_done), `of ${count_text(doc.steps_total)}`, doc.steps_done / doc.steps_total],
    ["Rows written", count_text(doc.rows_done), ""],
    is_over && doc.curve ? ["Highest rate", count_text(Math.max(...doc.curve.rates)), "rows/s"]
      : ["Rate", doc.rate === null ? "n/a" : count_text(doc.rate), doc.rate === null ? "" : "rows/s"],
    [is_over ? "Time left" : `Time left in ${stage ? stage.stage : "this stage"}`, is_over ? "0 s" : seconds_text(doc.eta_s), ""],
    [is_over ? "Duration" : "Since the start", seconds_text(doc.seconds), ""],
  ];
  const box = at("figures");
  if (!box.children.length) {
    box.append(...figures.map(() => make("div", {}, make("dt"), make("dd", {}, make("span"), " ", make("small")))));
    box.firstChild.append(track(0));
  }
  figures.forEach(([name, figure, unit, share], i) => {
    const tile = box.children[i];
    say(tile.querySelector("dt"), name);
    say(tile.querySelector("span"), figure);
    say(tile.querySelector("small"), unit);
    if (share !== undefined) tile.querySelector(".track > i").style.width = `${100 * share}%`;
  });
}

function draw_stages(stages) {
  const box = at("stages");
  const names = stages.map((stage) => stage.stage).join("\n");
  if (box.dataset.names !== names) {
    box.dataset.names = names;
    box.replaceChildren(...stages.map((stage) => make("li", {}, make("b", {}, stage.stage),
      make("div", { class: "muted" }, make("span", { class: "state" }), make("span")), track(0))));
  }
  stages.forEach((stage, i) => {
    const done = stage.steps.filter((step) => step.state === "done").length, item = box.children[i];
    item.className = stage.state;
    item.toggleAttribute("aria-current", stage.state === "running");
    say(item.querySelector(".state"), MARKS[stage.state] || stage.state);
    say(item.children[1].lastChild, `${done}/${stage.steps.length}`);
    item.querySelector(".track > i").style.width = `${stage.steps.length ? (100 * done) / stage.steps.length : 0}%`;
  });
}

// Steps that failed, wait or move come first; filled tables that wait for their proof are listed together.
function draw_working(doc) {
  const is_waiting = (step) => doc.waits.some((wait) => wait.reason && wait.reason === step.reason);
  const busy = doc.stages.flatMap((stage) => stage.steps).filter((step) => step.state === "running" || step.state === "failed");
  const rank = (step) => (step.state === "failed" ? 0 : is_waiting(step) ? 1 : 2);
  const passed = busy.filter((step) => step.is_passed && !is_waiting(step)), is_many = passed.length > 3;
  const steps = busy.filter((step) => !is_many || !passed.includes(step)).sort((a, b) => rank(a) - rank(b));
  say(at("working-title"), doc.passes ? `Running: ${doc.passes[0]} of ${doc.passes[1]} tables filled` : "Running");
  const items = steps.slice(0, 12).map((step) => {
    const is_held = is_waiting(step);
    const figures = [];
    if (step.rows_done || step.rows_expected) figures.push(`${count_text(step.rows_done)}${step.rows_expected === null ? "" : ` of about ${count_text(step.rows_expected)}`} rows`);
    if (step.rate !== null) figures.push(`${count_text(step.rate)} rows/s`);
    if (step.share_done !== null && !step.is_passed) figures.push(step.eta_s === null ? "time left unknown" : `${seconds_text(step.eta_s)} left`);
    else if (step.seconds !== null) figures.push(`for ${seconds_text(step.seconds)}`);
    return make("li", { class: `${step.state} ${is_held ? "held" : ""}` },
      make("div", { class: "line" }, make("span", {}, make("b", {}, ...breakable(step.table || NO_TABLE)), ` ${step.step}`),
        make("span", {}, step.state === "failed" ? "failed" : step.share_done === null ? "" : share_text(step.share_done))),
      step.share_done === null ? null : track(step.share_done),
      make("div", { class: "muted" }, figures.join(" · ")),
      step.reason ? make("div", { class: step.state === "failed" ? "text bad" : "muted" }, step.reason) : null);
  });
  if (steps.length > 12) items.push(make("li", { class: "muted" }, `and ${steps.length - 12} more`));
  for (const reason of is_many ? new Set(passed.map((step) => step.reason)) : []) {
    const names = passed.filter((step) => step.reason === reason).map((step) => step.table || NO_TABLE);
    items.push(make("li", {}, make("div", { class: "line" }, make("span", {}, make("b", {}, `${names.length} tables`), ` ${names_text(names)}`),
      make("span", {}, share_text(1))), track(1), make("div", { class: "muted" }, reason)));
  }
  if (!items.length) items.push(make("li", { class: "muted" }, doc.state === "done" ? "No step: the plan is done." : "No step at this moment."));
  at("working").replaceChildren(...items);
}

function draw_blockers(blockers) {
  at("blockers-box").hidden = !blockers.length;
  at("blockers").replaceChildren(...blockers.map((one) => make("li", {}, ...one.blockers.map((blocker) => make("code", {}, blocker)),
    make("div", { class: "muted" }, `seen ${clock_text(one.at)}, blocking ${one.place}${one.waiting_for ? ` (${one.waiting_for})` : ""}`))));
}

function draw_events(events) {
  const box = at("events"), key = events.length ? `${events[0].at} ${events[0].place} ${events.length}` : "";
  if (box.dataset.key === key) return;
  box.dataset.key = key;
  box.replaceChildren(...events.map((event) => make("li", { class: event.level },
    make("time", { datetime: event.at, title: date_text(event.at) }, clock_text(event.at)),
    make("div", {}, event.place ? make("div", { class: "place" }, event.place) : null, make("div", { class: "text" }, event.text)))));
}

async function poll() {
  clearTimeout(timer);
  try {
    const answer = await fetch("status.json", { cache: "no-store", headers: etag ? { "If-None-Match": etag } : {}, signal: AbortSignal.timeout(5000) });
    if (answer.status === 200) {
      draw(await answer.json());
      etag = answer.headers.get("ETag") || "";
      changed_at = Date.now();
    }
    answered_at = Date.now();
  } catch (error) {
    if (!(error instanceof TypeError || error instanceof DOMException)) throw error;
  } finally {
    say_contact();
    clearTimeout(timer);
    if (!document.hidden) timer = setTimeout(poll, POLL_MS);
  }
}

function say_contact() {
  const gone = Date.now() - answered_at, stale = Date.now() - changed_at;
  const is_over = drawn && ["done", "failed", "stopped", "waiting"].includes(drawn.state);
  at("contact").hidden = gone < 3 * POLL_MS && (stale < QUIET_MS || is_over || !drawn);
  at("contact").className = `notice ${is_over ? "" : "bad"}`;
  say(at("contact"), gone >= 3 * POLL_MS
    ? `The runner does not answer${is_over ? ": it has ended" : ""}. ${drawn ? `This page shows the state of ${clock_text(drawn.read_at)}.` : "There is nothing to show yet."}`
    : "The runner cannot read its journal at the moment. This page shows an older state.");
}

at("find").addEventListener("input", () => matrix && filter_matrix());
at("show").addEventListener("change", () => matrix && filter_matrix());
const again = () => { if (drawn) { draw(drawn); if (drawn.report) draw_report(drawn.report); } };
window.addEventListener("resize", again);
narrow.addEventListener("change", again);

const own = at("document");
if (own) {
  const doc = JSON.parse(own.textContent);
  draw(doc);
  draw_report(doc.report);
} else {
  document.addEventListener("visibilitychange", () => { if (!document.hidden) poll(); });
  poll();
}
