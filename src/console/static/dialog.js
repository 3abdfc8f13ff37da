// The dialog of the page: one at a time.

import { element, fill } from "./dom.js";

const dialog = document.getElementById("dialog");

/** Asks for a confirmation, and runs `act` if it is given. Shows its error. */
export function confirm(title, text, action, act) {
  const problem = element("p", { class: "problem", role: "alert", hidden: true });
  const cancel = element("button", { type: "button", onclick: () => dialog.close() }, "Cancel");
  const accept = element("button", { type: "button", class: "danger" }, action);
  accept.addEventListener("click", async () => {
    accept.disabled = true;
    try {
      await act();
      dialog.close();
    } catch (error) {
      problem.textContent = error.message;
      problem.hidden = false;
      accept.disabled = false;
    }
  });
  open(title, element("p", {}, text), problem, element("div", { class: "row" }, cancel, accept));
  cancel.focus();
}

/** Shows a text. */
export function show(title, text, ...more) {
  const close = element("button", { type: "button", onclick: () => dialog.close() }, "Close");
  open(title, more, element("pre", { tabindex: "0" }, text), element("div", { class: "row" }, close));
  close.focus();
}

function open(title, ...content) {
  if (dialog.open) dialog.close();
  fill(dialog, element("h2", { id: "dialog-title" }, title), content);
  dialog.showModal();
}

/** Closes the dialog, for example because the caller has changed. */
export function close() {
  if (dialog.open) dialog.close();
}
