"""The rules of the Module Architect: nnU-Net's habit of letting the data decide, for small data and small machines.

The numbers for a CPU were measured on phantoms, a training of about a minute on one thread. Those for a GPU are
nnU-Net's own. Where the request asks for nnU-Net, and it is installed, it is left to plan for itself.
"""

import math
import re
from collections.abc import Sequence
from typing import Any, Literal

from m3dspy.programs.lms.experts import anomalies, nnunet, reports, words
from m3dspy.signatures.values import (
    Catalogue,
    Design,
    Fingerprint,
    Group,
    IndexSummary,
    Knob,
    Machine,
    NetworkEntry,
    Plan,
    TemplateEntry,
)

_WINDOWS = {"lung": (-1000.0, 300.0), "blood": (-20.0, 120.0), "soft tissue": (-160.0, 260.0)}  # HU
_QUICK = re.compile(  # not: to draft a report, fast spin echo, roughly 200 films
    r"\bquick|\bfast\b(?![ -](?:spin|field|gradient|low|flair))|\brough\b|"
    r"\b(?:a|first) draft\b|\bdraft (?:model|version)\b",
    re.I,
)
_HURRY = 1.5  # so much coarser are the voxels of a quick try
_MOST_VOXELS = 4_000_000  # of a whole volume that is marked patch by patch
_CROPS = 4  # an image, as a Design has it unless it says otherwise
_ENOUGH = 6.0  # gigabytes of a GPU for which nnU-Net's rules are made
_NNUNETS_GIGABYTES = 7.5  # that its own plan takes
_MOST_GIGABYTES = 24.0  # from which on a plain U-Net gains nothing by larger patches
_STEPS_AN_EPOCH = 250  # of a GPU, as nnU-Net has it
_MANY = 4  # labels; with more, a step must see many patches to meet each of them
_LEARNT_AT = (224, 224)  # pixels at which most networks of timm were trained
_LEARNT_LR, _LEARNT_LRS = 2e-4, Knob(low=3e-5, high=1e-3, log=True)  # of weights that know something already
_SPACES = {
    "classification": {
        "lr": Knob(low=5e-4, high=5e-3, log=True),
        "augment": Knob(low=0.1, high=0.5),
        "dropout": Knob(low=0.1, high=0.5),
    },
    "segmentation": {
        "lr": Knob(low=2e-3, high=2e-2, log=True),
        "augment": Knob(low=0.0, high=0.6),
        "weight_decay": Knob(low=1e-3, high=1e-1, log=True),
    },
}


def design_training(
    request: str,
    plan: Plan,
    index: IndexSummary,
    fingerprint: Fingerprint,
    machine: Machine,
    catalogue: Catalogue,
    complaint: str,
) -> dict[str, Any]:
    """One complete run; after a complaint about memory, with the smallest batch."""
    group = next(group for group in fingerprint.groups if group.pattern == plan.images)
    template = next(entry for entry in catalogue.templates if entry.task == plan.task and entry.needs is None)
    hurry, alone = _hurry(request), "memory" in complaint.lower()
    if plan.task == "anomaly_detection":
        network = _network(request, plan, catalogue)
        return {"design": anomalies.design(request, plan, group, catalogue, network, hurry=hurry, alone=alone)}
    itself = next((entry for entry in catalogue.templates if entry.name == nnunet.TEMPLATE), None)
    if plan.task == "segmentation" and itself and words.wants_nnunet(request):
        return {"design": _by_nnunet(request, plan, group, machine, itself, hurry=hurry)}
    if plan.task == "segmentation" and machine.gigabytes >= _ENOUGH and not hurry:
        return {"design": _filling(request, plan, index, group, machine, catalogue, template, alone)}
    intensity, window = _intensity(plan, group)
    if plan.task == "report_generation":
        network = _network(request, plan, catalogue)
        size = _input_size(plan.dims, [voxels / (_HURRY if hurry else 1) for voxels in group.shape.median])
        how = {"size": size, "intensity": intensity, "window": window, "hurry": hurry, "alone": alone}
        return {"design": reports.design(request, plan, index, group, catalogue, network, **how)}
    network = _network(request, plan, catalogue)
    classify, cases = plan.task == "classification", max(1, index.cases.get("training", 1))
    many = len(plan.labels) > _MANY
    batch = (16 if cases >= 64 else 8) if classify else 8 if plan.dims == 2 and many else 2
    if alone:
        batch = 1
    coarser = _HURRY if hurry else 1.0
    shape = [voxels / coarser for voxels in group.shape.median]
    spacing = None
    if not classify and plan.dims == 3 and group.spacing is not None:
        spacing, shape = _resampled([mm * coarser for mm in group.spacing.median], shape)
    size = _input_size(plan.dims, shape) if classify else _patch(plan.dims, shape, small=many)
    if network.pretrained and plan.dims == 2:
        size = _LEARNT_AT
    steps = (700 if classify else 1000 if len(plan.labels) > _MANY else 500) / coarser**2
    images = cases if classify else _CROPS * cases
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
        augment=0.3,
        loss=template.losses[0],
        lr=_LEARNT_LR if network.pretrained else (2e-3 if classify else 8e-3) / (1 if network.size == "small" else 4),
        weight_decay=1e-2,
        batch=batch,
        epochs=min(40, max(4, round(steps * batch / images))),
        space=_SPACES[plan.task] | ({"lr": _LEARNT_LRS} if network.pretrained else {}),
        why=f"The {network.size} network {network.name} sees {' x '.join(map(str, size))} voxels: "
        + ("the whole image." if classify else "enough to know where it is in the body."),
    )
    return {"design": design}


