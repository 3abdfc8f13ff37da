// The panel of the connection to ThingSpace: log-in and registrations.

import { call } from "./api.js";
import { confirm } from "./dialog.js";
import { element, fill, heading, number, table, time } from "./dom.js";
import { mayMonitor, mayOperate, methods, state } from "./state.js";

const panel = document.getElementById("thingspace");

/** Creates the panel. `reload` reads the state again. */
export function create(reload) {
  const note = element("p", { class: "note" }, "Loading …");
  const login = element("dl", { class: "pairs" });
  const reset = element("button", { type: "button", id: "reset-lockout", onclick: ask }, "Reset the lock-out");
  const body = element("tbody", { id: "registrations" });
  const empty = element("p", { class: "note" }, "The gateway checks no registrations: thingspace.accounts or callbacks.public_url is not set.");
  const list = table("Registrations", ["Account", "Service", "State", "Checked"], body);
  const content = element("div", {}, login, reset, element("h3", {}, "Registered callback URL"), empty, list);
  fill(panel, heading("thingspace", "ThingSpace"), note, content);

  function ask() {
    const text = "The gateway will log in again. Replace wrong credentials first: ThingSpace locks an account after five failed log-ins.";
    confirm("Reset the lock-out?", text, "Reset", async () => {
      await call(methods.resetLockout);
      reload();
    });
  }

  return {
    refresh() {
      const { status } = state;
      note.hidden = Boolean(status);
      content.hidden = !status;
      if (!mayMonitor()) note.textContent = "To see the connection to ThingSpace, you need the permission “monitor” on all accounts.";
      if (!status) return;
      fill(login, pairs(status.login).flatMap(([term, text, style]) => [element("dt", {}, term), element("dd", { class: style }, text)]));
      reset.hidden = !(mayOperate() && status.login?.lockedOut);
      const registrations = status.registrations ?? [];
      empty.hidden = registrations.length > 0;
      list.hidden = registrations.length === 0;
      fill(body, registrations.map(row));
    },
  };
}

function pairs(login) {
  if (!login) return [["Log-in", "cannot be read now", "warn"]];
  const { lockedOut, failedLogins, tokenValid, sessionOpen } = login;
  return [
    ["Log-in", lockedOut ? "locked out: the gateway does not log in any more" : "not locked out", lockedOut ? "bad" : "good"],
    ["Failed log-ins", number(failedLogins), Number(failedLogins ?? 0) ? "warn" : undefined],
    ["Token", tokenValid ? "valid" : "none", undefined],
    ["Session", sessionOpen ? "open" : "none", undefined],
  ];
}

function row({ accountName, service, state: registered, registerPolicy, checkTime, lastError }) {
  const style = { registered: "good", unknown: "muted" }[registered] ?? "bad";
  const policy = `callbacks.register = ${registerPolicy}`;
  const text = element("span", { class: style, title: policy }, (registered ?? "").replaceAll("_", " "));
  const error = lastError ? element("div", { class: "bad" }, lastError) : undefined;
  return element("tr", {}, element("td", {}, accountName ?? ""), element("td", {}, service ?? ""),
    element("td", {}, text, error), element("td", {}, time(checkTime)));
}
