// The panel of the pauses of changes.

import { call } from "./api.js";
import { confirm } from "./dialog.js";
import { element, fill, heading, table, time } from "./dom.js";
import { mayMonitor, mayOperate, methods, state } from "./state.js";

const panel = document.getElementById("pauses");

/** Creates the panel. `reload` reads the state again. */
export function create(reload) {
  const note = element("p", { class: "note" }, "Loading …");
  const empty = element("p", { class: "note" }, "Changes are not paused.");
  const body = element("tbody", { id: "paused" });
  const list = table("Pauses", ["Account", "Reason", "By", "Since", ""], body);
  const account = element("input", { id: "pause-account", class: "grow", placeholder: "all accounts", autocomplete: "off", spellcheck: "false" });
  const reason = element("input", { id: "pause-reason", class: "grow", maxlength: "200", autocomplete: "off" });
  const form = element("form", { id: "pause-form", "aria-label": "Pause changes" },
    element("h3", {}, "Pause changes"),
    element("div", { class: "row" }, element("label", { for: "pause-account" }, "Account"), account,
      element("label", { for: "pause-reason" }, "Reason"), reason, element("button", { type: "submit" }, "Pause")));
  fill(panel, heading("pauses", "Pauses"), note, empty, list, form);
  let shown = "";

  form.addEventListener("submit", (event) => {
    event.preventDefault();
    const name = account.value.trim();
    const title = name ? `Pause the changes of ${name}?` : "Pause the changes of all accounts?";
    confirm(title, "The gateway rejects new changes until an operator resumes them, also after a restart.", "Pause", async () => {
      await call(methods.pause, { accountName: name, reason: reason.value });
      form.reset();
      reload();
    });
  });

  function resume(name) {
    const title = name ? `Resume the changes of ${name}?` : "Resume the changes of all accounts?";
    confirm(title, "The gateway sends changes to ThingSpace again.", "Resume", async () => {
      await call(methods.resume, { accountName: name });
      reload();
    });
  }

  function row({ accountName, reason: cause, pausedBy, pauseTime }, isOperator) {
    const button = element("button", { type: "button", onclick: () => resume(accountName ?? "") }, "Resume");
    return element("tr", {}, element("td", {}, accountName || "all accounts"), element("td", { class: "text", title: cause }, cause || "–"),
      element("td", {}, pausedBy ?? ""), element("td", {}, time(pauseTime)), element("td", {}, isOperator ? button : ""));
  }

  return {
    refresh() {
      const { status } = state;
      const isOperator = mayOperate();
      note.hidden = Boolean(status);
      if (!mayMonitor()) note.textContent = "To see pauses, you need the permission “monitor” on all accounts.";
      form.hidden = !isOperator;
      const pauses = status?.pauses ?? [];
      empty.hidden = !status || pauses.length > 0;
      list.hidden = pauses.length === 0;
      // The rows have buttons, which a refresh must not replace under the pointer.
      const key = JSON.stringify([pauses, isOperator]);
      if (key !== shown) fill(body, pauses.map((pause) => row(pause, isOperator)));
      shown = key;
    },
  };
}
