"""Exercises at work: what an answer is worth, that no script runs twice, and what optimizers must not swallow."""

from concurrent.futures import ThreadPoolExecutor

import dspy
import pytest

from m3dspy.errors import DataError, Defect, NoSandbox, RunFailed, Stopped
from m3dspy.m3bench import partition
from m3dspy.optimizers import likeness
from m3dspy.optimizers.metrics import Metric, judge
from m3dspy.optimizers.practice import Practice, examples, unswallowed
from m3dspy.optimizers.track import Track
from m3dspy.optimizers.workshop import Workshop
from m3dspy.programs.builder import Builder
from m3dspy.programs.lms.ledger import Ledger
from m3dspy.programs.lms.model import M3dLM
from m3dspy.signatures.values import ROLES, Caps, Index

COUNT = 18  # exercises: every training layout, and some twice
PREPARE = """from m3dspy.workspace import indexing as ix
root, out = ix.arguments()
raise ValueError("no such thing")
"""


@pytest.fixture(scope="module")
def workshop(practice):
    return Workshop(practice)


@pytest.fixture(scope="module")
def usable(workshop):
    """Exercises that can be served."""
    found = [workshop.exercise(name) for name in partition.names("train", COUNT)]
    return [exercise for exercise in found if not exercise.refused]


def done(work=None, **how):
    given = {"work": work, "refusal": "", "problem": "", "readable": True, "complaints": [], "program": ""}
    return dspy.Prediction(**given | how)


def share(facets, name):
    return next(facet.share for facet in facets if facet.name == name)


# ---------------------------------------------------------------------------------------------------- scores
def test_an_experts_own_answers_are_right_in_every_respect(workshop, usable):
    for exercise in usable:
        assert judge("task_manager", exercise, done(exercise.plan), workshop).score == pytest.approx(1)
        verdict = judge("data_engineer", exercise, done(exercise.capped), workshop)
        assert verdict.success, (exercise.name, verdict.feedback)


def test_a_plan_is_told_each_respect_in_which_it_is_wrong(workshop, usable):
    exercise = usable[0]
    plan = exercise.plan.model_copy(update={"caps": Caps(test=7), "sided": not exercise.plan.sided})
    verdict = judge("task_manager", exercise, done(plan), workshop)
    assert verdict.score == pytest.approx(0.1 + 0.3 + 0.6 * 7 / 9)  # nine respects, two of them wrong
    assert not verdict.success
    assert "caps: the plan has" in verdict.feedback
    assert "sided: the plan has" in verdict.feedback


def test_the_subject_of_anomalies_may_be_put_in_other_words_but_shots_and_masks_are_exact(workshop):
    exercise = workshop.exercise("Liver")
    plan = exercise.plan
    assert judge("task_manager", exercise, done(plan), workshop).score == pytest.approx(1)
    wrong = plan.model_copy(update={"about": "slices of liver CT", "shots": 16, "masks": None})
    facets = likeness.of_plan(wrong, plan, exercise.index)
    assert {facet.name for facet in facets if facet.share < 1} == {"shots", "masks"}
    other = likeness.of_plan(plan.model_copy(update={"about": "brain MR"}), plan, exercise.index)
    assert share(other, "about") == 0


def test_a_name_that_stands_for_another_label_is_wrong_and_a_longer_word_for_the_same_is_not(usable):
    plan = next(exercise.plan for exercise in usable if exercise.plan.task == "classification")
    values = plan.label_values or plan.labels
    longer = plan.model_copy(update={"labels": tuple(f"the {name}" for name in plan.labels), "label_values": values})
    swapped = plan.model_copy(update={"labels": plan.labels[::-1], "label_values": values})
    index = next(exercise.index for exercise in usable if exercise.plan == plan)
    assert share(likeness.of_plan(longer, plan, index), "labels") == 1
    assert share(likeness.of_plan(swapped, plan, index), "labels") == 0


def test_what_cannot_be_served_must_be_refused_and_nothing_else(workshop, usable):
    vain = next(exercise for exercise in map(workshop.exercise, partition.names("train", COUNT)) if exercise.refused)
    assert judge("task_manager", vain, done(refusal="there are no masks"), workshop) == (
        1.0,
        True,
        "Rightly refused.",
        "",
    )
    assert judge("task_manager", vain, done(usable[0].plan), workshop).score == pytest.approx(0.1)
    assert judge("task_manager", usable[0], done(refusal="no"), workshop).score == pytest.approx(0.1)


