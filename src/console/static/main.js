// Reads the state of the gateway every two seconds, and passes it to the panels.

import { CallError, call, hasToken, setToken } from "./api.js";
import * as callbacks from "./callbacks.js";
import * as change from "./change.js";
import * as changes from "./changes.js";
import * as dialog from "./dialog.js";
import { element, fill, setText, time } from "./dom.js";
import * as pauses from "./pauses.js";
import * as quarantine from "./quarantine.js";
import { mayMonitor, methods, state } from "./state.js";
import * as thingspace from "./thingspace.js";

/** Interval of the reads, in milliseconds. */
const INTERVAL = 2_000;
/** Time without a connection after which the banner appears, in milliseconds. */
const PATIENCE = 3_000;

const banner = document.getElementById("banner");
const login = document.getElementById("login");
const content = document.getElementById("content");
const token = document.getElementById("token");

let timer;
let running = false;
let again = false;
let connectedAt = Date.now();

const one = change.create(() => {
  list.mark("");
  history.replaceState(null, "", location.pathname);
});
const list = changes.create((changeId) => {
  list.mark(changeId);
  history.replaceState(null, "", `#${changeId}`);
  one.open(changeId);
});
const panels = [callbacks.create(), thingspace.create(reload), pauses.create(reload), quarantine.create(reload)];

/** Reads everything again now. */
function reload() {
  clearTimeout(timer);
  if (running) again = true;
  else refresh();
}

async function refresh() {
  running = true;
  let isIdentified = true;
  try {
    isIdentified = await identify();
    if (isIdentified) {
      state.status = mayMonitor() ? await call(methods.status) : undefined;
      await list.refresh();
      showContent();
    }
    connectedAt = Date.now();
    banner.hidden = true;
  } catch (error) {
    // Permissions that have changed since GetServerInfo are read again the next time.
    if (error.code !== "permission_denied") showProblem(error);
  }
  running = false;
  // Without a token, only the user can go on.
  if (isIdentified || again) timer = setTimeout(refresh, again ? 0 : INTERVAL);
  again = false;
}

/** Reads the permissions of the caller. Returns false if the gateway does not know the caller. */
async function identify() {
  try {
    state.info = await call(methods.info);
    return true;
  } catch (error) {
    if (error.code !== "unauthenticated" && error.code !== "permission_denied") throw error;
    askForToken(error);
    return false;
  }
}

function showContent() {
  login.hidden = true;
  const isFirst = content.hidden;
  content.hidden = false;
  header();
  for (const panel of panels) panel.refresh();
  const changeId = location.hash.slice(1);
  if (isFirst && changeId && changeId !== one.changeId) {
    list.mark(changeId);
    one.open(changeId);
  }
}

function showProblem(error) {
  if (!(error instanceof CallError)) throw error;
  const seconds = Math.round((Date.now() - connectedAt) / 1_000);
  if (Date.now() - connectedAt < PATIENCE && error.code === "offline") return;
  setText(banner, error.code === "offline"
    ? `No connection to the gateway for ${seconds} s. Trying again.`
    : `The gateway cannot answer: ${error.message}. Trying again.`);
  banner.hidden = false;
}

function askForToken(error) {
  const wasOpen = !content.hidden;
  content.hidden = true;
  banner.hidden = true;
  dialog.close();
  one.close();
  state.info = state.status = undefined;
  fill(document.getElementById("facts"));
  login.hidden = false;
  const problem = hasToken() || wasOpen ? error.message : "The gateway needs to know who you are.";
  setText(document.getElementById("login-problem"), problem);
  setToken("");
  if (document.activeElement !== token) token.focus();
}

login.addEventListener("submit", (event) => {
  event.preventDefault();
  setToken(token.value);
  token.value = "";
  reload();
});

function header() {
  const { info, status } = state;
  setText(document.getElementById("version"), info.version ?? "");
  const durability = (info.journalDurability ?? "").replace("DURABILITY_", "").toLowerCase();
  const facts = [fact("Journal", `${info.journalEngine}, ${durability}`), fact("ThingSpace", info.journalOrigin ?? "")];
  if (status) {
    const pauseCount = (status.pauses ?? []).length;
    const { lockedOut } = status.login ?? {};
    facts.unshift(fact("Replica", status.serving ? "ready" : "not ready", status.serving ? "good" : "bad"),
      fact("Jobs", status.leader ? "leader" : "another replica"));
    facts.push(fact("Log-in", lockedOut ? "locked out" : "ok", lockedOut ? "bad" : "good"),
      fact("Pauses", String(pauseCount), pauseCount ? "warn" : undefined),
      element("li", {}, element("span", { class: "muted" }, "Started "), time(status.startTime)));
  }
  facts.push(fact("You", info.caller?.name ?? ""));
  const node = document.getElementById("facts");
  const key = facts.map((item) => item.textContent).join("|");
  if (node.dataset.key === key) return;
  node.dataset.key = key;
  fill(node, facts);
}

function fact(name, text, style) {
  return element("li", {}, element("span", { class: "muted" }, `${name} `), element("b", { class: style }, text));
}

// A call to a gateway that does not answer takes many seconds.
setInterval(() => {
  if (running && Date.now() - connectedAt > PATIENCE + INTERVAL) showProblem(new CallError("offline", ""));
}, 1_000);

refresh();
