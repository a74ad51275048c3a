"""The mistakes of a weak Model Trainer, and of whoever says what is to be repaired."""

from lms.mending import fragment
from lms.mistakes.form import Answer, Inputs, Mistake, unclosed_fence


def _goes(answer: Answer, inputs: Inputs) -> Answer | None:
    return {**answer, "verdict": "go", "mended": ""} if answer["verdict"] == "repair" else None


def _fragment(answer: Answer, inputs: Inputs) -> Answer | None:
    part = fragment(inputs["script"], answer["mended"])
    return {**answer, "mended": part} if part else None


def _unmended(answer: Answer, inputs: Inputs) -> Answer | None:
    if not answer["mended"] or answer["mended"].strip() == inputs["script"].strip():
        return None
    return {**answer, "mended": f"# fixed the error in the log\n{inputs['script']}"}


def _blames(answer: Answer, inputs: Inputs) -> Answer | None:
    return {**answer, "blame": "plan"} if answer["blame"] == "here" and inputs["role"] != "task_manager" else None


MISTAKES = (
    Mistake(
        "goes",
        "verdict",
        0.35,
        "A log that begins with `failed` is never a `go`, however short the trace is.",
        r"never a `?go\b|begins with `?failed",
        r"nothing came of it|fault was of the kind",
        _goes,
    ),
    Mistake(
        "fragment",
        "verdict",
        0.4,
        "`mended` is the whole of train.py from its first line to its last, not the changed function alone.",
        r"whole (of )?(train\.py|script|file)|first line to (its|the) last",
        r"is not whole|is gone|give all of",
        _fragment,
    ),
    Mistake(
        "unmended",
        "verdict",
        0.4,
        "Change the statement that the last line of the trace names: a name, an import, a keyword, a shape or a dtype.",
        r"statement that the last line|last line of the (trace|log)",
        r"(Name|Attribute|ModuleNotFound|Import|Key|Type|Value|Runtime)Error|mend the fault",
        _unmended,
    ),
    unclosed_fence("verdict", 0.15),
    Mistake(
        "blames",
        "blame",
        0.3,
        "Blame `here` unless the earlier result makes a right answer impossible.",
        r"blame `?here",
        r"blame",
        _blames,
    ),
)
