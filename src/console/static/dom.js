// Elements, and the texts of times and numbers. Everything that comes from the gateway is set as text, never as markup.

/** Creates an element with attributes and children. An attribute `onclick` and the like is a listener. */
export function element(name, attributes = {}, ...children) {
  const created = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) {
    if (key.startsWith("on")) created.addEventListener(key.slice(2), value);
    else if (value === true) created.setAttribute(key, "");
    else if (value !== false && value !== undefined) created.setAttribute(key, value);
  }
  created.append(...children.flat().filter((child) => child !== undefined && child !== null));
  return created;
}

/** Replaces the children of an element. */
export function fill(parent, ...children) {
  parent.replaceChildren(...children.flat().filter((child) => child !== undefined && child !== null));
}

/** Sets a text if it differs, so that a selection in the page survives a refresh. */
export function setText(node, text) {
  if (node.textContent !== text) node.textContent = text;
}

/** Creates the heading of a panel. */
export function heading(id, title, ...controls) {
  return element("div", { class: "head" }, element("h2", { id: `${id}-title` }, title), element("div", { class: "row" }, controls));
}

/** Creates a table with these columns: a title, or a title and a class. */
export function table(label, columns, body) {
  const cells = columns.map((column) => {
    const [title, style] = Array.isArray(column) ? column : [column];
    return element("th", { scope: "col", class: style }, title);
  });
  return element("div", { class: "scroll", tabindex: "0", role: "region", "aria-label": label },
    element("table", {}, element("thead", {}, element("tr", {}, cells)), body));
}

/** Updates the rows of a table by key. `create` makes a row with a method `update`. Rows keep their elements. */
export function syncRows(body, rows, items, keyOf, create) {
  const present = new Set();
  items.forEach((item, index) => {
    const key = keyOf(item);
    present.add(key);
    if (!rows.has(key)) rows.set(key, create(item));
    const row = rows.get(key);
    row.update(item);
    if (body.children[index] !== row.node) body.insertBefore(row.node, body.children[index] ?? null);
  });
  for (const [key, row] of rows) {
    if (!present.has(key)) {
      row.node.remove();
      rows.delete(key);
    }
  }
}

/** Creates a time in the local zone, with UTC on hover. */
export function time(text, withDate = true) {
  if (!text) return element("span", { class: "muted" }, "–");
  const date = new Date(text);
  const shown = withDate ? date.toLocaleString() : date.toLocaleTimeString();
  return element("time", { datetime: text, title: `${date.toISOString()} (UTC)` }, shown);
}

/** Returns a number with separators. 64-bit numbers arrive as strings. */
export function number(value) {
  return Number(value ?? 0).toLocaleString();
}

/** Returns an enum value without its prefix, in lower case: CHANGE_STATE_NOT_SENT is "not sent". */
export function words(value, prefix) {
  return (value ?? "").replace(prefix, "").replaceAll("_", " ").toLowerCase();
}

/** Creates the progress of a change: a bar and its numbers. */
export function progress() {
  const done = element("i", { class: "done" });
  const failed = element("i", { class: "failed" });
  const bar = element("div", { class: "bar", role: "progressbar", "aria-label": "Devices with a result", "aria-valuemin": "0" }, done, failed);
  const text = element("span");
  const node = element("div", { class: "progress" }, bar, text);
  const update = (devices, succeeded, failures) => {
    const percent = (count) => `${devices ? (100 * count) / devices : 0}%`;
    done.style.width = percent(succeeded);
    failed.style.width = percent(failures);
    bar.setAttribute("aria-valuemax", devices);
    bar.setAttribute("aria-valuenow", succeeded + failures);
    setText(text, `${number(succeeded + failures)} / ${number(devices)}${failures ? `, ${number(failures)} failed` : ""}`);
  };
  return { node, update };
}
