"""The charts of a report: Vega-Lite, drawn to SVG when the page is built, in colours that follow the page's theme.

Every chart fits a phone, has its numbers beside it as a table, and says of each mark what it stands for.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from markupsafe import Markup

from m3dspy.signatures.values import SPLITS, Fingerprint, Grade, Index, Score, Trial
from m3dspy.workspace.reporting.blocks import Chart, Table, interval, seen

WIDTH = 340  # of a whole chart, labels and all
SERIES = ("var(--blue)", "var(--orange)", "var(--green)", "var(--purple)", "var(--gold)", "var(--muted)")
MOST_SERIES, MOST_POINTS, FEW_POINTS = len(SERIES), 300, 12
CONFIG = {
    "background": None,
    "font": "sans-serif",
    "view": {"stroke": None},
    "axis": {
        "labelColor": "var(--muted)",
        "titleColor": "var(--muted)",
        "gridColor": "var(--line)",
        "domainColor": "var(--line)",
        "tickColor": "var(--line)",
        "labelFontSize": 11,
        "titleFontSize": 11,
        "titleFontWeight": "normal",
        "labelLimit": 130,
    },
    "legend": {
        "labelColor": "var(--ink)",
        "titleColor": "var(--muted)",
        "labelFontSize": 11,
        "orient": "bottom",
        "columns": 2,
        "labelLimit": 140,
        "title": None,
        "symbolStrokeWidth": 2.5,
    },
}
ZERO_TO_ONE = {"scale": {"domain": [0, 1]}, "axis": {"tickCount": 5}}
Rows = list[dict[str, Any]]


def _draw(spec: dict[str, Any], rows: Rows, height: int) -> Markup:
    """Args: spec: Vega-Lite, without data and size."""
    import vl_convert

    whole = {
        "width": WIDTH,
        "height": height,
        "autosize": {"type": "fit", "contains": "padding"},
        "padding": 4,
        "config": CONFIG,
        "data": {"values": [{key: _told(value) for key, value in row.items()} for row in rows]},
        **spec,
    }
    return Markup(vl_convert.vegalite_to_svg(whole, allowed_base_urls=[]))


def _told(value: Any) -> Any:
    return seen(value) if isinstance(value, str) else value


def _x(name: str, title: str | None = None, **more: Any) -> dict[str, Any]:
    return {"field": name, "type": "quantitative", "title": title or name, **more}


def _named(name: str, title: str | None = None, **more: Any) -> dict[str, Any]:
    return {"field": name, "type": "nominal", "title": title, "sort": None, **more}


def _coloured(name: str, names: Sequence[str], **more: Any) -> dict[str, Any]:
    scale = {"domain": [seen(each) for each in names], "range": [SERIES[n % MOST_SERIES] for n in range(len(names))]}
    return _named(name, scale=scale, **more)


def thinned(points: Sequence[Any], most: int = MOST_POINTS) -> list[Any]:
    """At most so many of the points, evenly spread, the first and the last among them.

    >>> thinned(range(9), 3)
    [0, 4, 8]
    """
    if len(points) <= most:
        return list(points)
    return [points[place] for place in np.linspace(0, len(points) - 1, most).round().astype(int)]


# ------------------------------------------------------------------------------------------------ the verdict
def verdict(grade: Grade) -> Chart:
    """The score with its interval, above everything that it is compared with."""
    compared: list[tuple[str, Score | None]] = [
        ("the model", grade.score),
        ("trivial answer", grade.floor),
        ("shuffled control", grade.control),
        ("dealt to others", grade.dealt),
    ]
    if grade.reference is not None:
        value = grade.reference
        compared.append(("reference recipe", Score(value=value, low=value, high=value)))
    known = [(name, score) for name, score in compared if score]
    rows: Rows = [
        {"answer": name, "score": score.value, "low": score.low, "high": score.high, "whose": name == "the model"}
        for name, score in known
    ]
    y = {**_named("answer"), "axis": {"labelColor": "var(--ink)", "domain": False, "ticks": False}}
    colour = {"condition": {"test": "datum.whose", "value": "var(--blue)"}, "value": "var(--muted)"}
    spec = {
        "encoding": {"y": y},
        "layer": [
            {
                "mark": {"type": "bar", "height": 10, "opacity": 0.3, "cornerRadiusEnd": 2},
                "encoding": {"x": _x("score", grade.metric, scale=_reach(known)), "color": colour},
            },
            {
                "mark": {"type": "rule", "strokeWidth": 2.5},
                "encoding": {"x": _x("low", grade.metric), "x2": {"field": "high"}, "color": colour},
            },
            {
                "mark": {"type": "point", "filled": True, "size": 90, "opacity": 1},
                "encoding": {"x": _x("score", grade.metric), "color": colour},
            },
        ],
    }
    numbers = Table("Compared", ("answer", grade.metric), [(name, interval(score)) for name, score in known])
    beside = ", ".join(f"{name} {score.value:.3f}" for name, score in known[1:])
    about = f"{grade.metric} of the model {interval(grade.score)}, beside {beside}."
    return Chart("The model beside what learnt less", about, _draw(spec, rows, 66 + 30 * len(rows)), numbers)


def _reach(known: Sequence[tuple[str, Score]]) -> dict[str, Any]:
    """An axis from 0 to 1, or further where a metric goes further."""
    return {"domain": [min(0.0, *(score.low for _, score in known)), max(1.0, *(score.high for _, score in known))]}


# ------------------------------------------------------------------------------------------------ data
def parts(index: Index) -> Chart:
    """Cases of each class in each part of the split; for what has no classes, cases and patients."""
    rows: Rows = []
    classes = index.labels if index.task in ("classification", "anomaly_detection") else ()
    for split in SPLITS:
        items = index.items(split)
        given = [item.label if isinstance(item.label, tuple) else (item.label,) for item in items]
        counts = {name: sum(name in labels for labels in given) for name in classes}
        counts = counts or {"cases": len(items), "patients": len({item.patient for item in items})}
        rows += [{"part": split, "what": name, "count": count} for name, count in counts.items()]
    names = list(dict.fromkeys(row["what"] for row in rows))
    spec = {
        "mark": {"type": "bar", "cornerRadiusEnd": 2},
        "encoding": {
            "y": _named("part"),
            "yOffset": _named("what"),
            "x": _x("count", "cases" if classes else "count", axis=_whole(0, max(row["count"] for row in rows))),
            "color": _coloured("what", names, **({} if len(names) <= MOST_SERIES else {"legend": None})),
        },
    }
    about = "Bars: " + "; ".join(f"{row['part']}, {row['what']}: {row['count']}" for row in rows[:12]) + "."
    numbers = Table("Cases", ("part", "of", "count"), [(row["part"], row["what"], row["count"]) for row in rows])
    height = 90 + 3 * min(14 * len(names), 160)
    return Chart("How the cases are split", about, _draw(spec, rows, height), numbers)


def intensities(found: Fingerprint) -> Chart | None:
    """From the darkest to the brightest voxel of each group of images; None where none was measured."""
    keys = ("min", "p0.5", "p50", "p99.5", "max")
    measured = [group for group in found.groups if all(key in group.intensity for key in keys) and not group.values]
    rows: Rows = [
        {"images": group.pattern, **{name: group.intensity[key] for name, key in zip("abcde", keys, strict=True)}}
        for group in measured
    ]
    if not rows:
        return None
    y = _named("images", axis={"labelExpr": "length(datum.label) > 20 ? '…' + slice(datum.label, -19) : datum.label"})
    spec = {
        "encoding": {"y": y},
        "layer": [
            {"mark": {"type": "rule", "color": "var(--muted)"}, "encoding": {"x": _x("a", "value"), "x2": _to("e")}},
            {
                "mark": {"type": "bar", "height": 12, "color": "var(--blue)"},
                "encoding": {"x": _x("b", "value"), "x2": _to("d")},
            },
            {"mark": {"type": "tick", "color": "var(--paper)", "thickness": 2}, "encoding": {"x": _x("c", "value")}},
        ],
    }
    numbers = Table(
        "Values of voxels",
        ("images", *keys),
        [(group.pattern, *(f"{group.intensity[key]:.4g}" for key in keys)) for group in measured],
    )
    about = "Line: from the least to the greatest value. Bar: the middle 99 %. Mark in it: the median."
    return Chart("Intensities of the images", about, _draw(spec, rows, 70 + 30 * len(rows)), numbers)


def _whole(least: int, most: int) -> dict[str, Any]:
    """An axis with ticks at whole numbers only."""
    step = max(1, -(-(most - least) // 7))
    return {"values": list(range(least, most + 1, step)), "format": "d"}


def _to(name: str) -> dict[str, str]:
    return {"field": name}


# ------------------------------------------------------------------------------------------------ training and tuning
def learning(folds: Sequence[Sequence[Mapping[str, float]]], key: str, title: str, axis: str) -> Chart:
    """Loss or score by epoch, a line a fold; the epochs whose model was `kept` are marked."""
    rows: Rows = [
        {"fold": fold + 1, "epoch": epoch["epoch"], "value": epoch[key], "kept": epoch["kept"]}
        for fold, epochs in enumerate(folds)
        for shown in [set(thinned(range(len(epochs))))]
        for place, epoch in enumerate(epochs)
        if epoch["kept"] or place in shown
    ]
    colour = "var(--blue)" if key == "score" else "var(--orange)"
    ends = [row["epoch"] for row in rows]
    spec = {
        "layer": [
            {"mark": {"type": "line", "color": colour, "strokeWidth": 2}, "encoding": {"detail": _named("fold")}},
            {"mark": {"type": "point", "filled": True, "size": 22, "color": colour, "opacity": 1}},
            {
                "transform": [{"filter": "datum.kept"}],
                "mark": {"type": "point", "size": 110, "color": "var(--ink)", "opacity": 1},
            },
        ],
        "encoding": {
            "x": _x("epoch", axis={**_whole(min(ends), max(ends)), "grid": False}, scale={"nice": False}),
            "y": _x("value", axis, scale={"zero": False}),
        },
    }
    if len(folds) == 1:
        first, last = folds[0][0][key], folds[0][-1][key]
        about = f"From {first:.3f} to {last:.3f}"
    else:
        about = f"A line for each of {len(folds)} folds"
    kept = ", ".join(str(row["epoch"]) for row in rows if row["kept"])
    about += f"; circled: what was kept, epoch {kept}." if kept else "."
    columns = ("epoch",) if len(folds) == 1 else ("fold", "epoch")
    numbers = [(*(row[name] for name in columns), f"{row['value']:.4g}") for row in thinned(rows, 60)]
    return Chart(title, about, _draw(spec, rows, 210), Table(title, (*columns, axis), numbers))


def history(tried: Sequence[Trial]) -> Chart:
    """Validation score by trial, and the best so far."""
    states = ("complete", "pruned", "failed")
    rows: Rows = [
        {"trial": trial.number, "score": trial.score, "state": trial.state}
        for trial in thinned(tried)
        if trial.score is not None
    ]
    best = None
    for row in rows:
        if row["state"] == "complete":
            best = row["score"] if best is None else max(best, row["score"])
        row["best"] = best
    shape = _named("state", scale={"domain": states, "range": ["circle", "triangle-down", "cross"]})
    spec = {
        "encoding": {"x": _x("trial", axis=_whole(0, tried[-1].number), scale={"nice": False})},
        "layer": [
            {
                "mark": {"type": "line", "interpolate": "step-after", "color": "var(--muted)"},
                "encoding": {"y": _x("best", "validation score", scale={"zero": False})},
            },
            {
                "mark": {"type": "point", "filled": True, "size": 70, "opacity": 1},
                "encoding": {"y": _x("score", "validation score"), "shape": shape, "color": _coloured("state", states)},
            },
        ],
    }
    counts = ", ".join(f"{sum(trial.state == state for trial in tried)} {state}" for state in states)
    about = f"{counts}; the line is the best so far" + (f", {best:.3f} in the end." if best is not None else ".")
    return Chart("Score of the trials", about, _draw(spec, rows, 240))


def importances(shares: Mapping[str, float]) -> Chart:
    """How much each setting mattered, by PED-ANOVA."""
    rows: Rows = [{"setting": name, "share": share} for name, share in shares.items()]
    spec = {
        "mark": {"type": "bar", "height": 12, "color": "var(--blue)", "cornerRadiusEnd": 2},
        "encoding": {
            "y": _named("setting"),
            "x": _x("share", "share of what is explained", **ZERO_TO_ONE),
        },
    }
    numbers = Table("Importances", ("setting", "share"), [(name, f"{share:.2f}") for name, share in shares.items()])
    about = "Which settings made the difference between trials, by PED-ANOVA. Of few trials it is a guess."
    return Chart("Importance of the settings", about, _draw(spec, rows, 70 + 26 * len(rows)), numbers)


def parallel(tried: Sequence[Trial], names: Sequence[str], logarithmic: Sequence[str]) -> Chart:
    """Every completed trial as a line through its settings, the better the stronger.

    Args: logarithmic: settings whose axis is logarithmic.
    """
    done = [trial for trial in tried if trial.state == "complete" and trial.score is not None]
    ranked = sorted(done, key=lambda trial: trial.score or 0.0)[-60:]
    axes: dict[str, Callable[[Trial], Any]] = {name: lambda trial, n=name: trial.settings.get(n) for name in names}
    axes["score"] = lambda trial: trial.score
    rows: Rows = []
    ends: Rows = []
    for name, of in axes.items():
        values = [value for trial in ranked if (value := of(trial)) is not None]
        place, low, high = _placing(values, name in logarithmic)
        ends += [{"setting": name, "place": 0.0, "text": low}, {"setting": name, "place": 1.0, "text": high}]
        rows += [
            {
                "setting": name,
                "trial": trial.number,
                "place": place(value),
                "value": str(value) if not isinstance(value, float) else f"{value:.3g}",
                "strength": (rank + 1) / len(ranked),
                "best": rank + 1 == len(ranked),
            }
            for rank, trial in enumerate(ranked)
            if (value := of(trial)) is not None
        ]
    x = _named("setting", axis={"labelAngle": 0 if len(axes) < 5 else -35, "grid": True, "labelLimit": 90})
    y = {"field": "place", "type": "quantitative", "axis": None, "scale": {"domain": [-0.08, 1.08]}}
    colour = {"condition": {"test": "datum.best", "value": "var(--orange)"}, "value": "var(--blue)"}
    spec = {
        "layer": [
            {
                "mark": {"type": "line", "strokeWidth": 1.8},
                "encoding": {
                    "x": x,
                    "y": y,
                    "detail": {"field": "trial", "type": "nominal", "title": "trial"},
                    "color": colour,
                    "opacity": {
                        "field": "strength",
                        "type": "quantitative",
                        "scale": {"range": [0.15, 1]},
                        "legend": None,
                    },
                },
            },
            {
                "data": {"values": [{key: _told(value) for key, value in end.items()} for end in ends]},
                "mark": {
                    "type": "text",
                    "fontSize": 10,
                    "color": "var(--muted)",
                    "dy": {"expr": "datum.place ? -8 : 9"},
                },
                "encoding": {"x": x, "y": y, "text": {"field": "text", "type": "nominal"}},
            },
        ]
    }
    about = "Each line is a completed trial; the stronger, the better, and the best in another colour."
    return Chart("Settings of the trials, side by side", about, _draw(spec, rows, 260))


def _placing(values: Sequence[Any], logarithmic: bool) -> tuple[Callable[[Any], float], str, str]:
    """Where a value stands between the least and the greatest, and what those are called; words stand in a row."""
    if all(isinstance(value, int | float) and not isinstance(value, bool) for value in values):
        scale = np.log if logarithmic and min(values) > 0 else float
        low, high = scale(min(values)), scale(max(values))
        return (
            lambda value: float((scale(value) - low) / (high - low)) if high > low else 0.5,
            f"{min(values):.3g}",
            f"{max(values):.3g}",
        )
    words = sorted({str(value) for value in values})
    return lambda value: words.index(str(value)) / max(len(words) - 1, 1), words[0], words[-1]


# ------------------------------------------------------------------------------------------------ results
def confusion(matrix: Sequence[Sequence[int]], labels: Sequence[str]) -> Chart:
    """Test cases by true class (rows) and the model's answer (columns), shaded by the share of the row."""
    rows: Rows = [
        {"true class": truth, "answer": answer, "cases": count, "share": count / max(sum(line), 1)}
        for truth, line in zip(labels, matrix, strict=True)
        for answer, count in zip(labels, line, strict=True)
    ]
    opacity = {"field": "share", "type": "quantitative", "scale": {"domain": [0, 1], "range": [0.04, 0.45]}}
    spec = {
        "encoding": {
            "x": _named("answer", "the model's answer", axis={"labelAngle": 0 if len(labels) < 4 else -40}),
            "y": _named("true class", "true class"),
        },
        "layer": [
            {"mark": {"type": "rect", "color": "var(--blue)"}, "encoding": {"opacity": {**opacity, "legend": None}}},
            {"mark": {"type": "text", "color": "var(--ink)"}, "encoding": {"text": _x("cases")}},
        ],
    }
    numbers = Table("Answers", ("true class", *labels), [(n, *line) for n, line in zip(labels, matrix, strict=True)])
    about = "Rows: the true class. Columns: the model's answer. The darker, the greater the share of the row."
    return Chart(
        "What the model took each class for", about, _draw(spec, rows, min(130 + 34 * len(labels), 420)), numbers
    )


