"""The built-in core answers every signature, through every adapter, over every road, always alike."""

import dspy
import pytest
from dspy.adapters.baml_adapter import BAMLAdapter
from rules_server import serve

from m3dspy.errors import Refused
from m3dspy.programs.lms.ledger import Ledger
from m3dspy.programs.lms.model import M3dLM
from m3dspy.signatures.data_engineer import WritePrepare
from m3dspy.signatures.module_architect import DesignTraining
from m3dspy.signatures.task_manager import MakePlan
from m3dspy.signatures.values import (
    Catalogue,
    ClassFolders,
    Column,
    DataCard,
    Document,
    Fingerprint,
    Group,
    IndexSummary,
    NetworkEntry,
    Pair,
    PatientKey,
    Spread,
    Table,
    TemplateEntry,
)

CUBE = Spread(least=(40, 40, 40), median=(40, 48, 40), most=(48, 48, 40))
HEADS = Group(pattern="ADNI_PT/I######.pt", folder="ADNI_PT", format="torch_tensor", count=90, dims=3, shape=CUBE)
HEAD_TABLE = Table(
    path="adni.csv",
    rows=90,
    columns=(
        Column(name="Image Data ID", kind="identifier", distinct=90, names_files=HEADS.pattern, rows_with_file=90),
        Column(name="Subject", kind="identifier", distinct=30, pattern="###_S_####"),
        Column(name="Group", kind="category", distinct=4, values={"CN": 30, "MCI": 30, "AD": 20, "SMC": 10}),
        Column(name="Sex", kind="category", distinct=2, values={"M": 45, "F": 45}),
    ),
)
SUBJECT = PatientKey(where="column", table="adni.csv", column="Subject", patients=30, images=90)
ADNI = Fingerprint(
    files=91, megabytes=30, formats={".pt": 90, ".csv": 1}, groups=(HEADS,), tables=(HEAD_TABLE,), patients=(SUBJECT,)
)
SCANS = Group(
    pattern="images/case_###.nii.gz", folder="images", format="nifti", count=20, dims=3, shape=CUBE, units={"HU": 20}
)
MASKS = Group(
    pattern="masks/case_###.nii.gz", folder="masks", format="nifti", count=20, dims=3, shape=CUBE, values=(0, 1, 2, 3)
)
CT = Fingerprint(
    files=41,
    megabytes=30,
    formats={".nii.gz": 40, ".json": 1},
    groups=(SCANS, MASKS),
    pairs=(Pair(image=SCANS.pattern, mask=MASKS.pattern, matched=20, values={"0": 20, "1": 20, "2": 20, "3": 18}),),
    documents=(Document(path="labels.json", text='["left lung", "right lung", "COVID-19 infection"]'),),
)
SLICES = Group(pattern="*/#.png", folder="", format="raster", count=40, dims=2, shape=CUBE)
FOLDERS = Fingerprint(
    files=40,
    megabytes=1,
    formats={".png": 40},
    groups=(SLICES,),
    class_folders=(ClassFolders(parent="", classes={"cyst": 20, "stone": 20}),),
)
ADAPTERS = {
    "chat": lambda lm: dspy.ChatAdapter(),
    "json": lambda lm: dspy.JSONAdapter(),
    "xml": lambda lm: dspy.XMLAdapter(),
    "baml": lambda lm: BAMLAdapter(),
    "two-step": lambda lm: dspy.TwoStepAdapter(lm),
}


def ask(signature, adapter="chat", lm=None, **inputs):
    lm = lm or M3dLM("rules", Ledger())
    with dspy.context(lm=lm, adapter=ADAPTERS[adapter](lm)):
        return dspy.Predict(signature)(**inputs)


def plan_for(request, fingerprint, cards=(), **how):
    return ask(MakePlan, request=request, fingerprint=fingerprint, cards=list(cards), complaint="", **how)


@pytest.mark.parametrize("adapter", ADAPTERS)
def test_a_plan_comes_out_alike_through_every_adapter(adapter):
    request = "tell Alzheimer's disease, mild cognitive impairment and healthy controls apart on brain MRI"
    plan = plan_for(request, ADNI, adapter=adapter).plan
    assert plan == plan_for(request, ADNI).plan
    assert plan.labels == ("CN", "MCI", "AD")
    assert (plan.source.kind, plan.source.column, plan.source.file_column) == ("table", "Group", "Image Data ID")
    assert plan.patient == SUBJECT


@pytest.mark.parametrize("adapter", ADAPTERS)
def test_a_refusal_comes_out_through_every_adapter(adapter):
    answer = plan_for("segment the liver in abdominal CT", ADNI, adapter=adapter)
    assert answer.plan is None
    assert "no masks" in answer.refusal


@pytest.mark.parametrize("adapter", ADAPTERS)
def test_a_script_survives_every_adapter(adapter):
    plan = plan_for("tell cysts from stones", FOLDERS).plan
    inputs = {"plan": plan, "card": "", "fingerprint": FOLDERS, "notes": "", "manual": "", "complaint": ""}
    code = ask(WritePrepare, adapter, **inputs).prepare.code
    assert code.rstrip() == ask(WritePrepare, **inputs).prepare.code.rstrip()
    assert "ix.group_lookalikes" in code
    compile(code, "prepare.py", "exec")


