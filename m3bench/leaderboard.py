"""Benchmarks side by side: how often each candidate reached S1, S2 and S3, at what cost, beside what is published.

A row is a candidate: a program and its language model. Benchmarks of the same candidate are added up. Success rates
have Wilson intervals; a row is compared with another by Fisher's exact test. Made-up data is marked in every place.
"""

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

from pydantic import Field, ValidationError

from m3dspy.errors import DataError, unknown
from m3dspy.m3bench.bench import Round, Table, rounds_of
from m3dspy.m3bench.stats import fisher, success
from m3dspy.m3bench.task import BenchTask, find
from m3dspy.signatures.values import ROLES, Success, Value

GROUPS = {  # as M3Builder groups its 14 datasets
    "organ segmentation": ("BTCV", "VerSe", "OASIS"),
    "anomaly segmentation": ("COVID19", "Instance22", "MSD_Pancreas", "ChestX-Det10"),
    "disease diagnosis": ("ADNI", "KneeMRI", "CC-CCII", "CT-kidney"),
    "report generation": ("CT-RATE", "BrainGnome", "IU-Xray"),
}
DETECTION = "anomaly detection"  # the six sets of BMAD
SOURCE = (
    "Feng et al. 2025, arXiv:2502.20301, Table 1, real data; counts follow from the published rates (86.67, 100, 95, "
    "93.33 and 94.29 %) for 5 rounds of 14 datasets. It counts completed runs: compare it with S1 alone."
)


class Standing(Value):
    """One row. s3: of the rounds whose dataset has a reference.  groups: S1 by group of datasets.

    shared: S1 on M3Builder's 14 datasets.  seconds, calls, dollars: of all rounds; dollars None: a price is not
    known.  leaks: rounds in which the examiner found one.  p_s1, p_s2: of S1 or S2 being that of
    the row it is compared with; None for that row itself, and where nothing can be compared.
    """

    name: str
    phantom: bool
    s1: Success
    s2: Success | None = None
    s3: Success | None = None
    roles: dict[str, Success] = Field(default_factory=dict)
    groups: dict[str, Success] = Field(default_factory=dict)
    shared: Success
    seconds: float | None = None
    calls: int | None = None
    dollars: float | None = None
    leaks: int = 0
    p_s1: float | None = None
    p_s2: float | None = None
    source: str = ""

    @property
    def runs(self) -> int:
        return self.s1.runs


class Board(Value):
    """What `leaderboard.json` holds. against: the row that the others are compared with."""

    against: str
    rows: tuple[Standing, ...]


M3BUILDER = Standing(
    name="M3Builder, Claude-3.7-Sonnet",
    phantom=False,
    s1=success(66, 70),
    groups=dict(zip(GROUPS, (success(13, 15), success(20, 20), success(19, 20), success(14, 15)), strict=True)),
    shared=success(66, 70),
    source=SOURCE,
)


class _Kept(NamedTuple):
    """A round that a benchmark should have; `round` is None where it is missing, which is a failure."""

    task: BenchTask
    round: Round | None


def leaderboard(folders: Sequence[Path], against: str | None = None) -> Board:
    """The rows of all benchmarks in these folders, the best first, and the published one.

    Args:   against: the beginning of a row's name; None: M3Builder.
    Raises: DataError: a folder holds no benchmark.  UsageError: no row is called so, or more than one.
    """
    kept: dict[str, list[_Kept]] = {}
    for folder in folders:
        name, rounds = _read(folder)
        kept.setdefault(name, []).extend(rounds)
    rows = sorted((standing(name, rounds) for name, rounds in kept.items()), key=_rank)
    rows.append(M3BUILDER)
    other = _chosen(rows, against) if against else M3BUILDER
    return Board(against=other.name, rows=tuple(_compared(row, other) for row in rows))


def _read(folder: Path) -> tuple[str, list[_Kept]]:
    try:
        table = Table.model_validate_json((folder / "bench.json").read_text())
    except (OSError, ValidationError):
        raise DataError(f"{folder} holds no benchmark that ended: there is no bench.json. Run m3dspy bench.") from None
    datasets = [find(row.dataset) for row in table.rows]
    kept = [_Kept(task, found) for task in datasets for found in rounds_of(folder, task, table.rounds)]
    told = [part for part in (table.candidate, table.program.removeprefix("none: "), table.lm) if part]
    return ", ".join(dict.fromkeys(told)) or folder.name, kept