def each(title: str, metric: str, floor: float | None, found: Mapping[str, Score]) -> Chart:
    """Score of each class, structure or finding with its interval. Args: floor: of the whole, drawn as a line."""
    rows: Rows = [
        {"name": name, "score": score.value, "low": score.low, "high": score.high} for name, score in found.items()
    ]
    line = {
        "mark": {"type": "rule", "strokeDash": [4, 3], "color": "var(--orange)", "aria": False},
        "encoding": {"x": {"datum": floor}},
    }
    spec = {
        "layer": [
            *([] if floor is None else [line]),
            {
                "mark": {"type": "rule", "strokeWidth": 2.5, "color": "var(--blue)"},
                "encoding": {"y": _named("name"), "x": _x("low", metric, **ZERO_TO_ONE), "x2": _to("high")},
            },
            {
                "mark": {"type": "point", "filled": True, "size": 70, "color": "var(--blue)", "opacity": 1},
                "encoding": {"y": _named("name"), "x": _x("score", metric)},
            },
        ],
    }
    about = "With 95 % intervals"
    about += "." if floor is None else f"; the broken line is the trivial answer's mean, {floor:.3f}."
    numbers = Table(title, ("", f"{metric} (95 % interval)"), [(name, interval(s)) for name, s in found.items()])
    return Chart(title, about, _draw(spec, rows, 70 + 24 * len(rows)), numbers)


