// The panel of one change: its live results, and its devices.

import { CallError, call, stream } from "./api.js";
import { stateClass } from "./changes.js";
import { element, fill, heading, number, progress, setText, table, time, words } from "./dom.js";
import { may, methods } from "./state.js";

const panel = document.getElementById("change");
/** Number of devices on a page, and of live results that are shown. */
const PAGE = 50;
const SHOWN_RESULTS = 20;
/** Delays before a stream is opened again, in milliseconds. */
const FIRST_DELAY = 500;
const LAST_DELAY = 8_000;

/** Creates the panel. `closed` is called when the user closes it. */
export function create(closed) {
  let current;

  function close() {
    current?.stop();
    current = undefined;
    panel.hidden = true;
  }

  return {
    open(changeId) {
      close();
      panel.hidden = false;
      current = show(changeId, () => {
        close();
        closed();
      });
      document.getElementById("change-title").focus();
    },
    close,
    get changeId() {
      return current?.changeId ?? "";
    },
  };
}

function show(changeId, closed) {
  const aborter = new AbortController();
  const bar = progress();
  const facts = element("dl", { class: "wide-pairs" });
  const live = element("span", { class: "muted", role: "status", id: "change-live" }, "Connecting …");
  const problem = element("p", { class: "problem", role: "alert", hidden: true });
  const results = element("tbody", { id: "results" });
  const columns = ["Received", "Device", "Outcome", ["Text", "optional"], ["Reference", "optional"]];
  const devices = deviceList(changeId);
  fill(panel,
    heading("change", "Change", live, element("button", { type: "button", onclick: closed }, "Close")),
    problem, facts, bar.node,
    element("div", { class: "halves" },
      element("div", {}, element("div", { class: "head" }, element("h3", {}, "Last results")), table("Last results", columns, results)),
      devices.node));
  document.getElementById("change-title").tabIndex = -1;

  let change;
  let token = "";
  let received = 0;
  let isFinished = false;
  let scheduled = false;
  // The final outcome of each device in the results so far.
  const outcomes = new Map();
  const pending = [];

  function receive(message) {
    token = message.resumeToken ?? token;
    const named = message.opened ?? message.stateChanged ?? message.finished;
    if (named?.change) change = named.change;
    if (message.finished) isFinished = true;
    if (message.deviceResult) {
      received += 1;
      count(message.deviceResult);
      pending.push(message.deviceResult);
      if (pending.length > SHOWN_RESULTS) pending.shift();
    }
    if (!scheduled) {
      scheduled = true;
      requestAnimationFrame(render);
    }
  }

  function count(result) {
    const isFinal = result.outcome === "OUTCOME_SUCCEEDED" || result.outcome === "OUTCOME_FAILED";
    if (isFinal && result.deviceIndex !== undefined) outcomes.set(result.deviceIndex, result.outcome);
  }

  function render() {
    scheduled = false;
    if (aborter.signal.aborted || !change) return;
    const values = [...outcomes.values()];
    const failed = values.filter((outcome) => outcome === "OUTCOME_FAILED").length;
    // The counts of the change are newer than the results if the stream has just been opened.
    const most = (counted, reported) => (isFinished ? (reported ?? 0) : Math.max(counted, reported ?? 0));
    bar.update(change.deviceCount ?? 0, most(values.length - failed, change.succeededCount), most(failed, change.failedCount));
    describe(facts, change, received);
    for (const result of pending) results.prepend(resultRow(result));
    pending.length = 0;
    while (results.children.length > SHOWN_RESULTS) results.lastElementChild.remove();
    setText(live, isFinished ? "Complete" : "Live");
  }

  async function follow() {
    let delay = FIRST_DELAY;
    while (!aborter.signal.aborted && !isFinished) {
      const message = { until: "UNTIL_FINISHED" };
      if (token) message.resumeToken = token;
      else message.changeId = changeId;
      try {
        await stream(methods.watch, message, aborter.signal, (event) => {
          delay = FIRST_DELAY;
          problem.hidden = true;
          receive(event);
        });
        // The stream has ended without `finished`: the connection has broken.
      } catch (error) {
        if (aborter.signal.aborted) return;
        if (error instanceof CallError && (error.retry === "NEVER" || ["unauthenticated", "permission_denied"].includes(error.code))) {
          return fail(error.message);
        }
      }
      if (isFinished) break;
      setText(live, "Reconnecting …");
      await new Promise((resolve) => setTimeout(resolve, delay * (0.5 + Math.random())));
      delay = Math.min(delay * 2, LAST_DELAY);
    }
    devices.refresh();
  }

  function fail(message) {
    setText(live, "");
    problem.textContent = message;
    problem.hidden = false;
  }

  if (may("watch")) follow();
  else {
    fail("To see live results, you need the permission “watch”.");
    call(methods.getChange, { changeId }).then((found) => receive({ opened: found }), (error) => fail(error.message));
  }
  devices.refresh();
  return { changeId, stop: () => aborter.abort() };
}

