"""Plots as SVG, readable on light and dark backgrounds."""

import html
import math

STYLE = """
text { font: 13px Helvetica, Arial, sans-serif; fill: #1f2937 }
.title { font-weight: bold; font-size: 14px }
.faint { fill: #6b7280 }
.axis, .grid { stroke: #9ca3af; stroke-width: 1; fill: none }
.grid { stroke-opacity: .35 }
.s0 { fill: #2563eb; stroke: #2563eb } .s1 { fill: #d97706; stroke: #d97706 } .s2 { fill: #6b7280; stroke: #6b7280 }
.line { fill: none; stroke-width: 2 }
.whisker { stroke: #1f2937; stroke-width: 1.5 }
@media (prefers-color-scheme: dark) {
  text { fill: #e5e7eb } .faint { fill: #9ca3af } .whisker { stroke: #e5e7eb }
  .s0 { fill: #60a5fa; stroke: #60a5fa } .s1 { fill: #fbbf24; stroke: #fbbf24 }
}
"""


def svg(width, height, title, parts):
    return (f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" role="img" '
            f'aria-label="{html.escape(title)}"><style>{STYLE}</style>\n' + "\n".join(parts) + "\n</svg>\n")


def text(x, y, content, anchor="start", kind=""):
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" class="{kind}">{html.escape(content)}</text>'


def series_class(name):
    """Gateways are blue, the Go service is orange, the others are grey."""
    if name.startswith("Go"):
        return "s1"
    return "s0" if name.startswith("gateway") else "s2"


def short(number):
    for limit, unit in ((1e6, " M"), (1e3, " k")):
        if number >= 10 * limit or number >= limit and limit == 1e6:
            return f"{number / limit:,.3g}{unit}"
    return f"{number:,.3g}" if number < 1_000 else f"{number:,.0f}"


def bars(title, unit, values):
    """Horizontal bars. `values` has the name, the median, the smallest and the greatest value of each."""
    left, width, step = 300, 800, 30
    height = 46 + step * len(values)
    scale = (width - left - 110) / max(greatest for *_, greatest in values)
    parts = [text(8, 20, title, kind="title"), text(width - 8, 20, unit, "end", "faint")]
    for index, (name, middle, smallest, greatest) in enumerate(values):
        y = 36 + step * index
        parts.append(text(left - 8, y + 15, name, "end"))
        parts.append(f'<rect x="{left}" y="{y}" width="{max(1, middle * scale):.1f}" height="20" '
                     f'class="{series_class(name)}"/>')
        if greatest > smallest:
            parts.append(f'<path d="M{left + smallest * scale:.1f} {y + 10}H{left + greatest * scale:.1f}" '
                         'class="whisker"/>')
        parts.append(text(left + greatest * scale + 8, y + 15, short(middle)))
    return svg(width, height, title, parts)


def tick_step(greatest):
    """A round number that divides an axis into at most six parts."""
    power = 10 ** math.floor(math.log10(greatest))
    return next(factor * power for factor in (0.2, 0.25, 0.5, 1, 2) if greatest / (factor * power) <= 6)


def lines(title, x_title, unit, series):
    """Lines over a logarithmic axis. `series` has the points of each name."""
    left, top, width, height = 80, 62, 800, 360
    right, bottom = width - 210, height - 50
    points = [point for line in series.values() for point in line]
    low, high = math.log10(min(x for x, _ in points)), math.log10(max(x for x, _ in points))
    step = tick_step(max(y for _, y in points))
    ticks = [index * step for index in range(math.ceil(max(y for _, y in points) / step) + 1)]
    greatest = ticks[-1]
    place_x = lambda x: left + (math.log10(x) - low) / max(1e-9, high - low) * (right - left)
    place_y = lambda y: bottom - y / greatest * (bottom - top)
    parts = [text(8, 20, title, kind="title"), text((left + right) / 2, height - 12, x_title, "middle", "faint"),
             text(left, top - 14, unit, kind="faint")]
    for tick in ticks:
        y = place_y(tick)
        parts.append(f'<path d="M{left} {y:.1f}H{right}" class="{"grid" if tick else "axis"}"/>')
        parts.append(text(left - 8, y + 4, short(tick), "end"))
    for x in sorted({x for x, _ in points}):
        parts.append(text(place_x(x), bottom + 18, short(x), "middle"))
    labels = []
    for name, line in series.items():
        kind = series_class(name)
        path = "L".join(f"{place_x(x):.1f} {place_y(y):.1f}" for x, y in sorted(line))
        parts.append(f'<path d="M{path}" class="line {kind}" style="fill:none"/>')
        parts += [f'<circle cx="{place_x(x):.1f}" cy="{place_y(y):.1f}" r="3.5" class="{kind}"/>' for x, y in line]
        labels.append([place_y(sorted(line)[-1][1]), name])
    below = 0
    for label in sorted(labels):
        label[0] = below = max(label[0], below + 17)
        parts.append(text(right + 12, label[0] + 4, label[1]))
    return svg(width, height, title, parts)
