"""The built-in core answers every signature, through every adapter, over every road, always alike."""

import dspy
import pytest
from dspy.adapters.baml_adapter import BAMLAdapter
from rules_server import serve

from m3dspy.errors import Refused
from m3dspy.programs.lms.experts import words
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
    Machine,
    NetworkEntry,
    Pair,
    PatientKey,
    Spread,
    Table,
    TemplateEntry,
)

CUBE = Spread(least=(40, 40, 40), tenth=(40, 40, 40), median=(40, 48, 40), most=(48, 48, 40))
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
FLAT = SLICES.model_copy(update={"shape": Spread(**dict.fromkeys(("least", "tenth", "median", "most"), (96, 96)))})
FOLDERS = Fingerprint(
    files=40,
    megabytes=1,
    formats={".png": 40},
    groups=(SLICES,),
    class_folders=(ClassFolders(parent="", classes={"cyst": 20, "stone": 20}),),
)
SQUARE = Spread(least=(192, 192), tenth=(192, 192), median=(192, 192), most=(192, 192))
POOL, TEST = (
    Group(
        pattern=f"{part}/*/img/#_###.png",
        folder=part,
        format="raster",
        count=40,
        dims=2,
        shape=SQUARE,
        units={"8-bit": 9},
    )
    for part in ("valid", "test")
)
MARKS = tuple(
    Group(
        pattern=f"{part}/*/label/#_###.png",
        folder=part,
        format="raster",
        count=20,
        dims=2,
        shape=SQUARE,
        values=(0, 255),
    )
    for part in ("valid", "test")
)
LIVERS = Fingerprint(
    files=120,
    megabytes=1,
    formats={".png": 120},
    groups=(TEST, POOL, *MARKS),
    pairs=tuple(
        Pair(image=images.pattern, mask=masks.pattern, matched=20, values={"0": 20, "255": 20})
        for images, masks in zip((POOL, TEST), MARKS, strict=True)
    ),
    class_folders=(
        ClassFolders(parent="test", classes={"good": 20, "Ungood": 20}, levels=1),
        ClassFolders(parent="valid", classes={"Ungood": 20, "good": 20}, levels=1),
    ),
    patients=(PatientKey(where="file name", part=r"^(\d+)_", patients=9, images=40),),
)
FAT = "valid/*/fat/#_###.png"
FEW = "few-shot anomaly detection on liver CT, 8 normal and 8 abnormal"
MVFA = Catalogue(
    templates=(
        TemplateEntry(
            name="detect",
            task="anomaly_detection",
            about="",
            losses=("log-odds", "probability"),
            settings={"lr": "1e-3", "residual": "0.0", "fusion": "0.5"},
            presets=("default", "paper"),
        ),
    ),
    networks=(
        NetworkEntry(name="clip_b", task="anomaly_detection", dims=(2,), size="small", about=""),
        NetworkEntry(name="clip_l", task="anomaly_detection", dims=(2,), size="strong", about=""),
    ),
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


WHO = Table(
    path="who.csv",
    rows=40,
    columns=(
        Column(name="patient", kind="identifier", distinct=8, pattern="P##"),
        Column(name="file", kind="identifier", distinct=40, names_files="", rows_with_file=40),
    ),
)


def with_who(folder: Fingerprint, images: str, count: int) -> Fingerprint:
    """The folder with a table that only says whose these images are, so many of them."""
    named = WHO.columns[1].model_copy(update={"names_files": images, "rows_with_file": count})
    who = WHO.model_copy(update={"columns": (WHO.columns[0], named)})
    key = PatientKey(where="column", table="who.csv", column="patient", patients=8, images=count)
    return folder.model_copy(update={"tables": (*folder.tables, who), "patients": (key, *folder.patients)})


@pytest.mark.parametrize(
    ("request_text", "folder", "images", "count", "known"),
    [
        ("segment both lungs", CT, SCANS.pattern, 20, True),
        ("segment both lungs", CT, MASKS.pattern, 20, False),
        ("segment both lungs", CT, SCANS.pattern, 10, False),  # half of them
        ("tell cysts from stones", FOLDERS, SLICES.pattern, 40, True),
        (FEW, LIVERS, POOL.pattern, 80, True),
        (FEW, LIVERS, TEST.pattern, 80, True),  # the table names both, more of the test
        ("tell AD from CN", ADNI.model_copy(update={"patients": ()}), HEADS.pattern, 90, True),
    ],
)
def test_a_table_that_only_names_patients_is_read_whatever_the_labels_come_from(
    request_text, folder, images, count, known
):
    folder = with_who(folder, images, count)
    plan = plan_for(request_text, folder).plan
    assert (plan.patient == folder.patients[0]) == known
    inputs = {"plan": plan, "card": "", "fingerprint": folder, "notes": "", "manual": "", "complaint": ""}
    code = ask(WritePrepare, **inputs).prepare.code
    line = "items = ix.group_by_table(root, items, 'who.csv', file_column='file', patient_column='patient')"
    assert (line in code) == known
    assert "patient_column='patient'" not in code.replace(line, "")


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
    inputs = {"request": "", "plan": plan, "index": summary, "fingerprint": CT, "machine": Machine()}
    inputs |= {"catalogue": catalogue, "complaint": ""}
    design = ask(DesignTraining, adapter, **inputs).design
    assert design == ask(DesignTraining, **inputs).design
    assert 0 not in design.flips  # the labels tell left from right
    assert design.network == "unet"


def test_a_network_that_knows_something_sees_what_it_learnt_on_and_is_changed_slowly():
    plan = plan_for("tell cysts from stones", FOLDERS.model_copy(update={"groups": (FLAT,)})).plan
    entry = TemplateEntry(name="classify", task="classification", about="", losses=("ce",), settings={"lr": "1e-3"})
    summary = IndexSummary(task="classification", labels=plan.labels, cases={"training": 30}, patients={})
    inputs = {"request": "", "plan": plan, "index": summary, "machine": Machine(), "complaint": ""}
    inputs["fingerprint"] = FOLDERS.model_copy(update={"groups": (FLAT,)})
    made = {}
    for pretrained in (False, True):
        network = NetworkEntry(
            name="n", task="classification", dims=(2,), size="strong", about="", pretrained=pretrained
        )
        inputs["catalogue"] = Catalogue(templates=(entry,), networks=(network,))
        made[pretrained] = ask(DesignTraining, **inputs).design
    assert made[True].size == (224, 224)
    assert made[True].lr < made[False].lr
    assert made[True].space["lr"].low < made[True].lr < made[True].space["lr"].high


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


def kinds(*masks: str, last: int = 20) -> Fingerprint:
    """Twenty scans with several kinds of masks of value 1, fewer of the last."""
    counts = [20] * (len(masks) - 1) + [last]
    pairs = [Pair(image=SCANS.pattern, mask=m, matched=n, values={"1": n}) for m, n in zip(masks, counts, strict=True)]
    return Fingerprint(
        files=60, megabytes=30, formats={}, groups=(SCANS.model_copy(update={"units": {}}),), pairs=pairs
    )


TWO_KINDS = ("brain_masks/case_###.nii.gz", "lesion_masks/case_###.nii.gz")
NESTED = ("kidney/case_###.nii.gz", "kidney_tumour/case_###.nii.gz")


@pytest.mark.parametrize(
    ("request_text", "folder", "mask", "label"),
    [
        ("Segment the lesion in MR of the head", kinds(*TWO_KINDS), TWO_KINDS[1], "lesion"),
        ("Segmentation of the lesions in brain MR", kinds(*TWO_KINDS), TWO_KINDS[1], "lesion"),
        ("Segment the brain", kinds(*TWO_KINDS), TWO_KINDS[0], "brain"),
        ("Segment the lesion", kinds(*TWO_KINDS, last=18), TWO_KINDS[1], "lesion"),
        ("Segment the kidney", kinds(*NESTED), NESTED[0], "kidney"),
        ("Segment the kidney tumour", kinds(*NESTED), NESTED[1], "kidney tumour"),
    ],
)
def test_of_several_kinds_of_masks_those_are_learnt_that_the_request_names(request_text, folder, mask, label):
    plan = plan_for(request_text, folder).plan
    assert (plan.source.path, plan.labels) == (mask, (label,))


@pytest.mark.parametrize(
    ("request_text", "count"), [("Segment the oedema", "none"), ("Brain and lesion masks", "several")]
)
def test_several_kinds_of_masks_that_the_request_does_not_tell_apart_are_refused(request_text, count):
    answer = plan_for(request_text, kinds(*TWO_KINDS))
    assert answer.plan is None
    assert f"masks of 2 kinds, and the request names {count} of them: {', '.join(TWO_KINDS)}. Name" in answer.refusal


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


def test_sessions_are_no_classes():
    sessions = Column(name="session", kind="category", distinct=2, values={"ses-01": 80, "ses-02": 10})
    table = HEAD_TABLE.model_copy(update={"columns": (HEAD_TABLE.columns[0], sessions)})
    answer = plan_for("tell ses-01 from ses-02 on brain MRI", ADNI.model_copy(update={"tables": (table,)}))
    assert answer.plan is None
    assert "nothing says a class" in answer.refusal


@pytest.mark.parametrize(
    ("request_text", "column", "values", "labels"),
    [
        ("Tell smokers from others", "status", ("stable", "declining"), None),
        ("Classify the images", "site", ("Lund", "Porto"), None),
        ("Classify the images by site", "site", ("Lund", "Porto"), ("Lund", "Porto")),
        ("Tell smokers from others", "status", ("0", "1"), ("0", "1")),  # codes, which nobody says
        ("Predict the status from brain MRI", "status", ("stable", "declining"), ("stable", "declining")),
    ],
)
def test_classes_that_are_not_there_are_not_taken_for_others(request_text, column, values, labels):
    told = Column(name=column, kind="category", distinct=2, values=dict.fromkeys(values, 45))
    table = HEAD_TABLE.model_copy(update={"columns": (HEAD_TABLE.columns[0], told)})
    answer = plan_for(request_text, ADNI.model_copy(update={"tables": (table,), "patients": ()}))
    if labels:
        assert answer.plan.labels == labels
    else:
        assert f"names none of the classes that are there: {', '.join(values)}, of column {column}." in answer.refusal


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
    fine = Spread(**dict.fromkeys(("least", "tenth", "median", "most"), (512, 512, 130)))
    scans = SCANS.model_copy(
        update={
            "shape": fine,
            "spacing": Spread(least=(0.8,) * 3, tenth=(0.8,) * 3, median=(0.8, 0.8, 3), most=(1,) * 3),
        }
    )
    folder = CT.model_copy(update={"groups": (scans, MASKS)})
    plan = plan_for("segment both lungs and the infection on chest CT", folder).plan
    catalogue = Catalogue(
        templates=(TemplateEntry(name="segment", task="segmentation", about="", losses=("dice_ce",), settings={}),),
        networks=(NetworkEntry(name="unet", task="segmentation", dims=(2, 3), size="small", about=""),),
    )
    summary = IndexSummary(task="segmentation", labels=plan.labels, cases={"training": 20}, patients={})
    how = {"fingerprint": folder, "machine": Machine(), "catalogue": catalogue, "complaint": ""}
    design = ask(DesignTraining, request="", plan=plan, index=summary, **how).design
    x, y, z = design.spacing
    assert x == pytest.approx(y, rel=0.06)
    assert 2 < x < z == 3
    assert 512 * 0.8 / x * 512 * 0.8 / y * 130 * 3 / z < 4.1e6


# ---------------------------------------------------------------------------------------------------- anomalies
def anomaly_design(request, complaint=""):
    plan = plan_for(request, LIVERS).plan
    counted = IndexSummary(
        task="anomaly_detection", labels=plan.labels, cases={"training": 20, "validation": 20, "test": 40}, patients={}
    )
    how = {"index": counted, "fingerprint": LIVERS, "machine": Machine(), "catalogue": MVFA, "complaint": complaint}
    return ask(DesignTraining, request=request, plan=plan, **how).design


def test_few_shots_come_from_the_pool_and_never_from_the_official_test_cases():
    plan = plan_for(FEW, LIVERS).plan
    assert (plan.task, plan.labels, plan.label_values) == (
        "anomaly_detection",
        ("normal", "abnormal"),
        ("good", "Ungood"),
    )
    assert (plan.source.kind, plan.source.path, plan.images) == ("folder", "valid", POOL.pattern)
    assert (plan.masks, plan.about, plan.shots) == (MARKS[0].pattern, "liver CT", 8)
    assert plan.patient == LIVERS.patients[0]


def test_the_index_of_anomalies_is_gathered_by_the_folders_of_the_plan_and_of_the_official_test():
    plan = plan_for(FEW, LIVERS).plan
    inputs = {"plan": plan, "card": "", "fingerprint": LIVERS, "notes": "", "manual": "", "complaint": ""}
    code = ask(WritePrepare, **inputs).prepare.code
    assert "normal=['valid/good/**/*.png', 'test/good/**/*.png']" in code
    assert "masks=['valid/*/label/#_###.png', 'test/*/label/#_###.png']" in code
    assert "test='test/**'" in code
    assert "ix.split(items, seed=0, validation=0.5)" in code
    assert "about='liver CT'" in code
    alone = LIVERS.model_copy(update={"class_folders": LIVERS.class_folders[1:]})
    code = ask(WritePrepare, **inputs | {"fingerprint": alone}).prepare.code
    assert "test='" not in code
    assert "validation=0.3, test=0.4" in code


@pytest.mark.parametrize(
    ("classes", "names"),
    [
        (("NORMAL", "abnormal"), ("NORMAL", "abnormal")),
        (("NG", "OK"), ("OK", "NG")),
        (("Healthy", "Tumor"), ("Healthy", "Tumor")),
        (("normal_lung", "opaque_lung"), ("normal_lung", "opaque_lung")),
        (("normal", "stone", "cyst"), ("normal", "stone")),
    ],
)
def test_the_normal_folder_is_told_by_its_name(classes, names):
    folders = ClassFolders(parent="valid", classes=dict.fromkeys(classes, 20))
    plan = plan_for("few-shot detection of kidney stones", LIVERS.model_copy(update={"class_folders": (folders,)})).plan
    assert plan.label_values == names
    assert plan.shots == 4


@pytest.mark.parametrize(
    ("request_text", "fingerprint", "reason"),
    [
        ("few-shot anomaly detection", CT, "there is no abnormal support"),
        ("few-shot anomaly detection", FOLDERS, "there is no abnormal support"),
        ("zero-shot anomaly detection on liver CT", LIVERS, "use `m3dspy bench --zero-shot`"),
        (FEW, LIVERS.model_copy(update={"pairs": (*LIVERS.pairs, LIVERS.pairs[0].model_copy(update={"mask": FAT}))}),
         f"There are masks of 2 kinds, {MARKS[0].pattern}, {FAT}, and what is abnormal is learnt from one."),
        (FEW.replace("liver", "brain"), LIVERS.model_copy(update={"documents": (Document(path="a.md", text="Liver"),)}),
         "The request is about brain, but this folder is about abdomen"),
    ],
)  # fmt: skip
def test_anomalies_that_cannot_be_learnt_here_are_refused_in_one_line(request_text, fingerprint, reason):
    answer = plan_for(request_text, fingerprint)
    assert answer.plan is None
    assert reason in answer.refusal
    assert "\n" not in answer.refusal


def test_what_a_card_says_of_the_images_goes_before_the_request():
    card = DataCard(name="Liver", text="Slices in `good` and `Ungood` of `valid`. About: `CT of a liver`.")
    assert plan_for(FEW, LIVERS, [card]).plan.about == "CT of a liver"


@pytest.mark.parametrize(
    ("request_text", "name"),
    [(FEW, "Liver"), ("few-shot anomaly detection on brain MR", "Brain"), ("few-shot anomaly detection", None)],
)
def test_of_cards_with_one_layout_that_of_the_subject_is_used_and_none_where_none_is_told(request_text, name):
    layout = "{} in `good` and `Ungood` of `valid` and `test`, masks in `label`. About: `{}`."
    texts = {"Brain": ("MR of the brain", "brain MR"), "Liver": ("CT of the liver", "liver CT")}
    cards = [DataCard(name=card, text=layout.format(*text)) for card, text in texts.items()]
    assert plan_for(request_text, LIVERS, cards).plan.card == name


def test_anomalies_are_learnt_by_our_settings_unless_the_paper_is_to_be_reproduced():
    ours = anomaly_design(FEW)
    assert (ours.preset, ours.network, ours.shots, ours.channels, ours.size) == ("default", "clip_b", 8, 3, (240, 240))
    assert (ours.intensity, ours.loss, ours.flips) == ("unit", "log-odds", (1,))
    assert set(ours.space) == {"lr", "fusion"}  # of the settings that the template has; residual costs hours on a CPU
    best = anomaly_design(f"{FEW}, as accurate as possible")
    assert best.network == "clip_l"
    assert "residual" in best.space
    paper = anomaly_design(f"{FEW}, as in the paper")
    assert (paper.preset, paper.loss, paper.batch, paper.epochs, paper.space) == ("paper", "probability", 1, 50, {})
    assert anomaly_design(FEW, complaint="CUDA out of memory").batch == 1


@pytest.mark.parametrize(
    ("request_text", "task"),
    [
        ("write the report of a chest X-ray", "report_generation"),
        ("generate radiology reports", "report_generation"),
        ("describe findings and impression", "report_generation"),
        ("Caption these volumes", "report_generation"),
        ("draft the findings of each film, and tell left from right", "report_generation"),
        ("auto-dictation for the night shift", "report_generation"),
        ("classify CN and AD, and report the balanced accuracy", "classification"),
        ("create a classifier of pneumonia findings", "classification"),
        ("segment the spleen; a report of the Dice is welcome", "segmentation"),
        ("few-shot anomaly detection with a report", "anomaly_detection"),
    ],
)
def test_the_task_is_told_by_what_is_to_come_out(request_text, task):
    assert words.task_of(request_text) == task
