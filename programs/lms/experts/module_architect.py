"""The rules of the Module Architect: nnU-Net's habit of letting the data decide, for small data and small machines."""

import math
import re
from typing import Any

from m3dspy.signatures.values import Catalogue, Design, Fingerprint, Group, IndexSummary, Knob, NetworkEntry, Plan

_STEPS = {"classification": 900, "segmentation": 500}  # optimiser steps of a whole training
_MOST_VOXELS = {2: 128 * 128, 3: 48 * 48 * 48}  # of an input (classification) or a patch (segmentation)


def design_training(
    request: str, plan: Plan, index: IndexSummary, fingerprint: Fingerprint, catalogue: Catalogue, complaint: str
) -> dict[str, Any]:
    """One complete run; a complaint about memory halves it."""
    group = next(group for group in fingerprint.groups if group.pattern == plan.images)
    template = next(template for template in catalogue.templates if template.task == plan.task)
    network = _network(request, plan, catalogue)
    batch = 16 if plan.task == "classification" else 4
    if "memory" in complaint.lower():
        batch = max(1, batch // 4)
    spacing = _spacing(plan, group)
    size = _size(plan, group, spacing)
    cases = index.cases.get("training", 1)
    intensity, window = _intensity(plan, group)
    design = Design(
        template=template.name,
        network=network.name,
        dims=plan.dims,
        channels=group.channels,
        size=size,
        spacing=spacing,
        intensity=intensity,
        window=window,
        flips=_flips(plan),
        augment=0.5,
        loss=template.losses[0],
        lr=2e-3 if network.size == "small" else 1e-3,
        weight_decay=1e-2,
        batch=batch,
        epochs=max(4, min(100, math.ceil(_STEPS[plan.task] * batch / max(cases, batch)))),
        space={
            "lr": Knob(low=5e-4, high=8e-3, log=True),
            "augment": Knob(low=0.1, high=0.9),
            "weight_decay": Knob(low=1e-4, high=1e-1, log=True),
        },
        why=f"{network.name} on {'x'.join(map(str, size))} voxels, as the median image is that size at this spacing.",
    )
    return {"design": design}


def _network(request: str, plan: Plan, catalogue: Catalogue) -> NetworkEntry:
    """The small one, unless the request puts accuracy first."""
    wanted = "strong" if re.search(r"\b(accura|best|strong|state.of.the.art)", request.lower()) else "small"
    fits = [entry for entry in catalogue.networks if entry.task == plan.task and plan.dims in entry.dims]
    return next((entry for entry in fits if entry.size == wanted), fits[0])


def _spacing(plan: Plan, group: Group) -> tuple[float, ...] | None:
    """Masks: the median spacing, so that organs have one size. Classes: the grid as it is, fitted to one size."""
    if plan.task == "classification" or plan.dims == 2 or group.spacing is None:
        return None
    return tuple(round(mm, 2) for mm in group.spacing.median)


def _size(plan: Plan, group: Group, spacing: tuple[float, ...] | None) -> tuple[int, ...]:
    """The median image, shrunk evenly to what a small machine can train on; multiples of 8, to be halved."""
    shape = group.shape.median[: plan.dims]
    shrink = min(1.0, (_MOST_VOXELS[plan.dims] / math.prod(shape)) ** (1 / plan.dims))
    step = 8 if min(shape) >= 16 else 4
    return tuple(max(step, round(voxels * shrink / step) * step) for voxels in shape)


def _intensity(plan: Plan, group: Group) -> tuple[str, tuple[float, float] | None]:
    """A window only where every file is in HU; z-score for MR; else percentiles of each image."""
    if plan.modality == "CT" and set(group.units) == {"HU"}:
        low, high = group.intensity.get("p0.5", -1000.0), group.intensity.get("p99.5", 1000.0)
        return "window", (round(max(low, -1024.0)), round(min(high, 2000.0)))
    return ("zscore" if plan.modality == "MR" else "percentile"), None


def _flips(plan: Plan) -> tuple[int, ...]:
    """Left-right only, and only where no label has a side: the body is not symmetric in the other axes."""
    return () if plan.sided else ((0,) if plan.dims == 3 else (1,))