def curves(
    title: str,
    axes: tuple[str, str],
    found: Mapping[str, tuple[np.ndarray, np.ndarray]],
    about: str,
    *,
    diagonal: bool = False,
) -> Chart:
    """Curves in the unit square, such as ROC. Args: diagonal: draw that of chance, or of perfection, too."""
    rows: Rows = []
    for name, (across, up) in found.items():
        points = thinned(list(zip(across.tolist(), up.tolist(), strict=True)), 120)
        rows += [{"of": name, "x": x, "y": y, "order": order} for order, (x, y) in enumerate(points)]
    straight = {
        "data": {"values": [{"x": 0, "y": 0}, {"x": 1, "y": 1}]},
        "mark": {"type": "line", "color": "var(--muted)", "strokeDash": [2, 3], "strokeWidth": 1, "aria": False},
        "encoding": {"x": _x("x", axes[0]), "y": _x("y", axes[1])},
    }
    few = all(len(across) <= FEW_POINTS for across, _ in found.values())
    lines = {
        "mark": {"type": "line", "strokeWidth": 2, "point": {"filled": True, "size": 36} if few else False},
        "encoding": {
            "x": _x("x", axes[0], **ZERO_TO_ONE),
            "y": _x("y", axes[1], **ZERO_TO_ONE),
            "order": {"field": "order", "type": "quantitative"},
            "color": _coloured("of", list(found)),
        },
    }
    spec = {"layer": [*([straight] if diagonal else []), lines]}
    picked = [(name, x, y) for name, (xs, ys) in found.items() for x, y in thinned(list(zip(xs, ys, strict=True)), 11)]
    numbers = Table(title, ("of", *axes), [(name, f"{x:.3f}", f"{y:.3f}") for name, x, y in picked])
    return Chart(title, about, _draw(spec, rows, 300), numbers)


