"""What people ask of each dataset, in several styles: planned alike, and refused where the folder cannot serve it."""

import re

import pytest

from m3dspy.m3bench import exercise
from m3dspy.m3bench.task import find, tasks
from m3dspy.programs.lms.experts.task_manager import make_plan
from m3dspy.programs.task_manager import check_plan
from m3dspy.workspace.cards import cards

NAMES = [task.name for task in tasks()]
OTHERS = (  # phrasings that no dataset's file holds
    ("ADNI", "Please differentiate Alzheimer's, MCI and cognitively normal subjects from structural MR of the brain."),
    ("ADNI", "dementia classification on T1 head scans. Our knee study is kept elsewhere and does not matter here."),
    (
        "ADNI",
        "Which of AD, MCI and CN is it? Brain MR only; do not confuse it with the PET scans of the sister project.",
    ),
    ("CT-kidney", "We would like a network that recognises nephrolithiasis, tumours, cysts and unremarkable kidneys."),
    ("CT-kidney", "Not the mammograms in the folder above: separate Cyst, Normal, Stone and Tumor on the kidney CT."),
    ("COVID19", "Outline the right lung, the left lung and the covid infection. CT of the thorax."),
    ("COVID19", "lung and infection masks for chest CT please, unlike last month's project on liver MRI"),
    ("BTCV", "I need contours of all abdominal organs in CT."),
    ("BTCV", "Multi-organ segmentation, abdominal CT, every structure that has a label. No chest X-rays this time."),
    ("Brain", "MRI of the brain: detect anomalies from 4 normal and 4 abnormal slices."),
    ("Liver", "anomaly detection, liver CT, four-shot (another dataset, of retinal OCT, is in the sibling folder)"),
    ("OCT17", "With four examples of each kind, detect abnormal retinas in OCT."),
    (
        "KneeMRI",
        "Classify ACL tears on MR of the knee. The shoulder and brain MRI are stored separately; leave them out.",
    ),
    ("KneeMRI", "How bad is the cruciate ligament injury? Predict its grade from the MRI."),
    ("KneeMRI", "Is the ACL torn, and how badly? MR volumes of the knee; disregard the hip radiographs."),
    ("KneeMRI", "acl grading from knee mr, somebody left spine CT in ../spine which you should skip"),
    ("CC-CCII", "Tell coronavirus disease from other lung infections and from healthy people on chest CT"),
    ("CC-CCII", "Diagnose common pneumonia, COVID-19 pneumonia or a normal chest on CT."),
    ("CC-CCII", "Is it covid, other pneumonia or a healthy lung? Chest CT. Ignore the kidney CT one level up."),
)
CANNOT = (
    ("ADNI", "tell schizophrenia from bipolar disorder on brain MRI", "schizophrenia"),
    ("ADNI", "estimate the brain age in years from T1 scans", "regression"),
    ("ADNI", "diagnose Alzheimer's disease on PET of the brain", "PET"),
    ("CT-kidney", "delineate the renal cysts in CT", "no masks"),
    ("CT-kidney", "predict the prognosis of kidney cancer patients: time to death from CT", "regression"),
    ("COVID19", "segment the pulmonary embolism on chest CT", "embol"),
    ("COVID19", "align the chest CT scans of two dates", "registration"),
    ("BTCV", "segment the vertebrae of the spine on CT", "spine"),
    ("BTCV", "denoise low-dose abdominal CT", "enhancement"),
    ("Brain", "diagnose meningioma, glioma or pituitary adenoma from MRI of the brain", "glioma"),
    ("Chest", "detect anomalies on chest radiographs zero-shot", "Zero-shot"),
    ("KneeMRI", "tell osteoarthritis from a healthy joint on knee radiographs", "X-ray"),
    ("KneeMRI", "tell shoulder dislocations apart on MRI", "shoulder"),
    ("KneeMRI", "detect meniscus tears with bounding boxes on knee MRI", "object detection"),
    ("CC-CCII", "tell tuberculosis from lung cancer on chest CT", "tuberculosis"),
    ("CC-CCII", "predict whether the patient will survive 30 days from chest CT", "regression"),
)


@pytest.fixture(scope="module")
def looked(exercises):
    """The fingerprint of a phantom at its smallest size, made when first asked for."""
    return lambda name: exercise.make(name, exercises).fingerprint


def planned(request, fingerprint):
    """The plan, as far as the model depends on it."""
    answer = make_plan(request, fingerprint, cards(), "")
    assert answer["plan"] is not None, f"{request!r} was refused: {answer['refusal']}"
    plan = answer["plan"]
    assert check_plan(plan, fingerprint, cards()) == []
    return plan.task, set(plan.labels), plan.images, plan.source, plan.patient, plan.masks, plan.findings, plan.card


def refused(request, fingerprint):
    """The reason."""
    answer = make_plan(request, fingerprint, cards(), "")
    assert answer["plan"] is None, f"{request!r} was planned: {answer['plan'].goal}"
    return answer["refusal"]


@pytest.mark.parametrize("name", NAMES)
def test_a_dataset_has_five_requests_and_some_that_it_cannot_serve(name):
    task = find(name)
    assert len(set(task.requests)) == 5
    assert len(set(task.impossible)) >= 2
    assert task.access
    assert task.layout


@pytest.mark.parametrize("name", NAMES)
def test_five_styles_of_one_request_are_planned_alike_and_as_the_expert_would(name, looked):
    task, fingerprint = find(name), looked(name)
    plans = [planned(request, fingerprint) for request in task.requests]
    assert plans == [plans[0]] * 5
    assert plans[0][0] == task.task
    assert plans[0][1] == set(task.labels)
    assert plans[0][7] == name


@pytest.mark.parametrize("name", NAMES)
def test_requests_that_a_folder_cannot_serve_are_refused_for_what_is_missing(name, looked):
    for request in find(name).impossible:
        reason = refused(request, looked(name))
        assert re.match("The request (is about|asks (for|to mark))|The masks hold|Zero-shot", reason), reason


@pytest.mark.parametrize(("name", "request_"), OTHERS)
def test_other_words_for_the_same_are_planned_alike(name, request_, looked):
    assert planned(request_, looked(name)) == planned(find(name).requests[0], looked(name))


@pytest.mark.parametrize(("name", "request_", "missing"), CANNOT)
def test_other_requests_that_cannot_be_served_are_refused_with_a_reason_that_names_it(name, request_, missing, looked):
    assert missing in refused(request_, looked(name))