def test_an_answer_that_cannot_be_read_is_worth_nothing_and_one_that_failed_its_check_a_little(workshop, usable):
    assert judge("data_engineer", usable[0], done(problem="?", readable=False), workshop).score == 0
    assert judge("data_engineer", usable[0], done(problem="no column"), workshop).score == pytest.approx(0.1)


def test_a_repair_costs_a_tenth_and_is_no_example_to_others(workshop, usable):
    answer = done(usable[0].plan, complaints=["no column 'x'"])
    verdict = judge("task_manager", usable[0], answer, workshop)
    assert (verdict.score, verdict.success) == (pytest.approx(0.9), True)
    assert "An answer was refused: no column 'x'" in verdict.feedback
    metric = Metric("task_manager", workshop, Track(()))
    [case] = examples([usable[0].name], "task_manager", workshop)
    assert metric(case, answer) == pytest.approx(0.9)
    assert metric(case, answer, trace=[]) is False
    assert metric(case, done(usable[0].plan), trace=[]) is True
    told = metric(case, answer, trace=[], pred_name="role.make_plan", pred_trace=[])
    assert (told.score, told.feedback) == (verdict.score, verdict.feedback)


def test_a_patient_in_two_splits_spoils_the_split(usable):
    exercise = next(
        exercise
        for exercise in usable
        if not exercise.official_split and exercise.index == exercise.capped and _repeated(exercise.index)
    )
    patient = _repeated(exercise.index)
    first = next(item for item in exercise.index.training if item.patient == patient)
    torn = exercise.index.model_copy(
        update={
            "training": tuple(item for item in exercise.index.training if item != first),
            "test": (*exercise.index.test, first),
        }
    )
    people = {item.patient for split in ("training", "validation", "test") for item in exercise.index.items(split)}
    assert share(likeness.of_index(torn, exercise, None), "split") == pytest.approx(1 - 1 / len(people))
    assert share(likeness.of_index(torn, exercise, None), "items") == 1


def _repeated(index):
    people = [item.patient for item in index.training]
    return next((patient for patient in people if people.count(patient) > 1), None)


def test_a_pool_of_shots_may_be_dealt_as_one_likes_but_its_official_test_cases_stay(workshop):
    seeds = (exercise for seed in range(60) if (exercise := workshop.exercise(f"forge-normal-abnormal-{seed:06d}")))
    exercise = next(one for one in seeds if one.index and one.official_split)
    index = exercise.answers.capped
    swapped = index.model_copy(update={"training": index.validation, "validation": index.training})
    assert share(likeness.of_index(swapped, exercise, None), "split") == 1
    leaked = index.model_copy(update={"training": index.test, "test": index.training})
    assert share(likeness.of_index(leaked, exercise, None), "split") < 1


