// The panel of the changes, newest first.

import { call } from "./api.js";
import { element, fill, heading, progress, setText, syncRows, table, time, words } from "./dom.js";
import { may, methods } from "./state.js";

const STATES = ["QUEUED", "DISPATCHED", "ACCEPTED", "FINISHED", "OVERDUE", "CLOSED", "REJECTED", "NOT_SENT", "OUTCOME_UNKNOWN"];
const TYPES = { CHANGE_TYPE_ESIM_PLAN: "eSIM plan", CHANGE_TYPE_FIVE_G_BI_PLAN: "5G BI plan", CHANGE_TYPE_SERVICE_PLAN: "service plan" };
/** Number of changes on a page. */
const PAGE = 25;
const panel = document.getElementById("changes");

/** Creates the panel. `select` opens a change. */
export function create(select) {
  const account = element("input", { id: "filter-account", size: "18", placeholder: "all", autocomplete: "off", spellcheck: "false" });
  const states = STATES.map((name) => element("option", { value: `CHANGE_STATE_${name}` }, words(name)));
  const chosen = element("select", { id: "filter-state" }, element("option", { value: "" }, "all"), states);
  const note = element("p", { class: "note", role: "status" }, "Loading …");
  const body = element("tbody");
  const columns = ["Created", "Account", "State", "Devices", ["Plan", "optional"], ["Reference", "optional"], ["Kind", "optional"]];
  const list = table("Changes", columns, body);
  const newer = element("button", { type: "button" }, "Newest");
  const older = element("button", { type: "button" }, "Older");
  const pages = element("div", { class: "row" }, newer, older);
  fill(panel,
    heading("changes", "Changes", element("label", { for: "filter-account" }, "Account"), account,
      element("label", { for: "filter-state" }, "State"), chosen),
    note, list, pages);

  const rows = new Map();
  let token = "";
  let next = "";
  let latest = 0;
  let selected = "";

  async function refresh() {
    if (!may("list")) return forbid();
    const request = ++latest;
    const message = { pageSize: PAGE };
    if (account.value.trim()) message.accountName = account.value.trim();
    if (chosen.value) message.states = [chosen.value];
    if (token) message.pageToken = token;
    let page;
    try {
      page = await call(methods.listChanges, message);
    } catch (error) {
      if (request !== latest || error.code === "offline") throw error;
      if (error.code !== "invalid_argument" && error.code !== "permission_denied") throw error;
      // The filter is not valid.
      setText(note, error.message);
      note.hidden = false;
      return;
    }
    // A later request of this panel has another filter.
    if (request !== latest) return;
    next = page.nextPageToken ?? "";
    const changes = page.changes ?? [];
    syncRows(body, rows, changes, (change) => change.changeId, row);
    setText(note, "No changes.");
    note.hidden = changes.length > 0;
    list.hidden = changes.length === 0;
    pages.hidden = !next && !token;
    newer.disabled = !token;
    older.disabled = !next;
  }

  function row(change) {
    const open = element("button", { type: "button", class: "link", "aria-label": `Open the change ${change.changeId}` });
    open.append(time(change.createTime));
    open.addEventListener("click", () => select(change.changeId));
    const state = element("td");
    const bar = progress();
    const cells = [change.accountName ?? "", change.servicePlan ?? "", change.clientReference ?? "", TYPES[change.changeType] ?? "other"];
    const [of, plan, reference, kind] = cells;
    const node = element("tr", { "data-change": change.changeId },
      element("td", {}, open), element("td", {}, of), state, element("td", {}, bar.node),
      element("td", { class: "text optional", title: plan }, plan),
      element("td", { class: "text optional", title: reference }, reference), element("td", { class: "optional" }, kind));
    return {
      node,
      update(current) {
        setText(state, words(current.state, "CHANGE_STATE_"));
        state.className = stateClass(current.state);
        bar.update(current.deviceCount ?? 0, current.succeededCount ?? 0, current.failedCount ?? 0);
        node.classList.toggle("selected", current.changeId === selected);
      },
    };
  }

  function forbid() {
    rows.clear();
    fill(body);
    list.hidden = pages.hidden = true;
    setText(note, "To see changes, you need the permission “list”.");
    note.hidden = false;
  }

  async function restart(page) {
    token = page;
    rows.clear();
    fill(body);
    setText(note, "Loading …");
    note.hidden = false;
    // A failure shows in the banner.
    await refresh().catch(() => {});
  }

  account.addEventListener("change", () => restart(""));
  chosen.addEventListener("change", () => restart(""));
  newer.addEventListener("click", () => restart(""));
  older.addEventListener("click", () => restart(next));
  return {
    refresh,
    mark(changeId) {
      selected = changeId;
      for (const [key, { node }] of rows) node.classList.toggle("selected", key === changeId);
    },
  };
}

/** Returns the style of a state. */
export function stateClass(state) {
  if (state === "CHANGE_STATE_FINISHED") return "good";
  if (state === "CHANGE_STATE_REJECTED" || state === "CHANGE_STATE_NOT_SENT") return "bad";
  return ["CHANGE_STATE_OVERDUE", "CHANGE_STATE_CLOSED", "CHANGE_STATE_OUTCOME_UNKNOWN"].includes(state) ? "warn" : "";
}
