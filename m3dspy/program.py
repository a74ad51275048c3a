"""What `m3dspy program` tells about compiled programs: each answer as data for machines and as text for people."""

import difflib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from m3dspy.errors import DataError
from m3dspy.m3bench.bench import rate
from m3dspy.optimizers.estimate import Cost
from m3dspy.optimizers.session import Limits
from m3dspy.programs import artifact, state
from m3dspy.programs.artifact import Manifest, Scores
from m3dspy.programs.builder import Builder

Answer = tuple[dict[str, Any], str]


def show(name: str) -> Answer:
    """What compiled a program, with what effect, and its prompts in short."""
    loaded, against = artifact.load(name, force=True), artifact.differences(artifact.find(name))
    predictors = {
        name: {"instructions": state.prompt(predictor).signature.instructions, "demos": len(predictor.demos)}
        for name, predictor in loaded.builder.named_predictors()
    }
    found = {
        "folder": str(loaded.folder),
        "manifest": loaded.manifest.model_dump(mode="json"),
        "differences": against,
        "predictors": predictors,
    }
    lines = [*made(loaded.manifest), *_warnings(against)]
    for predictor, prompt in predictors.items():
        lines += ["", f"{predictor}, {prompt['demos']} demonstrations", *_indented(prompt["instructions"])]
    return found, "\n".join(lines)


def diff(name: str, other: str | None) -> Answer:
    """Where prompts differ: as written against compiled, or between two compiled programs."""
    names = [name] if other is None else [name, other]
    programs = [artifact.load(each, force=True).builder for each in names]
    against = [f"{each}: {line}" for each in names for line in artifact.differences(artifact.find(each))]
    old, new = programs if other else (Builder(), *programs)
    labels = (name, other) if other else ("as written", name)
    prompts = {}
    compiled = dict(new.named_predictors())
    for predictor, before in old.named_predictors():
        a, b = (state.rendered(each).splitlines() for each in (before, compiled[predictor]))
        if lines := list(
            difflib.unified_diff(a, b, f"{predictor} {labels[0]}", f"{predictor} {labels[1]}", lineterm="")
        ):
            prompts[predictor] = "\n".join(lines)
    text = [*_warnings(against), *(prompts.values() or ["The prompts are the same."])]
    return {"differences": against, "prompts": prompts}, "\n".join(text)


def listing(runs: Path) -> Answer:
    """The programs that come with the package, and those below a folder of runs."""
    found, lines = [], []
    for folder in [*artifact.shipped(), *sorted(path.parent for path in runs.rglob("manifest.json"))]:
        try:
            manifest = artifact.read_manifest(folder)
        except DataError as error:
            found.append({"folder": str(folder), "error": str(error)})
            lines.append(f"{folder}  ! {error}")
            continue
        scores = manifest.held_out
        found.append(
            {
                "folder": str(folder),
                "name": manifest.name,
                "made": manifest.made,
                "optimizer": manifest.optimizer,
                "student": manifest.student,
                "teacher": manifest.teacher,
                "improved": manifest.improved,
                "held_out": scores.model_dump(mode="json"),
            }
        )
        whole = f"; held-out {_change(scores, 'whole')}" if "whole" in scores.after else ""
        lines.append(
            f"{folder}  {manifest.title}: {manifest.optimizer}, {manifest.student} taught by {manifest.teacher}{whole}"
        )
    return {"programs": found}, "\n".join(lines) or f"No compiled program here: none comes along, none below {runs}."


def compiled(folder: Path, manifest: Manifest) -> Answer:
    """What compiling came to."""
    text = "\n".join([*made(manifest), f"Program: {folder}"])
    return {"folder": str(folder), "manifest": manifest.model_dump(mode="json")}, text


def problem(manifest: Manifest, folder: Path) -> str:
    """What keeps a compile from being called a success; "" if nothing does."""
    if manifest.ended:
        return f"Ended early: {manifest.ended} The best so far is in {folder}; the same command goes on from here."
    if not manifest.improved:
        return f"Nothing improved: no more held-out exercises succeed than with the prompts as written. See {folder}."
    return ""


def costs(found: Sequence[Cost], limits: Limits) -> Answer:
    """An estimate, and what the limits say to it."""
    lines = [
        f"{cost.role:<9}{cost.lm}: about {cost.calls} calls, {cost.input_tokens / 1e6:.2f} M tokens in, "
        f"{cost.output_tokens / 1e6:.2f} M out, "
        + ("price not known" if cost.dollars is None else f"${cost.dollars:.2f}")
        for cost in found
    ]
    calls, dollars = sum(cost.calls for cost in found), [cost.dollars for cost in found]
    lines.append("Repairs come on top: up to as much again with a weak student. Nothing was spent.")
    if limits.max_calls is not None and calls > limits.max_calls:
        lines.append(f"--max-calls {limits.max_calls} would end it early.")
    if limits.budget is not None and None not in dollars and sum(filter(None, dollars)) > limits.budget:
        lines.append(f"--budget {limits.budget:g} would end it early.")
    return {"costs": [cost.model_dump() for cost in found], "limits": limits.model_dump()}, "\n".join(lines)


def made(manifest: Manifest) -> list[str]:
    arguments = ", ".join(f"{name}={value}" for name, value in manifest.arguments.items())
    lines = [
        manifest.title,
        f"compiled by {manifest.optimizer} ({', '.join(filter(None, [arguments, f'seed={manifest.seed}']))})"
        f" on {manifest.made}",
        f"student {manifest.student}, teacher {manifest.teacher}, {manifest.adapter}",
        "with " + ", ".join(f"{name} {version}" for name, version in manifest.versions.items()),
        *(f"{part}: {len(names)} exercises" for part, names in manifest.tasks.items()),
        f"improved: {'yes' if manifest.improved else 'no'}",
    ]
    if manifest.ended:
        lines.append(f"ended early: {manifest.ended}")
    for part, scores in (("validation", manifest.validation), ("held-out", manifest.held_out)):
        roles = dict.fromkeys((*scores.before, *scores.after))
        lines += [f"{part:<12}{role:<18}{_change(scores, role)}" for role in roles]
    for usage in manifest.usage:
        dollars = "price not known" if usage.dollars is None else f"${usage.dollars:.4f}"
        lines.append(
            f"spent       {usage.lm} {usage.role or 'no role'}: {usage.calls} calls, {usage.input_tokens} tokens in, "
            f"{usage.output_tokens} out, {dollars}, {usage.seconds:.0f} s"
        )
    return lines + [f"routing     {role}: {lm}" for role, lm in manifest.routing.items()]


def _change(scores: Scores, role: str) -> str:
    before, after = (rate(side[role]) if role in side else "not measured" for side in (scores.before, scores.after))
    return f"{before} -> {after}" + (f"  p = {scores.p[role]:.2g}" if role in scores.p else "")


def _warnings(against: list[str]) -> list[str]:
    return [f"  ! {line}" for line in against]


def _indented(text: str) -> list[str]:
    return [f"    {line}".rstrip() for line in text.splitlines()]