def test_half_the_cases_have_a_recall_of_a_half(usable):
    exercise = next(exercise for exercise in usable if exercise.index == exercise.capped)
    half = exercise.index.model_copy(update={"training": (), "validation": (), "test": ()})
    every = [item for split in ("training", "validation", "test") for item in exercise.index.items(split)]
    half = half.model_copy(update={"training": tuple(every[: len(every) // 2])})
    recall = (len(every) // 2) / len(every)
    assert share(likeness.of_index(half, exercise, None), "items") == pytest.approx(2 * recall / (1 + recall))


def test_of_a_whole_that_failed_the_first_role_whose_work_was_wrong_is_blamed(workshop, usable):
    exercise = next(
        exercise for exercise in usable if exercise.index == exercise.capped and len(exercise.plan.labels) > 1
    )
    design = _design(exercise, workshop)

    def blamed(**other):
        made = {"plan": exercise.plan, "index": exercise.capped, "design": design, "script": True} | other
        return judge("whole", exercise, done(**made), workshop).blame

    assert blamed() == ""
    assert blamed(script=False) == "model_trainer"
    assert blamed(index=None, design=None, script=False) == "data_engineer"
    assert blamed(plan=exercise.plan.model_copy(update={"sided": not exercise.plan.sided})) == "task_manager"


def test_a_window_is_for_ct_in_hounsfield_units_only(workshop, usable):
    exercise = next(
        exercise
        for exercise in usable
        if exercise.plan.modality != "CT" and len(exercise.fingerprint.groups[0].shape.most) == 2
    )
    design = _design(exercise, workshop)
    assert all(facet.share == 1 for facet in likeness.of_design(design, exercise))
    window = design.model_copy(update={"intensity": "window", "window": (-100.0, 300.0)})
    assert share(likeness.of_design(window, exercise), "intensity") == 0


def _design(exercise, workshop):
    with dspy.context(lm=M3dLM("rules", Ledger()), adapter=dspy.ChatAdapter()):
        [case] = examples([exercise.name], "module_architect", workshop)
        return Practice(Builder().module_architect, workshop)(**case.inputs()).work


# ---------------------------------------------------------------------------------------------------- scripts
def test_a_script_runs_once_however_many_ask_for_it_and_fails_the_same_way_every_time(tmp_path):
    workshop = Workshop(tmp_path)
    exercise = workshop.exercise(partition.names("train", 1)[0])

    def attempt(_):
        with workshop.run(exercise, plan=exercise.plan) as run, pytest.raises(Exception, match="ended with") as caught:
            workshop.hands(exercise).prepare(
                run, PREPARE, exercise.plan, workshop.root(exercise), trusted=False, unsafe=False
            )
        return caught.value.tail

    with ThreadPoolExecutor(4) as pool:
        tails = list(pool.map(attempt, range(4)))
    assert (workshop.tried, workshop.known) == (1, 3)
    assert tails == [tails[0]] * 4
    assert tails[0][-1] == "ValueError: no such thing"
    again = Workshop(tmp_path)
    assert again.exercise(exercise.name) == exercise


def test_a_script_that_was_ended_from_outside_is_tried_again(tmp_path):
    workshop = Workshop(tmp_path)
    exercise = workshop.exercise(partition.names("train", 1)[0])
    code = "import os, signal\nos.kill(os.getpid(), signal.SIGKILL)\n"
    for _ in range(2):
        with workshop.run(exercise, plan=exercise.plan) as run, pytest.raises(RunFailed, match="was killed"):
            workshop.hands(exercise).prepare(
                run, code, exercise.plan, workshop.root(exercise), trusted=False, unsafe=False
            )
    assert workshop.known == 0


def test_rules_do_what_they_do_in_a_run(workshop, usable):
    cases = examples([exercise.name for exercise in usable[:6]], "data_engineer", workshop)
    metric = Metric("data_engineer", workshop, Track(()))
    with dspy.context(lm=M3dLM("rules", Ledger()), adapter=dspy.ChatAdapter()):
        engineer = Practice(Builder().data_engineer, workshop)
        assert all(metric.verdict(case, engineer(**case.inputs())).success for case in cases)


def test_only_the_task_manager_practises_on_vain_requests(workshop):
    names = partition.names("train", COUNT)
    vain = sum(workshop.exercise(name).refused for name in names)
    assert vain > 0
    assert len(examples(names, "task_manager", workshop)) == COUNT
    assert all(len(examples(names, role, workshop)) == COUNT - vain for role in ROLES[1:])


# ---------------------------------------------------------------------------------------------------- searches
def test_of_equal_programs_the_first_is_kept_and_one_that_missed_an_exercise_does_not_count():
    track = Track(["a", "b"])
    roles = [Builder().task_manager for _ in range(3)]
    for number, role in enumerate(roles):
        role.make_plan.signature = role.make_plan.signature.with_instructions(f"instructions {number}")
    first, second, third = (track.enter(role) for role in roles)
    scores = {first: {"a": 0.5, "b": 0.5}, second: {"a": 1.0, "b": 0.0}, third: {"a": 1.0, "c": 1.0}}
    for program, of in scores.items():
        for exercise, score in of.items():
            track.score(program, exercise, score)
    assert track.best()["make_plan"]["signature"]["instructions"] == "instructions 0"
    track.score(third, "b", 1.0)
    assert track.best()["make_plan"]["signature"]["instructions"] == "instructions 2"


@pytest.mark.parametrize(
    ("error", "kind"), [(NoSandbox("no bubblewrap"), Stopped), (DataError("disk"), Stopped), (KeyError("ours"), Defect)]
)
def test_what_no_language_model_is_to_blame_for_passes_through_optimizers(error, kind):
    with pytest.raises(kind) as caught:
        try:
            with unswallowed():
                raise error
        except Exception:
            pytest.fail("an optimizer would have swallowed it")
    assert caught.value.__cause__ is error


def test_an_index_of_other_labels_is_judged_by_what_they_stand_for(usable):
    exercise = next(exercise for exercise in usable if exercise.plan.task == "classification")
    plan = exercise.plan
    values = plan.label_values or plan.labels
    renamed = plan.model_copy(
        update={"labels": tuple(f"class {n}" for n in range(len(values))), "label_values": values}
    )
    names = dict(zip(plan.labels, renamed.labels, strict=True))
    index = exercise.capped.model_dump() | {"labels": renamed.labels}
    for split in ("training", "validation", "test"):
        index[split] = [item | {"label": names[item["label"]]} for item in index[split]]
    assert share(likeness.of_index(Index.model_validate(index), exercise, renamed), "labels") == 1