@pytest.mark.parametrize("adapter", ADAPTERS)
def test_a_design_survives_every_adapter(adapter):
    plan = plan_for("segment both lungs and the infection on chest CT", CT).plan
    catalogue = Catalogue(
        templates=(
            TemplateEntry(name="segment", task="segmentation", about="", losses=("dice_ce",), settings={"lr": "1e-3"}),
        ),
        networks=(NetworkEntry(name="unet", task="segmentation", dims=(2, 3), size="small", about=""),),
    )
    summary = IndexSummary(
        task="segmentation", labels=plan.labels, cases={"training": 14, "validation": 3, "test": 3}, patients={}
    )
    inputs = {"request": "", "plan": plan, "index": summary, "fingerprint": CT, "catalogue": catalogue, "complaint": ""}
    design = ask(DesignTraining, adapter, **inputs).design
    assert design == ask(DesignTraining, **inputs).design
    assert 0 not in design.flips  # the labels tell left from right
    assert design.network == "unet"


def test_the_same_rules_answer_behind_a_server():
    request = "segment both lungs and the infection on chest CT"
    with serve() as base:
        ledger = Ledger()
        answer = plan_for(request, CT, lm=M3dLM("openai/any", ledger, api_base=base, cache=False))
    assert answer.plan == plan_for(request, CT).plan
    assert ledger.calls == 1
    assert ledger.lines[0]["model"] == "openai/any"


@pytest.mark.parametrize(
    ("request_text", "labels"),
    [
        ("segment both lungs and the infection on chest CT", ("left lung", "right lung", "COVID-19 infection")),
        ("outline the COVID-19 infection on chest CT", ("COVID-19 infection",)),
        ("mark the left lung", ("left lung",)),
        ("segment all structures", ("left lung", "right lung", "COVID-19 infection")),
    ],
)
def test_only_what_was_asked_for_is_segmented(request_text, labels):
    plan = plan_for(request_text, CT).plan
    assert plan.labels == labels
    assert plan.sided == any("l" in label.split()[0] for label in labels if "lung" in label)


@pytest.mark.parametrize(
    ("request_text", "fingerprint", "reason"),
    [
        ("segment the liver in abdominal CT", CT, "abdomen"),
        ("segment the prostate", CT, "pelvis"),
        ("write a radiology report for each image", ADNI, "report generation"),
        ("classify pneumonia on chest CT", SCANS, "class"),
    ],
)
def test_a_request_that_the_data_cannot_serve_is_refused_with_the_reason(request_text, fingerprint, reason):
    if fingerprint is SCANS:
        fingerprint = Fingerprint(files=20, megabytes=1, formats={".nii.gz": 20}, groups=(SCANS,))
    answer = plan_for(request_text, fingerprint)
    assert answer.plan is None
    assert reason in answer.refusal


def test_a_card_is_used_only_where_its_layout_is_found():
    card = DataCard(name="ADNI", text="Volumes in `ADNI_PT`; `Group` holds the class. Use only `AD`, `MCI` and `CN`.")
    assert plan_for("diagnose dementia", ADNI, [card]).plan.card == "ADNI"
    assert plan_for("diagnose dementia", ADNI, [card]).plan.labels == ("CN", "MCI", "AD")
    assert plan_for("segment the lungs", CT, [card]).plan.card is None


def test_a_card_of_another_dataset_is_not_used_for_its_common_words():
    card = DataCard(
        name="COVID19", text="Chest CT in `images`, `.nii.gz`; masks in `segmentation_masks`; `labels.json`."
    )
    assert plan_for("segment all structures", CT, [card]).plan.card is None


def test_a_foreign_signature_is_refused_by_name():
    with pytest.raises(Exception, match="answers m3dspy's own signatures only"):
        ask(dspy.Signature("question -> answer"), question="2 + 2?")


def test_refused_is_its_own_exit_status():
    assert Refused("").exit_status == 3


def test_a_large_scan_is_made_coarser_along_its_finest_axes():
    fine = Spread(least=(512, 512, 130), median=(512, 512, 130), most=(512, 512, 130))
    scans = SCANS.model_copy(
        update={"shape": fine, "spacing": Spread(least=(0.8,) * 3, median=(0.8, 0.8, 3), most=(1,) * 3)}
    )
    folder = CT.model_copy(update={"groups": (scans, MASKS)})
    plan = plan_for("segment both lungs and the infection on chest CT", folder).plan
    catalogue = Catalogue(
        templates=(TemplateEntry(name="segment", task="segmentation", about="", losses=("dice_ce",), settings={}),),
        networks=(NetworkEntry(name="unet", task="segmentation", dims=(2, 3), size="small", about=""),),
    )
    summary = IndexSummary(task="segmentation", labels=plan.labels, cases={"training": 20}, patients={})
    design = ask(
        DesignTraining, request="", plan=plan, index=summary, fingerprint=folder, catalogue=catalogue, complaint=""
    ).design
    x, y, z = design.spacing
    assert x == pytest.approx(y, rel=0.06)
    assert 2 < x < z == 3
    assert 512 * 0.8 / x * 512 * 0.8 / y * 130 * 3 / z < 4.1e6