def standing(name: str, rounds: Sequence[_Kept]) -> Standing:
    """The row of a candidate."""
    there = [kept.round for kept in rounds if kept.round]
    dollars = [found.submission.dollars for found in there]
    refs = [kept for kept in rounds if kept.round and kept.round.grade and kept.round.grade.s3 is not None]
    roles = {
        role: success(sum(found.roles[role] for found in told), len(told))
        for role in ROLES
        if (told := [found for found in there if role in found.roles])
    }
    return Standing(
        name=name,
        phantom=any(found.phantom for found in there),
        s1=_rate(rounds, lambda grade: grade.s1),
        s2=_rate(rounds, lambda grade: grade.s2),
        s3=_rate(refs, lambda grade: bool(grade.s3)) if refs else None,
        roles=roles,
        groups={group: _rate(own, lambda grade: grade.s1) for group, own in _grouped(rounds).items()},
        shared=_rate([kept for kept in rounds if group_of(kept.task) != DETECTION], lambda grade: grade.s1),
        seconds=sum(found.seconds for found in there),
        calls=sum(found.submission.calls for found in there),
        dollars=None if None in dollars else sum(filter(None, dollars)),
        leaks=sum(found.leaks for found in there),
    )


def _rate(rounds: Iterable[_Kept], reached: Callable) -> Success:
    counted = [bool(kept.round and kept.round.grade and reached(kept.round.grade)) for kept in rounds]
    return success(sum(counted), len(counted))


def group_of(task: BenchTask) -> str:
    return next((group for group, names in GROUPS.items() if task.name in names), DETECTION)


def _grouped(rounds: Sequence[_Kept]) -> dict[str, list[_Kept]]:
    found = {group: [kept for kept in rounds if group_of(kept.task) == group] for group in (*GROUPS, DETECTION)}
    return {group: own for group, own in found.items() if own}


def _rank(row: Standing) -> tuple[float, float, str]:
    """Best first by what S2, then S1, is at least: one round of one dataset proves less than forty of twenty."""
    return -(row.s2.low if row.s2 else 0.0), -row.s1.low, row.name


def _value(rate: Success | None) -> float:
    return rate.successes / rate.runs if rate and rate.runs else 0.0


def _chosen(rows: Sequence[Standing], against: str) -> Standing:
    exact = [row for row in rows if row.name.lower() == against.lower()]
    found = exact or [row for row in rows if row.name.lower().startswith(against.lower())]
    if len(found) != 1:
        raise unknown("row", against, [row.name for row in rows])
    return found[0]


def _compared(row: Standing, other: Standing) -> Standing:
    """With a row that has no S2, only the datasets that are M3Builder's count."""
    if row == other:
        return row
    published = other.s2 is None or row.s2 is None
    p_s1 = _p(row.shared, other.shared) if published else _p(row.s1, other.s1)
    return row.model_copy(update={"p_s1": p_s1, "p_s2": _p(row.s2, other.s2)})


def _p(one: Success | None, other: Success | None) -> float | None:
    if not one or not other or not one.runs or not other.runs:
        return None
    return fisher(one.successes, one.runs, other.successes, other.runs)


# ------------------------------------------------------------------------------------------------ for people
def markdown(board: Board) -> str:
    """The leaderboard as text."""
    groups = [group for group in (*GROUPS, DETECTION) if any(group in row.groups for row in board.rows)]
    roles = [role for role in ROLES if any(role in row.roles for row in board.rows)]
    lines = [
        *_table(
            ["candidate", "data", "S1", "S2", "S3", "calls", "dollars", "min a round", "p (S1)", "p (S2)", ""],
            [
                [
                    row.name,
                    "**phantom**" if row.phantom else "real",
                    rate(row.s1),
                    rate(row.s2),
                    rate(row.s3),
                    "" if row.calls is None else f"{row.calls:,}",
                    _dollars(row),
                    "" if row.seconds is None else f"{row.seconds / 60 / max(row.runs, 1):.1f}",
                    _p_text(row.p_s1),
                    _p_text(row.p_s2),
                    f"**a leak in {row.leaks}**" if row.leaks else "",
                ]
                for row in board.rows
            ],
        ),
        "",
        "S1: a well-formed answer for every test case, and a valid checkpoint where there is one. S2: better than the",
        "trivial answer and than the controls. S3: 90 % of the reference. a/b with 95 % Wilson intervals; a missing",
        f"round is a failure. p: Fisher's exact test against {board.against}; where that",
        "has S1 alone, on the 14 datasets of M3Builder.",
        "",
        "S1 by group of datasets:",
        "",
        *_table(["candidate", *groups], [[row.name, *(rate(row.groups.get(g)) for g in groups)] for row in board.rows]),
    ]
    if roles:
        told = [[row.name, *(rate(row.roles.get(r)) for r in roles)] for row in board.rows if row.roles]
        lines += ["", "Roles that reached their goal:", "", *_table(["candidate", *roles], told)]
    lines += ["", *(f"{row.name}: {row.source}" for row in board.rows if row.source)]
    if any(row.phantom for row in board.rows):
        lines += [
            "",
            "**phantom**: made-up data; the row says nothing about patients, nor how it compares with a real one.",
        ]
    return "\n".join(lines) + "\n"


def _table(head: Sequence[str], lines: Sequence[Sequence[str]]) -> list[str]:
    return [f"| {' | '.join(cells)} |" for cells in (head, ["---"] * len(head), *lines)]


