"""Bars and lines as SVG text."""
from __future__ import annotations

import math
from html import escape

COLOURS = ("#1b6ca8", "#d1603d", "#6a994e", "#8e6c8a", "#c9a227", "#5c677d", "#2a9d8f", "#9d4edd")
STYLE = "font-family='sans-serif' font-size='12' fill='#222'"


def number(value: float) -> str:
    return f"{value:.0f}" if abs(value) >= 100 else f"{value:.3g}"


def document(width: int, height: int, title: str, body: list) -> str:
    return "\n".join([f"<svg xmlns='http://www.w3.org/2000/svg' width='{width}' height='{height}' "
                      f"viewBox='0 0 {width} {height}'>", f"<rect width='{width}' height='{height}' fill='#fff'/>",
                      text(12, 20, title, "font-weight='bold'"), *body, "</svg>", ""])


def text(x: float, y: float, words: str, more: str = "") -> str:
    return f"<text x='{x:.1f}' y='{y:.1f}' {STYLE} {more}>{escape(words)}</text>"


def bars(title: str, groups: list, unit: str) -> str:
    """groups: (name, [(label, value, [(part, value)])]); a bar without parts is one piece, in the colour of its
    label's first word."""
    left, right, y, body, legend = 200, 560, 40, [], []
    words = list(dict.fromkeys(label.replace(",", " ").split()[0] for _, rows in groups for label, _, _ in rows))
    largest = max((value for _, rows in groups for _, value, _ in rows), default=0.0) or 1.0
    for name, rows in groups:
        body.append(text(12, y + 12, name, "font-style='italic'"))
        y += 20
        for label, value, parts in rows:
            body.append(text(left - 8, y + 13, label, "text-anchor='end'"))
            x = float(left)
            for part, size in parts or [("", value)]:
                if part and part not in legend:
                    legend.append(part)
                of = legend.index(part) if part else words.index(label.replace(",", " ").split()[0])
                colour, width = COLOURS[of % len(COLOURS)], (right - left) * size / largest
                body.append(f"<rect x='{x:.1f}' y='{y}' width='{width:.1f}' height='17' fill='{colour}'/>")
                x += width
            body.append(text(x + 5, y + 13, f"{number(value)} {unit}"))
            y += 21
        y += 8
    for i, part in enumerate(legend):
        body.append(f"<rect x='{12 + 105 * i}' y='{y}' width='12' height='12' fill='{COLOURS[i % len(COLOURS)]}'/>")
        body.append(text(28 + 105 * i, y + 11, part))
    return document(680, y + 24, title, body)


def ticks(low: float, high: float) -> list:
    """Round numbers from below low to above high: 1, 2 and 5 of each power of ten, the powers alone where those are
    many."""
    first, last = math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1
    steps = (1, 2, 5) if math.log10(high / low) < 2.5 else (1,)
    all_of_them = [step * 10.0 ** power for power in range(first, last) for step in steps]
    below = max((tick for tick in all_of_them if tick <= low), default=all_of_them[0])
    above = min((tick for tick in all_of_them if tick >= high and tick > below), default=all_of_them[-1])
    return [tick for tick in all_of_them if below <= tick <= above]


def lines(title: str, x_name: str, unit: str, series: dict) -> str:
    """series: {name: [(x, y)]}; both axes are logarithmic. The last point of each line is told in numbers."""
    points = [(x, y) for rows in series.values() for x, y in rows if x > 0 and y > 0]
    left, top, width, height = 74, 36, 460, 300
    if not points:
        return document(680, 80, title, [text(12, 50, "nothing was measured")])
    low_x, high_x = min(x for x, _ in points), max(x for x, _ in points)
    rows_y = ticks(min(y for _, y in points), max(y for _, y in points))
    low_y, high_y = rows_y[0], rows_y[-1]

    def at(x: float, y: float) -> tuple:
        along = math.log(x / low_x) / math.log(high_x / low_x) if high_x > low_x else 0.5
        return left + width * along, top + height * (1 - math.log(y / low_y) / math.log(high_y / low_y))

    body = []
    for y in rows_y:
        _, level = at(low_x, y)
        body.append(f"<line x1='{left}' x2='{left + width}' y1='{level:.1f}' y2='{level:.1f}' stroke='#ddd'/>")
        body.append(text(left - 8, level + 4, f"{y:g}", "text-anchor='end'"))
    for x in sorted({x for x, _ in points}):
        across = at(x, low_y)[0]
        body.append(f"<line x1='{across:.1f}' x2='{across:.1f}' y1='{top + height}' y2='{top + height + 4}' "
                    "stroke='#999'/>")
        body.append(text(across, top + height + 17, f"{x:g}", "text-anchor='middle'"))
    body.append(text(left + width / 2, top + height + 36, x_name, "text-anchor='middle'"))
    middle = top + height / 2
    body.append(text(20, middle, unit, f"text-anchor='middle' transform='rotate(-90 20 {middle:.1f})'"))
    for i, (name, rows) in enumerate(series.items()):
        colour = COLOURS[i % len(COLOURS)]
        places = [at(x, y) for x, y in sorted(rows) if x > 0 and y > 0]
        path = " ".join(f"{x:.1f},{y:.1f}" for x, y in places)
        body.append(f"<polyline points='{path}' fill='none' stroke='{colour}' stroke-width='2'/>")
        body += [f"<circle cx='{x:.1f}' cy='{y:.1f}' r='3' fill='{colour}'/>" for x, y in places]
        if places:
            body.append(text(places[-1][0] + 7, places[-1][1] + 4, number(max(rows)[1])))
        body.append(f"<rect x='{left + width + 46}' y='{top + 20 * i}' width='12' height='12' fill='{colour}'/>")
        body.append(text(left + width + 63, top + 11 + 20 * i, name))
    return document(720, top + height + 48, title, body)
