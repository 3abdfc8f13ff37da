// The panel of the callbacks of this replica.

import { element, fill, heading, number, table, time } from "./dom.js";
import * as plot from "./plot.js";
import { mayMonitor, state } from "./state.js";

const panel = document.getElementById("callbacks");
const NEEDED = "To see callbacks, you need the permission “monitor” on all accounts.";

/** Creates the panel. */
export function create() {
  const rate = element("span", { id: "rate", class: "muted" });
  const note = element("p", { class: "note" }, "Loading …");
  const legend = element("div", { class: "legend" });
  const chart = plot.create();
  const body = element("tbody", { id: "recent" });
  const empty = element("p", { class: "note" }, "No callbacks since the start of this replica.");
  const list = table("Last callbacks", ["Received", "Outcome", "Service", "Account", "Reason"], body);
  const content = element("div", {}, chart.node, legend, element("h3", {}, "Last callbacks"), empty, list);
  fill(panel, heading("callbacks", "Callbacks", rate), note, content);

  return {
    refresh() {
      const { status } = state;
      note.hidden = Boolean(status);
      content.hidden = !status;
      if (!mayMonitor()) note.textContent = NEEDED;
      if (!status) return;
      const counts = status.callbackCounts ?? [];
      const total = counts.reduce((sum, { count }) => sum + Number(count ?? 0), 0);
      const current = chart.add(total, status.startTime);
      rate.textContent = `${current.toLocaleString(undefined, { maximumFractionDigits: 1 })} per second, ${number(total)} since the start of this replica`;
      fill(legend, counts.map(({ outcome, count }) => element("span", {}, `${outcome} `, element("b", {}, number(count)))));
      const recent = status.recentCallbacks ?? [];
      empty.hidden = recent.length > 0;
      list.hidden = recent.length === 0;
      fill(body, recent.map(row));
    },
  };
}

function row({ receiveTime, outcome, service, accountName, reason, quarantineId }) {
  const cause = [reason, quarantineId && `ID ${quarantineId}`].filter(Boolean).join(", ");
  const style = { quarantined: "warn", rejected: "bad", spooled: "warn" }[outcome];
  return element("tr", {}, element("td", {}, time(receiveTime, false)), element("td", { class: style }, outcome ?? ""),
    element("td", {}, service || "–"), element("td", {}, accountName || "–"), element("td", {}, cause || "–"));
}
