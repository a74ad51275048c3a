"""The head of a report: what the reader must know at once, the outcome, the request and its plan."""

from m3dspy.signatures.values import PatientKey, Plan
from m3dspy.workspace.reporting import anomalies, timeline
from m3dspy.workspace.reporting.blocks import Block, Bullets, Table, Words, interval, say
from m3dspy.workspace.reporting.committed import Committed, supervision


def banners(run: Committed) -> list[str]:
    """What stands above everything else."""
    lines: list[str] = [say("<strong>For research use only.</strong> Not a medical device.")]
    if run.outcome and run.outcome.phantom:
        lines.append(
            say(
                "<strong>PHANTOM DATA.</strong> The images are made up. The scores show that the pipeline works; they "
                "say nothing about patients."
            )
        )
    if run.plan and run.plan.task == "anomaly_detection" and run.request.weights is None:
        lines.append(
            say(
                "<strong>RANDOM BACKBONE.</strong> No pretrained weights were given, so CLIP's features are those of "
                "random weights: the numbers test the method's path only."
            )
        )
    return lines


def judged(run: Committed) -> list[Block]:
    """How the run ended and, of a model, its score beside what it has to beat."""
    if not (outcome := run.outcome):
        stages = [event["name"] for event in run.events if event["kind"] == "stage" and event["status"] == "start"]
        last = timeline.STAGES.get(stages[-1], stages[-1]) if stages else "nothing yet"
        return [Words(f"The run is not finished. Last begun: {last}.", "note")]
    if outcome.status != "done":
        happened = {"refused": "The request was refused", "failed": "The run failed"}[outcome.status]
        return [Words(f"{happened}: {outcome.reason or 'no reason was recorded.'}", "warning")]
    if not (grade := outcome.grade):
        return [Words("A model was trained, but it was not graded: no score can be given.", "warning")]
    score = grade.score
    mark, article = " (phantom)" if outcome.phantom else "", "an" if grade.metric[0] in "aeiou" else "a"
    answers = supervision(run.index.task if run.index else "")
    control = (
        f"; the same pipeline trained on shuffled {answers} reaches {interval(grade.control)}" if grade.control else ""
    )
    blocks: list[Block] = [
        Words(
            say(
                "<b>{}</b> {}{}, 95 % interval {} to {}",
                f"{score.value:.3f}", grade.metric, mark, f"{score.low:.3f}", f"{score.high:.3f}",
            ),
            "score",
        ),
        Words(
            say(
                "On {} test cases of {} patients the model reached {} <strong>{} of {}{}</strong>. The trivial answer "
                "reaches {}{}. In brackets: 95 % intervals, by bootstrap over patients.",
                grade.cases, grade.patients, article, grade.metric, interval(grade.score), mark, interval(grade.floor),
                control,
            )
        ),
    ]  # fmt: skip
    if grade.oracle is not None:
        blocks.append(
            Words(f"The labels of this phantom are noisy; the best that any reader could reach is {grade.oracle:.3f}.")
        )
    if grade.above_oracle:
        leak = "LEAK: the score is above what this phantom allows. Do not trust this model."
        blocks.insert(0, Words(say("<strong>{}</strong>", leak), "warning"))
    lines: list[str] = [
        say("S1, a valid model and a well-formed prediction for every test case: <b>{}</b>", _passed(grade.s1)),
        say("S2, better than the trivial answer and than the control: <b>{}</b>", _passed(grade.s2)),
    ]
    if grade.s3 is not None:
        lines.append(say("S3, 90 % of the reference recipe's score: <b>{}</b>", _passed(grade.s3)))
    if not grade.control:
        lines.append(f"No control was trained on shuffled {answers}: S2 rests on the trivial answer alone.")
    if grade.missing:
        some = ", ".join(grade.missing[:20]) + (", ..." if len(grade.missing) > 20 else "")
        lines.append(f"Test cases without a usable prediction, which count as 0: {len(grade.missing)} ({some})")
    if not outcome.contained:
        lines.append(say("The scripts of this run were <strong>not</strong> contained by a sandbox."))
    return [*blocks, Bullets(lines)]


def _passed(success: bool) -> str:
    return "passed" if success else "not passed"


def planned(run: Committed) -> list[Block]:
    """The request, and what the Task Manager made of it."""
    asked: list[Block] = [Words(say("The request: <q>{}</q>", run.request.text))]
    if not (plan := run.plan):
        return [*asked, Words("No plan was made.")]
    caps = [f"{n} {name}" for name, n in (("training", plan.caps.training), ("test", plan.caps.test)) if n]
    rows = [
        ("task", f"{plan.task}, {plan.dims}D, {plan.modality}"),
        *_asked(plan),
        ("images", plan.images),
        (
            f"{supervision(plan.task)} come from",
            " ".join(filter(None, (plan.source.kind, plan.source.path, plan.source.column))),
        ),
        *anomalies.plan_rows(plan),
        ("patients come from", _patients(plan.patient)),
        ("described by", f"the card {plan.card}" if plan.card else "no card, only the folder itself"),
        ("at most", f"{' and '.join(caps)} images" if caps else "all images"),
    ]
    return [*asked, Table("The plan", ("", "decided"), rows)]


def _asked(plan: Plan) -> list[tuple[str, str]]:
    """What the model is to answer."""
    if plan.task == "report_generation":
        return [("findings", plan.findings), ("impression", plan.impression or "none")]
    return [("labels", ", ".join(plan.labels) + (" (left and right are told apart)" if plan.sided else ""))]


def _patients(key: PatientKey | None) -> str:
    if key is None:
        return "nothing says it"
    if key.where == "column":
        return f"column {key.column} of {key.table}"
    return f"the {key.where}, by {key.part}"