def spread(scores: np.ndarray, truth: np.ndarray, threshold: float) -> Chart:
    """How the scores of normal and abnormal images are spread over [0, 1]."""
    edges = np.linspace(0, 1, 21)
    kinds = {f"normal ({(~truth).sum()})": ~truth, f"abnormal ({truth.sum()})": truth}
    rows: Rows = [
        {"images": name, "from": float(low), "to": float(high), "count": int(count)}
        for name, holds in kinds.items()
        for low, high, count in zip(edges, edges[1:], np.histogram(scores[holds], edges)[0], strict=False)
    ]
    spec = {
        "layer": [
            {
                "mark": {"type": "bar", "opacity": 0.6},
                "encoding": {
                    "x": _x("from", "score", bin={"binned": True}, **ZERO_TO_ONE),
                    "x2": _to("to"),
                    "y": _x("count", "images", stack=None, axis=_whole(0, max(row["count"] for row in rows))),
                    "color": _coloured("images", list(kinds)),
                },
            },
            {
                "mark": {"type": "rule", "strokeDash": [4, 3], "color": "var(--ink)", "aria": False},
                "encoding": {"x": {"datum": threshold}},
            },
        ]
    }
    numbers = Table(
        "Scores",
        ("images", "score", "count"),
        [(row["images"], f"{row['from']:.2f} to {row['to']:.2f}", row["count"]) for row in rows if row["count"]],
    )
    about = f"Bars: images by their score; the broken line is the threshold, {threshold}."
    return Chart("Scores of the test images", about, _draw(spec, rows, 300), numbers)


