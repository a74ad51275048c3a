"""The mistakes of a weak Task Manager."""

import json
import re
from collections.abc import Callable
from typing import Any

from lms.mistakes.form import Answer, Inputs, Mistake, changed, extra_field, renamed, respelled
from m3dspy.programs.lms.experts.task_manager import make_plan
from m3dspy.signatures.values import Fingerprint


def _refuses(answer: Answer, inputs: Inputs) -> Answer | None:
    if not answer["plan"]:
        return None
    return {"plan": None, "refusal": "It is not certain that this data can serve the request."}


def _bends(answer: Answer, inputs: Inputs) -> Answer | None:
    if answer["plan"]:
        return None
    fingerprint = Fingerprint.model_validate_json(inputs["fingerprint"])
    request = "segment all structures" if fingerprint.pairs else "classify the images"
    plan = make_plan(request, fingerprint, [], "")["plan"]
    return {"plan": plan.model_dump(mode="json"), "refusal": ""} if plan else None


def _one_file(answer: Answer, inputs: Inputs) -> Answer | None:
    plan = answer["plan"]
    if not plan or not re.search(r"[#*]", plan["images"]):
        return None
    return changed(answer, "plan", images=plan["images"].replace("#", "0").replace("*", "image"))


def _plan_column(answer: Answer, inputs: Inputs) -> Answer | None:
    plan = answer["plan"]
    if not plan or not plan["source"]["column"]:
        return None
    return changed(answer, "plan", source={**plan["source"], "column": renamed(plan["source"]["column"])})


def _plan_spelling(answer: Answer, inputs: Inputs) -> Answer | None:
    plan = answer["plan"]
    if not plan:
        return None
    values = plan.get("label_values")
    if plan["task"] == "segmentation":  # the background counted as well
        return changed(answer, "plan", label_values=[str(int(value) + 1) for value in values]) if values else None
    if values:
        return changed(answer, "plan", label_values=[respelled(value) for value in values])
    return changed(answer, "plan", labels=[respelled(label) for label in plan["labels"]])


def _everything(answer: Answer, inputs: Inputs) -> Answer | None:
    plan = answer["plan"]
    if not plan or plan["task"] != "classification" or plan.get("label_values"):
        return None
    fingerprint, source = json.loads(inputs["fingerprint"]), plan["source"]
    there = [folders["classes"] for folders in fingerprint["class_folders"] if folders["parent"] == source["path"]]
    there += [
        column["values"]
        for table in fingerprint["tables"]
        for column in table["columns"]
        if (table["path"], column["name"]) == (source["path"], source["column"])
    ]
    unasked = [label for label in (there[0] if there else ()) if label not in plan["labels"]]
    return changed(answer, "plan", labels=[*plan["labels"], *unasked]) if unasked else None


def _plan_without(field: str, nothing: Any) -> Callable[[Answer, Inputs], Answer | None]:
    def spoil(answer: Answer, inputs: Inputs) -> Answer | None:
        plan = answer["plan"]
        held = plan and plan.get(field)
        if isinstance(held, dict):
            held = any(held.values())
        return changed(answer, "plan", **{field: nothing}) if held else None

    return spoil


def _dims(answer: Answer, inputs: Inputs) -> Answer | None:
    return changed(answer, "plan", dims=5 - answer["plan"]["dims"], modality="other") if answer["plan"] else None


MISTAKES = (
    extra_field("plan", 0.3),
    Mistake(
        "refuses",
        "plan",
        0.15,
        "Do not refuse a request that the folder can teach: masks for a segmentation, or classes in a table or in "
        "folders, are enough.",
        r"(not|never) refuse|refuse only",
        r"refused,? (al)?though",
        _refuses,
    ),
    Mistake(
        "bends",
        "plan",
        0.6,
        "Refuse when the organ, the modality, the classes or the masks that are asked for are not in the folder; "
        "never answer another question instead.",
        r"refuse when|refuse (any|every|the) request|(must|should) be refused",
        r"must be refused|cannot serve",
        _bends,
    ),
    Mistake(
        "one file",
        "plan",
        0.25,
        "`images` is the pattern of a group, copied letter by letter with its # and *; never the name of one file.",
        r"letter by letter|copy the pattern|pattern of (a|the) group",
        r"no image group|no mask group|images:",
        _one_file,
    ),
    Mistake(
        "plan column",
        "plan",
        0.3,
        "Copy every column name exactly, with its capitals and blanks.",
        r"column.{0,40}(exact|copied|verbatim)|(copy|spell).{0,30}column",
        r"has no column|source:",
        _plan_column,
    ),
    Mistake(
        "plan spelling",
        "plan",
        0.3,
        "Write each label value exactly as the folder name, the cell or the mask does: same case, same number.",
        r"labels?( values?)? exactly|(case|spell).{0,40}(folder|cell)|label value",
        r"no class folder|spell|labels:|label_values|has the labels|no mask of training holds|no row of",
        _plan_spelling,
    ),
    Mistake(
        "everything",
        "plan",
        0.3,
        "Leave out every class that the request or the card does not ask for.",
        r"leave out|not ask(ed)? for",
        r"not asked|labels:",
        _everything,
    ),
    Mistake(
        "plan patient",
        "plan",
        0.35,
        "Fill `patient` whenever the fingerprint lists a patient key; take the first one that it lists.",
        r"fill `?patient|patient key (whenever|if|must)|always.{0,30}patient",
        r"patients?:|patient key|look-?alike",
        _plan_without("patient", None),
    ),
    Mistake(
        "plan caps",
        "plan",
        0.4,
        "Copy the caps of the card (`at most ...`) into `caps`, with `balanced`.",
        r"caps.{0,40}card|at most",
        r"\bcaps?\b",
        _plan_without("caps", {}),
    ),
    Mistake(
        "dims",
        "plan",
        0.2,
        "Copy `dims` from the group; name the modality that request, card or units (HU is CT) tell.",
        r"dims.{0,40}group",
        r"\b[23]D, the plan says|\bdims:|modality:",
        _dims,
    ),
    Mistake(
        "sides",
        "plan",
        0.3,
        "Set `sided` to true as soon as one label says left or right.",
        r"`?sided`? (to true|is true|whenever)",
        r"\bsided:|left from right",
        _plan_without("sided", False),
    ),
)
