"""The plot of a comparison: what a whole run costs against how often it succeeds."""

from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from m3dspy.optimizers.practice import WHOLE
from m3dspy.optimizers.standings import Comparison, Measured
from m3dspy.programs.lms.model import at_server

SPREAD = 4  # times the least cost, from which on the axis is logarithmic
COMPILED, WRITTEN, ROUTED = "#1f5fa8", "#9a9a9a", "#c8551b"
_PLACES = [  # of a label: points to the right of its mark and above it, in the order in which they are tried
    (right, above, side) for above in (-4, 8, -16, 20, -28, 32, -40, 44) for right, side in ((9, "left"), (-9, "right"))
]


class _Mark(NamedTuple):
    """One program under one LM; `label` is empty where another mark of the LM has it."""

    x: float
    of: Measured
    label: str
    colour: str
    symbol: str = "o"


def draw(found: Comparison, file: Path) -> None:
    """Write the plot as PNG, 800 pixels wide. What has no price stands in a panel of its own."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.ticker import LogLocator, MaxNLocator, PercentFormatter

    priced, others = _marks(found)
    figure = Figure(figsize=(8, 5), dpi=100, layout="constrained")
    canvas = FigureCanvasAgg(figure)
    widths = [3, 1] if others else [1]
    panels = figure.subplots(1, len(widths), sharey=True, squeeze=False, gridspec_kw={"width_ratios": widths})[0]
    for panel, marks in zip(panels, (priced, others), strict=False):
        panel.spines[["top", "right"]].set_visible(False)
        panel.grid(axis="y", color="#e5e5e5")
        _plot(panel, marks)
    panels[0].set(xlabel="dollars a run", ylabel="success of the whole", ylim=(-0.05, 1.05))
    panels[0].yaxis.set_major_formatter(PercentFormatter(1))
    panels[0].margins(x=0.15)
    costs = [mark.x for mark in priced]
    spread = bool(costs) and max(costs) > SPREAD * min(costs)
    panels[0].set_xscale("log" if spread else "linear")
    panels[0].xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)) if spread else MaxNLocator(5))
    panels[0].xaxis.set_major_formatter("${x:g}")
    panels[0].tick_params(axis="x", which="minor", bottom=False, labelbottom=False)
    if others:
        panels[1].set(xlabel="no price", xticks=[], xlim=(-0.3, max(mark.x for mark in others) + 1))
    figure.suptitle(
        f"{found.program} on {len(found.exercises)} held-out exercises: mean cost, success with 95 % interval\n"
        "grey: prompts as written; blue: compiled",
        fontsize=9,
    )
    canvas.draw()  # only now it is known where things are
    for panel, marks in zip(panels, (priced, others), strict=False):
        _label(panel, canvas.get_renderer(), marks)
    figure.savefig(file)


def _marks(found: Comparison) -> tuple[list[_Mark], list[_Mark]]:
    """Those with a price, at their cost; and those without, side by side. As written first, then compiled."""
    priced: list[_Mark] = []
    others: list[_Mark] = []
    rows = {(row.lm, row.compiled): row.parts[WHOLE] for row in found.rows if WHOLE in row.parts}
    for number, lm in enumerate(dict.fromkeys(lm for lm, _ in rows)):
        name = at_server(lm)[0].rpartition("/")[2]
        for compiled, colour in ((False, WRITTEN), (True, COMPILED)):
            if not (of := rows.get((lm, compiled))):
                continue
            label = "" if not compiled and (lm, True) in rows else name
            if of.dollars_each:
                priced.append(_Mark(of.dollars_each, of, label, colour))
            else:
                note = "(no LLM)" if lm == "rules" else f"{of.tokens_each:.0f} tokens a run"
                others.append(_Mark(number, of, label and f"{label}\n{note}", colour))
    if found.route and found.route.whole and found.route.whole.dollars_each:
        priced.append(_Mark(found.route.whole.dollars_each, found.route.whole, "route", ROUTED, "*"))
    return priced, others


def _plot(panel: Any, marks: list[_Mark]) -> None:
    for k, mark in enumerate(marks):
        rate = _rate(mark)
        low, high = mark.of.success.low, mark.of.success.high
        interval = [[max(0.0, rate - low)], [max(0.0, high - rate)]]  # of 6 in 6, high may be 1 less the last bit
        size = 15 if mark.symbol == "*" else 7
        panel.errorbar(mark.x, rate, interval, fmt=mark.symbol, color=mark.colour, ms=size, lw=1, alpha=0.9, zorder=3)
        if not mark.label:  # its compiled twin is next
            to = (marks[k + 1].x, _rate(marks[k + 1]))
            panel.annotate("", to, (mark.x, rate), arrowprops={"arrowstyle": "->", "color": COMPILED, "lw": 1.2})


def _label(panel: Any, renderer: Any, marks: list[_Mark]) -> None:
    """Each label where it hides the least of marks, intervals and earlier labels, and stays inside."""
    from matplotlib.transforms import Bbox

    spots = []
    for k, mark in enumerate(marks):
        (x, y), (_, low), (_, high) = panel.transData.transform(
            [(mark.x, rate) for rate in (_rate(mark), mark.of.success.low, mark.of.success.high)]
        )
        spots += [(x, low + part * (high - low)) for part in np.linspace(0, 1, 20)]
        if not mark.label:
            to_x, to_y = panel.transData.transform((marks[k + 1].x, _rate(marks[k + 1])))
            spots += [(x + part * (to_x - x), y + part * (to_y - y)) for part in np.linspace(0, 1, 20)]
        spots += [(x, y)]
    taken = [Bbox.from_extents(x - 4, y - 4, x + 4, y + 4) for x, y in spots]
    frame = panel.get_window_extent(renderer)
    for mark in filter(lambda mark: mark.label, marks):
        text = panel.annotate(mark.label, (mark.x, _rate(mark)), (0, 0), textcoords="offset points", fontsize=9)
        text.set_color(mark.colour)

        def hides(place: tuple[int, int, str], text: Any = text) -> float:
            text.xyann, side = place[:2], place[2]
            text.set_horizontalalignment(side)
            box = text.get_window_extent(renderer)
            outside = box.x0 < frame.x0 or box.x1 > frame.x1 + 5
            return 100 * outside + sum(bool(box.overlaps(other)) for other in taken)

        hides(min(_PLACES, key=hides))
        taken.append(text.get_window_extent(renderer))


def _rate(mark: _Mark) -> float:
    return mark.of.success.successes / mark.of.success.runs
