"""A program measured on exercises: success, and what it cost by what it asked.

The cost is the same whether an answer is paid for now or remembered by the ledger.
"""

from dataclasses import dataclass
from typing import Any, NamedTuple

import dspy
from dspy.utils.callback import BaseCallback

from m3dspy.optimizers.metrics import Metric, examine
from m3dspy.optimizers.practice import examples
from m3dspy.optimizers.session import Listen, at_work, step
from m3dspy.optimizers.standings import Measured
from m3dspy.optimizers.track import Track
from m3dspy.optimizers.workshop import Workshop
from m3dspy.programs.builder import Builder
from m3dspy.programs.lms.ledger import Ledger, asked


@dataclass(frozen=True)
class Bench:
    """What every measurement needs."""

    names: tuple[str, ...]
    workshop: Workshop
    ledger: Ledger
    threads: int
    listen: Listen


class _Seen(NamedTuple):
    """Of one exercise: keys of the questions asked, answers that could not be read, repairs."""

    keys: list[str]
    unread: int
    repairs: int


class _Watched(dspy.Module):
    """A program at work, and what was seen of it, by exercise."""

    def __init__(self, program: dspy.Module):
        super().__init__()
        self.program = program
        self.seen: dict[str, _Seen] = {}

    def forward(self, exercise: str, request: str) -> dspy.Prediction:
        parsing = _Parsing()
        with asked() as keys, dspy.context(callbacks=[parsing]):
            done = self.program(exercise=exercise, request=request)
        self.seen[exercise] = _Seen(list(dict.fromkeys(keys)), parsing.failures, len(done.complaints))
        return done


class _Parsing(BaseCallback):
    """Counts the answers that were not in the form asked for."""

    def __init__(self) -> None:
        self.failures = 0

    def on_adapter_parse_end(self, call_id: str, outputs: Any, exception: BaseException | None = None) -> None:
        self.failures += exception is not None


def measure(bench: Bench, builder: Builder, part: str, title: str) -> Measured:
    """A role of a program, or the whole, under the LM of the context or those set on its roles.

    Raises: Stopped: a budget is spent, or a vital LM is down.
    """
    cases = examples(list(bench.names), part, bench.workshop)
    watched = _Watched(at_work(builder, part, bench.workshop))
    with step(bench.listen, f"{title}: {part}"):
        verdicts = examine(watched, cases, Metric(part, bench.workshop, Track(())), bench.threads)
    seen = [watched.seen[case.exercise] for case in cases]
    known = {line["key"]: line for line in bench.ledger.lines}
    keys = [key for each in seen for key in each.keys if key in known]
    lines, costs = [known[key] for key in keys], [known[key]["cost"] for key in keys]
    return Measured(
        results={case.exercise: verdict.success for case, verdict in zip(cases, verdicts, strict=True)},
        blamed={case.exercise: verdict.blame for case, verdict in zip(cases, verdicts, strict=True) if verdict.blame},
        calls=len(lines),
        input_tokens=sum(line["input_tokens"] for line in lines),
        output_tokens=sum(line["output_tokens"] for line in lines),
        dollars=None if None in costs else round(sum(costs), 6),
        seconds=round(sum(line["seconds"] for line in lines), 3),
        unread=sum(each.unread for each in seen) + sum(map(bench.ledger.is_useless, keys)),
        repairs=sum(each.repairs for each in seen),
    )