function describe(facts, change, received) {
  const refusal = change.refusal?.message;
  const pairs = [
    ["ID", element("span", { class: "code" }, change.changeId)],
    ["Account", change.accountName ?? ""],
    ["State", element("span", { class: stateClass(change.state) }, words(change.state, "CHANGE_STATE_"))],
    ["Plan", change.servicePlan ?? ""],
    ["Reference", change.clientReference || "–"],
    ["Created", time(change.createTime)],
    ["Accepted", time(change.acceptTime)],
    ["Finished", time(change.finishTime)],
    ["Requests", element("span", { class: "code" }, (change.requestIds ?? []).join(", ") || "–")],
    ["Results", element("span", { id: "received" }, number(received))],
    ...(refusal ? [["Refusal", refusal]] : []),
  ];
  const texts = pairs.map(([term, value]) => `${term}=${value.textContent ?? value}`).join("\n");
  if (facts.dataset.texts === texts) return;
  facts.dataset.texts = texts;
  fill(facts, pairs.map(([term, value]) => element("div", {}, element("dt", {}, term), element("dd", {}, value))));
}

function resultRow(result) {
  const outcome = words(result.outcome, "OUTCOME_");
  const text = result.fault?.text || result.statusText || "";
  return element("tr", {},
    element("td", {}, time(result.receiveTime, false)), element("td", { class: "code" }, device(result)),
    element("td", { class: outcomeClass(outcome) }, outcome), element("td", { class: "text optional", title: text }, text),
    element("td", { class: "text optional" }, result.clientReference ?? ""));
}

function device({ sentIds, deviceIds }) {
  const ids = sentIds?.length ? sentIds : (deviceIds ?? []);
  const best = ids.find(({ kind }) => ["iccid", "mdn"].includes(kind.toLowerCase())) ?? ids[0];
  return best ? `${best.kind} ${best.id}` : "–";
}

function outcomeClass(outcome) {
  return { succeeded: "good", failed: "bad" }[outcome] ?? "muted";
}

function deviceList(changeId) {
  const filter = element("select", { id: "filter-outcome" },
    ["", "PENDING", "SUCCEEDED", "FAILED"].map((name) => element("option", { value: name && `DEVICE_OUTCOME_${name}` }, name ? words(name) : "all")));
  const more = element("button", { type: "button" }, "Next page");
  const first = element("button", { type: "button" }, "First page");
  const body = element("tbody", { id: "devices" });
  const note = element("p", { class: "note", role: "status" });
  const reload = element("button", { type: "button", onclick: () => refresh() }, "Refresh");
  let token = "";
  let next = "";
  let latest = 0;

  async function refresh() {
    if (!may("list")) return setText(note, "To see devices, you need the permission “list”.");
    const request = ++latest;
    const message = { changeId, pageSize: PAGE };
    if (filter.value) message.outcomes = [filter.value];
    if (token) message.pageToken = token;
    try {
      const page = await call(methods.listDevices, message);
      if (request !== latest) return;
      const devices = page.devices ?? [];
      next = page.nextPageToken ?? "";
      fill(body, devices.map(deviceRow));
      setText(note, devices.length ? "" : "No devices.");
      more.disabled = !next;
      first.disabled = !token;
    } catch (error) {
      if (request === latest) setText(note, error.message);
    }
  }

  const goTo = (page) => {
    token = page;
    refresh();
  };
  filter.addEventListener("change", () => goTo(""));
  more.addEventListener("click", () => goTo(next));
  first.addEventListener("click", () => goTo(""));
  const columns = [["No.", "number"], "Device", "Outcome", ["Text", "optional"], ["Reference", "optional"]];
  const node = element("div", {},
    element("div", { class: "head" }, element("h3", {}, "Devices"),
      element("div", { class: "row" }, element("label", { for: "filter-outcome" }, "Outcome"), filter, reload)),
    note, table("Devices", columns, body), element("div", { class: "row" }, first, more));
  return { node, refresh };
}

function deviceRow(entry) {
  const outcome = words(entry.outcome, "DEVICE_OUTCOME_");
  const text = entry.result?.fault?.text || entry.result?.statusText || "";
  return element("tr", {},
    element("td", { class: "number" }, number((entry.deviceIndex ?? 0) + 1)), element("td", { class: "code" }, device(entry)),
    element("td", { class: outcomeClass(outcome) }, outcome), element("td", { class: "text optional", title: text }, text),
    element("td", { class: "text optional" }, entry.clientReference ?? ""));
}
