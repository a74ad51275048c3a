"""The rules of a repair: whom to blame."""

from typing import Any

_LATER_THAN = {
    "data_engineer": {"plan": ("class", "label", "column", "patient", "no table", "group")},
    "module_architect": {"index": ("index",)},
    "model_trainer": {
        "index": ("mask", "grid", "unreadable", "no such file", "label"),
        "design": ("memory", "size", "shape", "divisible", "kernel", "nan", "spacing"),
    },
}


def repair(role: str, complaint: str) -> dict[str, Any]:
    """Blame by what the complaint is about: asked again, rules would answer the same."""
    said = complaint.lower()
    for stage, words in _LATER_THAN.get(role, {}).items():
        if any(word in said for word in words):
            return {"blame": stage, "advice": complaint[-500:]}
    return {"blame": "here", "advice": complaint[-500:]}