# ------------------------------------------------------------------------------------------------ curves in numbers
def roc(truth: np.ndarray, scores: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """False- and true-positive rate at every threshold, from (0, 0) to (1, 1).

    >>> [rate.tolist() for rate in roc(np.array([True, False]), np.array([0.9, 0.2]))]
    [[0.0, 0.0, 1.0], [0.0, 1.0, 1.0]]
    """
    hits, alarms = _counted(truth, scores)
    return np.r_[0.0, alarms / alarms[-1]], np.r_[0.0, hits / hits[-1]]


def precision_recall(truth: np.ndarray, scores: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Recall and precision at every threshold, from the highest score down.

    >>> [rate.tolist() for rate in precision_recall(np.array([True, False]), np.array([0.9, 0.2]))]
    [[1.0, 1.0], [1.0, 0.5]]
    """
    hits, alarms = _counted(truth, scores)
    return hits / hits[-1], hits / (hits + alarms)


def _counted(truth: np.ndarray, scores: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Positives and negatives at or above each score that occurs, from the highest down."""
    order = np.argsort(-scores, kind="stable")
    last_of_tie = np.r_[np.diff(scores[order]) < 0, True]
    return np.cumsum(truth[order])[last_of_tie], np.cumsum(~truth[order])[last_of_tie]


def reliability(right: np.ndarray, confidence: np.ndarray, bins: int = 10) -> tuple[np.ndarray, np.ndarray]:
    """Mean confidence and share of right answers, of the cases in each of equally wide bins that holds any.

    >>> [rate.tolist() for rate in reliability(np.array([True, False, True]), np.array([0.55, 0.57, 1.0]))]
    [[0.56, 1.0], [0.5, 1.0]]
    """
    which = np.minimum((confidence * bins).astype(int), bins - 1)
    held = [which == number for number in np.unique(which)]
    return np.array([confidence[each].mean() for each in held]), np.array([right[each].mean() for each in held])
