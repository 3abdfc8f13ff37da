// The panel of the quarantine.

import { call } from "./api.js";
import { confirm, show } from "./dialog.js";
import { element, fill, heading, number, table, time } from "./dom.js";
import { mayMonitor, mayOperate, methods, state } from "./state.js";

const panel = document.getElementById("quarantine");
/** Number of callbacks on a page. */
const PAGE = 50;

/** Creates the panel. `reload` reads the state again. */
export function create(reload) {
  const note = element("p", { class: "note", role: "status" }, "Loading …");
  const counts = element("p", { id: "quarantine-counts" });
  const open = element("button", { type: "button", id: "list-quarantine", onclick: () => list(0) }, "List");
  const replayAll = element("button", { type: "button", onclick: askReplayAll }, "Replay all");
  const body = element("tbody", { id: "quarantined" });
  const entries = table("Quarantined callbacks", ["ID", "Received", "Reason", "Service", "Account", ["Bytes", "number"], "Actions"], body);
  const more = element("button", { type: "button", onclick: () => list(last) }, "Next page");
  const done = element("p", { class: "note", role: "status", hidden: true });
  entries.hidden = more.hidden = true;
  fill(panel, heading("quarantine", "Quarantine", open, replayAll), note, counts, done, entries, more);
  let last = 0;

  async function list(after) {
    try {
      const page = await call(methods.listQuarantined, { afterId: String(after), pageSize: PAGE });
      const callbacks = page.callbacks ?? [];
      last = callbacks.at(-1)?.id ?? after;
      fill(body, callbacks.map(row));
      entries.hidden = callbacks.length === 0;
      more.hidden = callbacks.length < PAGE;
      say(callbacks.length ? "" : "No callbacks in the quarantine.");
      reload();
    } catch (error) {
      say(error.message);
    }
  }

  function say(text) {
    done.textContent = text;
    done.hidden = !text;
  }

  function row({ id, receiveTime, reason, service, accountName, bodyBytes }) {
    const button = (name, act) => element("button", { type: "button", "aria-label": `${name} callback ${id}`, onclick: act }, name);
    return element("tr", { "data-id": id },
      element("td", {}, id), element("td", {}, time(receiveTime)), element("td", {}, reason ?? ""), element("td", {}, service || "–"),
      element("td", {}, accountName || "–"), element("td", { class: "number" }, number(bodyBytes)),
      element("td", {}, element("div", { class: "row" }, button("View", () => view(id)), button("Replay", () => replay(id)), button("Drop", () => askDrop(id)))));
  }

  async function view(id) {
    try {
      const { callback } = await call(methods.getQuarantined, { id });
      const bytes = Uint8Array.from(atob(callback.body ?? ""), (character) => character.charCodeAt(0));
      const text = new TextDecoder().decode(bytes);
      show(`Callback ${id}`, text || "(empty)", element("p", { class: "muted" }, "Everyone who knows the path secret can have sent this text."));
    } catch (error) {
      say(error.message);
    }
  }

  async function replay(id) {
    try {
      const counted = await call(methods.replay, { id });
      await list(0);
      say(summary(counted));
    } catch (error) {
      say(error.message);
    }
  }

  function askReplayAll() {
    confirm("Replay all callbacks?", "The gateway processes all quarantined callbacks again, with the present settings.", "Replay all", async () => {
      const counted = await call(methods.replay, { all: true });
      await list(0);
      say(summary(counted));
    });
  }

  function askDrop(id) {
    confirm(`Drop the callback ${id}?`, "The gateway deletes the callback. ThingSpace does not send it again.", "Drop", async () => {
      await call(methods.drop, { id });
      await list(0);
    });
  }

  return {
    refresh() {
      const { status } = state;
      note.hidden = Boolean(status);
      if (!mayMonitor()) note.textContent = "To see the quarantine, you need the permission “monitor” on all accounts.";
      const isOperator = mayOperate();
      open.hidden = replayAll.hidden = !isOperator;
      if (!isOperator) {
        fill(body);
        entries.hidden = more.hidden = done.hidden = true;
      }
      counts.hidden = !status;
      if (!status) return;
      const { unreviewed, reviewed, bytes } = status.quarantine ?? {};
      counts.textContent = status.quarantine
        ? `${number(unreviewed)} new, ${number(reviewed)} listed before, ${number(bytes)} bytes.${isOperator ? "" : " To list them, you need the permission “operate” on all accounts."}`
        : "The quarantine cannot be read now.";
    },
  };
}

function summary({ stored, duplicates, stillUnusable }) {
  return `${number(stored)} stored, ${number(duplicates)} of them duplicates; ${number(stillUnusable)} still unusable.`;
}
