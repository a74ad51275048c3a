"""The mistakes of a weak Module Architect."""

import json

from lms.mistakes.form import Answer, Inputs, Mistake, changed, extra_field

SOFT_TISSUE = (-160.0, 260.0)  # HU
HUGE = 512  # voxels


def _window(answer: Answer, inputs: Inputs) -> Answer | None:
    plan, groups = json.loads(inputs["plan"]), json.loads(inputs["fingerprint"])["groups"]
    units = next((group["units"] for group in groups if group["pattern"] == plan["images"]), {})
    if answer["design"]["intensity"] == "window" or set(units) == {"HU"}:
        return None
    return changed(answer, "design", intensity="window", window=SOFT_TISSUE)


def _mirrored(answer: Answer, inputs: Inputs) -> Answer | None:
    plan, flips = json.loads(inputs["plan"]), answer["design"]["flips"]
    left_right = 0 if plan["dims"] == 3 else 1
    if not plan["sided"] or left_right in flips:
        return None
    return changed(answer, "design", flips=[*flips, left_right])


def _odd_size(answer: Answer, inputs: Inputs) -> Answer | None:
    size = answer["design"]["size"]
    if json.loads(inputs["plan"])["task"] != "segmentation" or size[0] % 8:
        return None  # networks that classify take any size
    return changed(answer, "design", size=[size[0] + 3, *size[1:]])


def _huge_size(answer: Answer, inputs: Inputs) -> Answer | None:
    size = answer["design"]["size"]
    return changed(answer, "design", size=[HUGE] * len(size)) if max(size) < HUGE / 4 else None


def _unknown_network(answer: Answer, inputs: Inputs) -> Answer | None:
    known = {network["name"] for network in json.loads(inputs["catalogue"])["networks"]}
    wanted = "resnet152" if json.loads(inputs["plan"])["task"] == "classification" else "nnunet"
    return changed(answer, "design", network=wanted) if answer["design"]["network"] in known else None


def _unknown_template(answer: Answer, inputs: Inputs) -> Answer | None:
    known = {template["name"] for template in json.loads(inputs["catalogue"])["templates"]}
    if answer["design"]["template"] not in known:
        return None
    return changed(answer, "design", template=f"{json.loads(inputs['plan'])['task']}.py")


def _lr_outside(answer: Answer, inputs: Inputs) -> Answer | None:
    design = answer["design"]
    knob = design.get("space", {}).get("lr")
    if not knob or not knob["low"] <= design["lr"] <= knob["high"]:
        return None
    return changed(answer, "design", lr=knob["low"] / 10)


MISTAKES = (
    extra_field("design", 0.25),
    Mistake(
        "window",
        "design",
        0.35,
        "Take `window` only if every unit of the group is HU; z-score for MR, percentile otherwise, with window null.",
        r"only if every unit|window only|(unless|if|when).{0,40}\bHU\b",
        r"\bwindow\b|intensity:",
        _window,
    ),
    Mistake(
        "mirrored",
        "design",
        0.5,
        "With `sided` labels leave the left-right axis out of `flips` (0 in 3D, 1 in 2D).",
        r"sided.{0,60}flips|leave.{0,30}axis out",
        r"mirror|left from right",
        _mirrored,
    ),
    Mistake(
        "odd size",
        "design",
        0.35,
        "Every entry of `size` is a multiple of 16 (2D) or 8 (3D).",
        r"multiples? of",
        r"multiples? of|divisible",
        _odd_size,
    ),
    Mistake(
        "huge size",
        "design",
        0.3,
        "Make `size` no larger than the shape of the images in the fingerprint.",
        r"size.{0,40}(no|not) larger|larger than the (images|shape)",
        r"far larger than|million voxels",
        _huge_size,
    ),
    Mistake(
        "unknown network",
        "design",
        0.3,
        "Take `network` from the catalogue, for this task and number of dimensions; there are no others.",
        r"network.{0,40}catalogue",
        r"network",
        _unknown_network,
    ),
    Mistake(
        "unknown template",
        "design",
        0.2,
        "Take `template` from the catalogue, by its name without .py.",
        r"template.{0,40}catalogue",
        r"template",
        _unknown_template,
    ),
    Mistake(
        "lr outside",
        "design",
        0.3,
        "The design's own `lr` lies inside the range that `space` gives for it.",
        r"(inside|within) the range",
        r"own lr|is not in its knob",
        _lr_outside,
    ),
)
