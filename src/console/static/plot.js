// The plot of callbacks per second over the last ten minutes, as SVG.

const SVG = "http://www.w3.org/2000/svg";
/** Time on the horizontal axis, in milliseconds. */
const SPAN = 600_000;
/** Size in units of the plot, and the space for its labels. */
const WIDTH = 1_000;
const HEIGHT = 150;
const LEFT = 44;
const BOTTOM = 20;
const TOP = 8;

function shape(name, attributes, text) {
  const created = document.createElementNS(SVG, name);
  for (const [key, value] of Object.entries(attributes)) created.setAttribute(key, value);
  if (text !== undefined) created.textContent = text;
  return created;
}

/** Creates a plot. */
export function create() {
  const node = shape("svg", { class: "plot", role: "img", "aria-label": "Callbacks per second" });
  // [time, callbacks per second], oldest first.
  const points = [];
  let last;

  /** Adds a count since the start of the replica, which may have restarted in the meantime. */
  function add(total, startTime) {
    const now = Date.now();
    const isSame = last?.startTime === startTime && total >= last.total;
    if (isSame && now > last.time) points.push([now, ((total - last.total) * 1_000) / (now - last.time)]);
    last = { total, startTime, time: now };
    while (points.length > 0 && points[0][0] < now - SPAN) points.shift();
    draw(now);
    return points.at(-1)?.[1] ?? 0;
  }

  function draw(now) {
    const width = Math.max(240, node.clientWidth || WIDTH);
    node.setAttribute("viewBox", `0 0 ${width} ${HEIGHT}`);
    const top = niceMaximum(Math.max(1, ...points.map(([, rate]) => rate)));
    const x = (at) => LEFT + (width - LEFT - 6) * (1 - (now - at) / SPAN);
    const y = (rate) => TOP + (HEIGHT - TOP - BOTTOM) * (1 - rate / top);
    const shapes = [0, top / 2, top].flatMap((rate) => [
      shape("line", { class: "grid", x1: LEFT, x2: width - 6, y1: y(rate), y2: y(rate) }),
      shape("text", { x: LEFT - 6, y: y(rate) + 4, "text-anchor": "end" }, rate.toLocaleString()),
    ]);
    for (const [minutes, anchor] of [[10, "start"], [5, "middle"], [0, "end"]]) {
      const label = minutes ? `${minutes} min ago` : "now";
      shapes.push(shape("text", { x: x(now - minutes * 60_000), y: HEIGHT - 4, "text-anchor": anchor }, label));
    }
    if (points.length > 1) {
      const path = points.map(([at, rate]) => `${x(at).toFixed(1)},${y(rate).toFixed(1)}`).join(" L");
      const [from, to] = [x(points[0][0]).toFixed(1), x(points.at(-1)[0]).toFixed(1)];
      shapes.push(shape("path", { class: "area", d: `M${from},${y(0)} L${path} L${to},${y(0)} Z` }));
      shapes.push(shape("path", { class: "line", d: `M${path}` }));
    }
    node.replaceChildren(...shapes);
  }

  return { node, add };
}

/** Returns the smallest of 1, 2 and 5 times a power of ten that is not less. */
function niceMaximum(value) {
  const power = 10 ** Math.floor(Math.log10(value));
  return [1, 2, 5, 10].map((factor) => factor * power).find((maximum) => maximum >= value);
}
