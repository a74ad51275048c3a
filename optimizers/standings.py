"""What a comparison found, as values and as a table for people."""

from collections.abc import Iterable, Sequence

from pydantic import Field

from m3dspy.m3bench.bench import rate
from m3dspy.m3bench.stats import success
from m3dspy.optimizers.practice import REPAIRS, WHOLE
from m3dspy.programs.role import Role
from m3dspy.signatures.values import ROLES, Success, Value

PARTS = (*ROLES, WHOLE)
COSTS = ("calls", "tokens in", "out", "dollars", "LM time", "unread", "repairs")
LEGEND = (
    f"A role by itself finds an expert's work before it, and its repairs are at most {REPAIRS}; in the whole all four "
    f"roles work in a row, with at most {Role().max_repairs} repairs each. a/b with 95 % Wilson intervals; a request "
    "that must be refused is an exercise for the Task Manager and the whole only.",
    "Means are of one exercise, for what was asked, whether it was paid for now or remembered from an earlier start. "
    "LM time is the time spent waiting for answers. Unread: answers that were empty, cut off, or not in the form "
    "asked for. Repairs: answers that failed a check and were asked for again.",
    "p: of the compiled prompts being no better than those as written under the same LM, one-sided exact McNemar test "
    "over the exercises.",
)


class Measured(Value):
    """A program under an LM, one role by itself or the whole, on all exercises that are for it."""

    results: dict[str, bool] = Field(description="exercise -> success")
    blamed: dict[str, str] = Field(default_factory=dict, description="of the whole: exercise -> role that failed first")
    calls: int
    input_tokens: int
    output_tokens: int
    dollars: float | None = Field(description="None: the price is not known")
    seconds: float = Field(description="spent waiting for the LM")
    unread: int
    repairs: int

    @property
    def success(self) -> Success:
        """How often it succeeded."""
        return success(sum(self.results.values()), len(self.results))

    @property
    def count(self) -> int:
        """Exercises, 1 where there is none for the role."""
        return len(self.results) or 1

    @property
    def dollars_each(self) -> float | None:
        """An exercise, in the mean."""
        return None if self.dollars is None else self.dollars / self.count

    @property
    def tokens_each(self) -> float:
        """Read and written for an exercise, in the mean."""
        return (self.input_tokens + self.output_tokens) / self.count


class Row(Value):
    """A program under an LM; `parts` by role's name and "whole", as far as it came."""

    lm: str
    compiled: bool
    parts: dict[str, Measured] = Field(default_factory=dict)
    p: dict[str, float] = Field(default_factory=dict, description="part -> of being no better than as written")
    ended: str = Field(default="", description="why the LM could not go on")

    @property
    def title(self) -> str:
        """LM and prompts, for people."""
        return f"{self.lm}{' (no language model)' if self.lm == 'rules' else ''}, {prompts(self.compiled)}"


class Route(Value):
    """The cheapest LLMs for the roles, beside the best single LLM."""

    routing: dict[str, str] = Field(default_factory=dict, description="role -> LM; empty: nothing is cheaper")
    single: str = Field(default="", description="the best single LLM")
    tried: int = Field(default=0, description="assignments")
    failed: int = Field(default=0, description="cheaper ones that were measured as a whole before, and did not hold")
    whole: Measured | None = Field(default=None, description="of the routed program, all four roles in a row")
    p_worse: float | None = Field(default=None, description="of the single LLM being no better than the route")
    p_better: float | None = Field(default=None, description="of the route being no better than the single LLM")
    holds: bool = Field(default=False, description="the routed whole is cheaper and not below the single LLM")
    said: str = Field(default="", description="what came of it, one sentence")


class Comparison(Value):
    """What `comparison.json` holds."""

    program: str
    exercises: tuple[str, ...]
    rows: tuple[Row, ...] = ()
    route: Route | None = None
    routed: str = Field(default="", description="folder of the routed program, if there is one")
    ended: str = Field(default="", description="why the comparison ended early")

    @property
    def problem(self) -> str:
        """What keeps it from being complete; "" if nothing does."""
        return self.ended or next((f"{row.lm}: {row.ended}" for row in self.rows if row.ended), "")


def prompts(compiled: bool) -> str:
    return "compiled" if compiled else "as written"


def markdown(found: Comparison) -> str:
    """The tables for people."""
    lines = [
        f"# {found.program}",
        "",
        f"On {len(found.exercises)} held-out exercises.",
        "",
        *_table(("LM, prompts", *PARTS, "p (whole)"), map(_successes, found.rows)),
        "",
        *_table(
            ("LM, prompts", "work", *COSTS),
            [_costs(row, part) for row in found.rows for part in row.parts],
        ),
        "",
    ]
    lines += [f"{row.title} ended early: {row.ended}" for row in found.rows if row.ended]
    if found.ended:
        lines.append(f"The comparison ended early: {found.ended}")
    if found.route:
        lines += _routed(found.route)
    return "\n".join([*lines, *(f"\n{line}" for line in LEGEND)]) + "\n"


def dollars(amount: float | None) -> str:
    """`$0.0123`.

    >>> dollars(0.01234), dollars(None)
    ('$0.0123', 'price not known')
    """
    return "price not known" if amount is None else f"${amount:.3g}"


def _successes(row: Row) -> list[str]:
    cells = [rate(row.parts[part].success) if part in row.parts else "not measured" for part in PARTS]
    return [row.title, *cells, f"{row.p[WHOLE]:.2g}" if WHOLE in row.p else ""]


def _costs(row: Row, part: str) -> list[str]:
    return [row.title, part, *_cost(row.parts[part])]


def _cost(of: Measured) -> list[str]:
    means = [f"{of.calls / of.count:.1f}", f"{of.input_tokens / of.count:.0f}", f"{of.output_tokens / of.count:.0f}"]
    return [*means, dollars(of.dollars_each), f"{of.seconds / of.count:.2f} s", str(of.unread), str(of.repairs)]


def _routed(route: Route) -> list[str]:
    lines = ["## Route", "", route.said]
    if route.whole:
        lines += [
            "",
            f"p = {route.p_worse:.2g} of {route.single} being no better than the route, {route.p_better:.2g} of the "
            f"route being no better, one-sided exact McNemar tests. Chosen among {route.tried} assignments and checked "
            f"on the same exercises; {route.failed} cheaper ones were checked before and did not hold.",
            "",
            *_table(("role", "LM"), list(route.routing.items())),
            "",
            *_table(("work", *COSTS), [["the route, whole", *_cost(route.whole)]]),
        ]
    return lines


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    return [f"| {' | '.join(cells)} |" for cells in (head, ["---"] * len(head), *rows)]