def _filling(
    request: str,
    plan: Plan,
    index: IndexSummary,
    group: Group,
    machine: Machine,
    catalogue: Catalogue,
    template: TemplateEntry,
    alone: bool,
) -> Design:
    """nnU-Net's plan for half of a GPU; ResEnc and four times the steps where the request puts accuracy first.

    Volumes of a few slices get its 2D network. Where a patch shows little of the image, tuning tries low resolution.
    """
    fits = _fitting(plan, catalogue)
    network = next((entry for entry in fits if entry.name == nnunet.NETWORK), fits[0])
    cases = max(1, index.cases.get("training", 1))
    mm, shape = (1.0,) * plan.dims, group.shape.median
    if spacing := group.spacing if plan.dims == 3 else None:
        mm = nnunet.target_spacing(spacing, group.shape)
        shape = tuple(n * old / new for n, old, new in zip(shape, spacing.median, mm, strict=True))
    room = min(machine.gigabytes / 2, _MOST_GIGABYTES)
    thin, accurate = plan.dims == 3 and min(shape) < nnunet.LEAST_DEPTH, _accurate(request)
    planned = nnunet.slices_and_batch if thin else nnunet.patch_and_batch
    size, batch = planned(mm, shape, cases, len(plan.labels), room)
    if alone:
        batch = 1
    intensity, window = _intensity(plan, group)
    space = _SPACES[plan.task] | {"lr": Knob(low=3e-4, high=3e-3, log=True), "augment": Knob(low=0.3, high=1.0)}
    if not thin and (coarser := nnunet.low_resolution(size, shape)):
        space["coarser"] = Knob(choices=(1.0, coarser))
    crops = max(1, round(_STEPS_AN_EPOCH * batch / cases))
    return Design(
        template=template.name,
        preset="slicewise" if thin else "residual" if accurate else "default",
        network=network.name,
        dims=plan.dims,
        channels=group.channels,
        size=size,
        spacing=tuple(round(each, 3) for each in mm) if spacing else None,
        intensity=intensity,
        window=window,
        flips=_flips(plan),
        augment=0.7,
        loss=template.losses[0],
        lr=1e-3,
        weight_decay=1e-2,
        batch=batch,
        epochs=240 if accurate else 60,
        crops=crops,
        space=space,
        why=f"nnU-Net's rules fill {room:.0f} of {machine.gigabytes:.0f} GB: {batch} patches of "
        f"{' x '.join(map(str, size))} voxels, "
        + ("slice by slice, as there are few." if thin else "as much of the body as fits."),
    )


