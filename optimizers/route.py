"""The cheapest LLMs for the four roles whose success is not significantly below the best.

What an assignment comes to is put together from each role measured by itself: it succeeds on an exercise if all its
roles do, and costs what they cost. The one that is chosen is then measured as a whole, beside the best single LLM; if
it does not hold, the role that failed most gets no such LLM again, and the next is chosen.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import optuna

from m3dspy.m3bench.bench import rate
from m3dspy.m3bench.stats import mcnemar
from m3dspy.optimizers.measure import Bench, measure
from m3dspy.optimizers.practice import WHOLE
from m3dspy.optimizers.standings import PARTS, Measured, Route, dollars
from m3dspy.programs.builder import Builder
from m3dspy.programs.lms.model import M3dLM
from m3dspy.signatures.values import ROLES

MOST_LMS = 5  # of which every assignment is tried: 625
SIGNIFICANT = 0.05
CHECKED = 6  # assignments that are measured as a whole, at most
MARGIN = 0.05  # of exercises by which a cheaper assignment may be below the best


class Assignment(NamedTuple):
    """LLMs of the roles, in their order; success on each exercise, and the mean cost of one."""

    lms: tuple[str, ...]
    results: tuple[bool, ...]
    dollars: float

    @property
    def successes(self) -> int:
        return sum(self.results)


def find_route(
    bench: Bench, program: Builder, parts: Mapping[str, Mapping[str, Measured]], lms: Mapping[str, M3dLM]
) -> Route:
    """Choose an assignment and measure it as a whole.

    Args:   parts: LM -> role or "whole" -> the program under it.  LMs that were not measured in full, have no known
            price or are the built-in rules are left out.
    Raises: Stopped: a budget is spent, or an LM is down.
    """
    priced = {
        name: measured
        for name, measured in parts.items()
        if not lms[name].is_rules and all(part in measured and measured[part].dollars is not None for part in PARTS)
    }
    if not priced:
        return Route(said="Nothing to route: no language model of known price was measured in full.")
    tried = assignments(priced)
    single = max(priced, key=lambda name: (sum(priced[name][WHOLE].results.values()), -_dollars(priced[name][WHOLE])))
    alone = next(each for each in tried if set(each.lms) == {single})
    barred: set[tuple[str, str]] = set()  # role and LM that failed it, once all four worked in a row
    route = Route(single=single, tried=len(tried))
    for failed in range(CHECKED):
        allowed = [each for each in tried if not barred & {*zip(ROLES, each.lms, strict=True)}]
        chosen = choose(allowed, tried)
        if chosen not in allowed or chosen.dollars >= alone.dollars:
            break
        routing: dict[str, str] = dict(zip(ROLES, chosen.lms, strict=True))
        routed = program.deepcopy()
        for role, name in routing.items():
            getattr(routed, role).set_lm(lms[name])
        whole = measure(bench, routed, WHOLE, f"route {failed + 1}")
        checked = route.model_copy(update={"routing": routing, "whole": whole, "failed": failed})
        route = verified(checked, priced[single][WHOLE])
        if route.holds:
            return route
        role = _weakest(whole, priced[single][WHOLE], {role for role, name in routing.items() if name != single})
        barred.add((role, routing[role]))
    if route.whole is not None:
        return route
    said = f"No assignment is cheaper than {single} for all roles and not below the best; there is no route."
    return route.model_copy(update={"said": said})


def _weakest(whole: Measured, single: Measured, roles: set[str]) -> str:
    """Of these roles the one that failed most often where the single LLM succeeded."""
    blamed = Counter(role for exercise, role in whole.blamed.items() if single.results[exercise])
    return max(sorted(roles), key=lambda role: blamed[role])


def assignments(parts: Mapping[str, Mapping[str, Measured]]) -> list[Assignment]:
    """Every assignment of LLMs to roles, tried by Optuna."""
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    names = list(parts)
    sampler = optuna.samplers.GridSampler(dict.fromkeys(ROLES, names), seed=0)
    study = optuna.create_study(directions=["maximize", "minimize"], sampler=sampler)
    found: dict[tuple[str, ...], Assignment] = {}

    def objectives(trial: optuna.Trial) -> tuple[float, float]:
        lms = tuple(trial.suggest_categorical(role, names) for role in ROLES)
        found[lms] = assignment(lms, [parts[name][role] for role, name in zip(ROLES, lms, strict=True)])
        return found[lms].successes, found[lms].dollars

    study.optimize(objectives)
    return [found[lms] for lms in sorted(found)]


def assignment(lms: tuple[str, ...], measured: Sequence[Measured]) -> Assignment:
    """What four roles, each measured by itself, come to; an exercise that is not for a role is no obstacle there."""
    exercises = measured[0].results  # the Task Manager does all
    results = tuple(all(role.results.get(exercise, True) for role in measured) for exercise in exercises)
    return Assignment(lms, results, sum(_dollars(role) for role in measured))


def choose(allowed: Sequence[Assignment], tried: Sequence[Assignment]) -> Assignment:
    """The cheapest allowed one that is not below the best that was tried; of equals the more successful."""
    best = max(tried, key=lambda each: (each.successes, -each.dollars))
    good = [each for each in allowed if not below(each.results, best.results)] or [best]
    return min(good, key=lambda each: (each.dollars, -each.successes))


def below(results: Sequence[bool], best: Sequence[bool]) -> bool:
    """Whether success is significantly below the best on the same exercises, or by more than the margin."""
    behind = sum(best) - sum(results)
    return behind > MARGIN * len(best) or mcnemar(results, best) < SIGNIFICANT


def verified(route: Route, single: Measured) -> Route:
    """The route with a verdict: whether the routed whole is cheaper than the single LLM, and not below it."""
    assert route.whole is not None
    ours, theirs = ([*measured.results.values()] for measured in (route.whole, single))
    cost, cost_single = _dollars(route.whole), _dollars(single)
    holds = cost < cost_single and not below(ours, theirs)
    said = (
        f"{'The route' if holds else 'A route was found, but does not hold: it'} costs {dollars(cost)} a run and "
        f"succeeds in {rate(route.whole.success)}; {route.single} for all roles costs {dollars(cost_single)} and "
        f"succeeds in {rate(single.success)}."
    )
    update = {"holds": holds, "said": said, "p_worse": mcnemar(ours, theirs), "p_better": mcnemar(theirs, ours)}
    return route.model_copy(update=update)


def _dollars(measured: Measured) -> float:
    assert measured.dollars_each is not None, "LMs without a price are left out"
    return measured.dollars_each