def rate(found: Success | None) -> str:
    """`5/6 [44%, 97%]`."""
    if not found or not found.runs:
        return ""
    return f"{found.successes}/{found.runs} [{found.low:.0%}, {found.high:.0%}]"


def _dollars(row: Standing) -> str:
    if row.source:
        return ""
    return "not known" if row.dollars is None else f"{row.dollars:.2f}"


def _p_text(p: float | None) -> str:
    return "" if p is None else "< 0.001" if p < 0.001 else f"{p:.3f}"


def write(board: Board, out: Path) -> list[Path]:
    """`leaderboard.md`, `.json` and `.png` in a folder."""
    out.mkdir(parents=True, exist_ok=True)
    (out / "leaderboard.md").write_text(markdown(board))
    (out / "leaderboard.json").write_text(board.model_dump_json(indent=1))
    draw(board, out / "leaderboard.png")
    return [out / f"leaderboard.{suffix}" for suffix in ("md", "json", "png")]


def draw(board: Board, path: Path) -> None:
    """Success rates with their intervals, and success against cost; rows on made-up data are hollow."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    height = 2.2 + 0.55 * len(board.rows)
    figure = Figure(figsize=(13, max(4.2, height)), layout="constrained", facecolor="white")
    FigureCanvasAgg(figure)
    rates, costs = figure.subplots(1, 2, width_ratios=(1.35, 1))
    _draw_rates(rates, board)
    _draw_costs(costs, board)
    figure.savefig(path, dpi=120)


COLOURS = {"S1": "#1b6ca8", "S2": "#c8553d", "S3": "#4f8a4c"}


def _draw_rates(axes, board: Board) -> None:
    for place, row in enumerate(board.rows):
        for shift, (name, found) in zip((-0.22, 0, 0.22), _levels(row).items(), strict=True):
            if not found or not found.runs:
                continue
            value, y = _value(found), place + shift
            fill = "white" if row.phantom else COLOURS[name]
            axes.plot([found.low, found.high], [y, y], color=COLOURS[name], linewidth=2, solid_capstyle="butt")
            axes.plot(value, y, "o", markersize=7, color=COLOURS[name], markerfacecolor=fill)
            axes.text(1.03, y, f"{name} {found.successes}/{found.runs}", fontsize=8, va="center", color=COLOURS[name])
    axes.set_yticks(range(len(board.rows)), [_label(row) for row in board.rows], fontsize=9)
    axes.set_ylim(len(board.rows) - 0.5, -0.5)
    axes.set_xlim(-0.02, 1.2)
    axes.set_xticks([0, 0.25, 0.5, 0.75, 1], ["0 %", "25 %", "50 %", "75 %", "100 %"])
    axes.grid(axis="x", color="#dddddd")
    axes.set_title("Success, with 95 % intervals", loc="left", fontsize=11)
    _without_frame(axes)


def _levels(row: Standing) -> dict[str, Success | None]:
    return {"S1": row.s1, "S2": row.s2, "S3": row.s3}


def _label(row: Standing) -> str:
    leak = f", a leak in {row.leaks}" if row.leaks else ""
    return f"{_short(row.name)}\n{'phantom: made-up data' if row.phantom else 'real data'}{leak}"


def _short(name: str) -> str:
    return name if len(name) <= 42 else f"{name[:39]}..."


def _draw_costs(axes, board: Board) -> None:
    """S2 over dollars a round, or over minutes where nothing costs money; the line joins those that none betters."""
    paid = any(row.dollars for row in board.rows)
    points = []
    for row in board.rows:
        spent = row.dollars if paid else None if row.seconds is None else row.seconds / 60
        if spent is not None and row.s2 is not None and row.runs:
            points.append((spent / row.runs, _value(row.s2), row))
    points.sort(key=lambda point: (point[0], -point[1]))
    front = [point for place, point in enumerate(points) if point[1] > max([p[1] for p in points[:place]], default=-1)]
    axes.step([p[0] for p in front], [p[1] for p in front], where="post", color="#999999", linewidth=1.2, zorder=1)
    for place, (x, y, row) in enumerate(points, start=1):
        fill = "white" if row.phantom else COLOURS["S2"]
        axes.plot(x, y, "o", markersize=13, color=COLOURS["S2"], markerfacecolor=fill, zorder=2)
        axes.text(x, y, str(place), fontsize=8, ha="center", va="center", zorder=3)
    key = "\n".join(f"{place}  {_short(row.name)}" for place, (_, _, row) in enumerate(points, start=1))
    axes.text(0, -0.2, key, transform=axes.transAxes, fontsize=8, va="top")
    axes.set_ylim(-0.08, 1.08)
    axes.set_yticks([0, 0.25, 0.5, 0.75, 1], ["0 %", "25 %", "50 %", "75 %", "100 %"])
    axes.set_xlabel("dollars for language models a round" if paid else "minutes a round")
    axes.grid(color="#dddddd")
    axes.set_title("S2 against cost; hollow: made-up data", loc="left", fontsize=11)
    _without_frame(axes)


def _without_frame(axes) -> None:
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