def _by_nnunet(
    request: str, plan: Plan, group: Group, machine: Machine, template: TemplateEntry, *, hurry: bool
) -> Design:
    """What is not nnU-Net's own to decide: how long, for which memory, and which axes may be mirrored.

    The epochs on a GPU are those of its trainers: 1000, and the shorter nnUNetTrainer_250epochs and _20epochs.
    """
    small = machine.gigabytes < _NNUNETS_GIGABYTES
    epochs = (5 if hurry else 20) if small else 20 if hurry else 1000 if _accurate(request) else 250
    intensity, window = _intensity(plan, group)
    return Design(
        template=template.name,
        preset="small" if small else "resenc_l" if machine.gigabytes >= _MOST_GIGABYTES else "default",
        network=template.name,
        dims=plan.dims,
        channels=group.channels,
        size=(64,) * plan.dims,
        intensity=intensity,
        window=window,
        flips=() if plan.sided else tuple(range(plan.dims)),
        loss=template.losses[0],
        lr=1e-2,
        batch=2,
        epochs=epochs,
        why="The request asks for nnU-Net, which plans patch, batch, spacing and network from the images itself.",
    )


def _flips(plan: Plan) -> tuple[int, ...]:
    """Left-right only, and not where labels tell the sides apart."""
    return () if plan.sided else (0,) if plan.dims == 3 else (1,)


def _hurry(request: str) -> bool:
    return _QUICK.search(request) is not None


def _accurate(request: str) -> bool:
    return re.search(r"\baccura|\bbest\b|state.of.the.art|\bpaper\b", request.lower()) is not None


def _network(request: str, plan: Plan, catalogue: Catalogue) -> NetworkEntry:
    """The small one, unless the request puts accuracy first."""
    wanted, fits = "strong" if _accurate(request) else "small", _fitting(plan, catalogue)
    return next((entry for entry in fits if entry.size == wanted), fits[0])


def _fitting(plan: Plan, catalogue: Catalogue) -> list[NetworkEntry]:
    """The networks for the plan, without those that belong to one template."""
    fits = [entry for entry in catalogue.networks if entry.task == plan.task and plan.dims in entry.dims]
    return [entry for entry in fits if entry.template is None]


def _resampled(spacing: list[float], shape: list[float]) -> tuple[tuple[float, ...], list[float]]:
    """Spacing and shape at which a volume is small enough, the finest axis made coarser first."""
    while math.prod(shape) > _MOST_VOXELS:
        finest = spacing.index(min(spacing))
        spacing[finest] *= 1.05
        shape[finest] /= 1.05
    return tuple(round(mm, 2) for mm in spacing), shape


def _input_size(dims: int, shape: Sequence[float]) -> tuple[int, ...]:
    """The median image, shrunk evenly to what trains in a minute."""
    most, step = (80_000, 8) if dims == 3 else (128 * 128, 16)
    return _stepped(shape, most, step, least=16)


def _patch(dims: int, shape: Sequence[float], small: bool) -> tuple[int, ...]:
    """Three quarters of the median image; `small` where many small structures need steps more than context."""
    most, step = ((32, 32, 32) if small else (48, 48, 32), 8) if dims == 3 else ((128, 128), 16)
    return tuple(max(2 * step, min(limit, round(0.75 * n / step) * step)) for n, limit in zip(shape, most, strict=True))


def _stepped(shape: Sequence[float], most: int, step: int, least: int) -> tuple[int, ...]:
    shrink = min(1.0, (most / math.prod(shape)) ** (1 / len(shape)))
    return tuple(max(least, round(voxels * shrink / step) * step) for voxels in shape)


def _intensity(
    plan: Plan, group: Group
) -> tuple[Literal["window", "percentile", "zscore"], tuple[float, float] | None]:
    """A window only where all that is in every file is HU; z-score for MR; else percentiles of each image."""
    alone = plan.dims == 2 or group.channels == 1  # beside a volume's CT there may be PET
    if plan.modality == "CT" and set(group.units) == {"HU"} and alone:
        named = f"{plan.goal} {' '.join(plan.labels)}".lower()
        kinds = {"lung": "lung|pulmon|pneumon|covid", "blood": "intracran|cereb|ha?emorrhag"}
        kind = next((kind for kind, words in kinds.items() if re.search(words, named)), "soft tissue")
        return "window", _WINDOWS[kind]
    return ("zscore" if plan.modality == "MR" else "percentile"), None
