"""Run folders as a finished run leaves them, made by hand: one of each kind of model."""

import json

import nibabel
import numpy as np
from PIL import Image

from m3dspy.signatures.values import (
    ANOMALY_LABELS,
    Design,
    Fingerprint,
    Grade,
    Index,
    Item,
    Outcome,
    PatientKey,
    Plan,
    Request,
    Score,
    Source,
    Tuned,
)
from m3dspy.workspace.runs import Run

RNG = np.random.default_rng(0)
LABELS = ("CN", "MCI", "AD")
ORGANS = ("left lung", "right lung", "infection")


def score(value, half=0.05):
    return Score(value=value, low=value - half, high=min(value + half, 1))


def started(folder, data, task, **plan):
    """A run folder with a request and a plan."""
    folder.mkdir(parents=True)
    run = Run(folder)
    run.commit("request", Request(text=f"a model for {task}", data=str(data), trials=3))
    fields = {"goal": f"Show a {task}", "modality": "CT", "images": "img/*", "source": Source(kind="folder"), **plan}
    run.commit("plan", Plan(task=task, **fields))
    return run


def classified(tmp_path, *, grade=None, trials=(), settings=(), **outcome):
    """A finished run that tells three classes apart on twelve small volumes; the last test case has no answer."""
    data = tmp_path / "data"
    data.mkdir()
    items = []
    for number in range(12):
        np.save(data / f"v{number}.npy", RNG.normal(number % 3, 1, (20, 24, 16)).astype(np.float32))
        items.append(Item(id=f"v{number}", patient=f"p{number}", image=f"v{number}.npy", label=LABELS[number % 3]))
    patient = PatientKey(where="column", table="all.csv", column="Subject", patients=12, images=12)
    run = started(tmp_path / "runs" / "one", data, "classification", dims=3, labels=LABELS, patient=patient)
    run.commit("fingerprint", Fingerprint(files=12, megabytes=1.2, formats={".npy": 12}, warnings=("two files | odd",)))
    run.commit(
        "index",
        Index(task="classification", labels=LABELS, training=items[:3], validation=items[3:6], test=items[6:]),
    )
    design = Design(
        template="classify", network="cnn", dims=3, size=(20, 24, 16), intensity="zscore", loss="ce", lr=1e-3,
        batch=4, epochs=3, why="Small data, small network."
    )  # fmt: skip
    run.commit("design", design)
    run.commit("tuned", Tuned(trials=trials, settings=dict(settings)))
    (run.folder / "model").mkdir()
    lines = [{"epoch": 0, "loss": 1.1, "score": 0.4}, {"epoch": 1, "loss": 0.8, "score": 0.7}]
    (run.folder / "model" / "result.json").write_text(json.dumps({"score": 0.7, "epoch": 1, "history": lines}))
    answers = run.folder / "predictions"
    answers.mkdir()
    rows = [f"v{number},{LABELS[number % 3]},0.5,0.3,0.2" for number in range(6, 11)]
    (answers / "predictions.csv").write_text("\n".join(["id,label,CN,MCI,AD", *rows]))
    graded = Grade(
        metric="macro AUROC", score=score(0.74), floor=score(0.5, 0), control=score(0.52),
        others={"accuracy": score(0.6)}, per_label={label: score(0.7) for label in LABELS},
        confusion=((2, 0, 0), (1, 1, 0), (1, 0, 1)), cases=6, patients=6,
        missing=("v11",), s1=False, s2=True, worst=("v11", "v7", "v8", "v10"),
    )  # fmt: skip
    run.commit("outcome", Outcome(status="done", grade=grade or graded, seconds={"index": 3, "train": 300}, **outcome))
    return run.folder


def segmented(tmp_path, shape=(48, 40, 10), test=6, noise=40):
    """A finished run that marks both lungs and an infection on LAS volumes with 5 mm slices."""
    data, run_folder = tmp_path / "ct", tmp_path / "runs" / "two"
    (data / "img").mkdir(parents=True)
    affine = np.diag([-1.5, 1.5, 5.0, 1.0])
    run = started(run_folder, data, "segmentation", dims=3, labels=ORGANS, patient=None, sided=True)
    (run_folder / "predictions").mkdir()
    x, y, z = np.meshgrid(*(np.linspace(-1, 1, n) for n in shape), indexing="ij")  # x runs to the patient's left
    items = []
    for number in range(test + 4):
        body = x**2 / 0.8 + y**2 / 0.6 < 1
        lungs = [((x - side) / 0.3) ** 2 + (y / 0.5) ** 2 + z**2 < 0.9 for side in (0.42, -0.42)]
        spot = (x - 0.35) ** 2 + (y + 0.2) ** 2 + (z - 0.3) ** 2 < 0.03
        truth = np.select([spot, *lungs], [3, 1, 2], 0).astype(np.uint8)
        image = np.select([spot, *lungs, body], [-300, -850, -850, 45], -1000) + RNG.normal(0, noise, shape)
        for kind, voxels in (("img", image.astype(np.int16)), ("msk", truth)):
            nibabel.save(nibabel.Nifti1Image(voxels, affine), data / "img" / f"{kind}{number}.nii.gz")
        names = {"image": f"img/img{number}.nii.gz", "label": f"img/msk{number}.nii.gz"}
        items.append(Item(id=f"case-{number}", patient=f"p{number}", **names))
        answer = np.roll(truth, number % 4, axis=0)
        nibabel.save(nibabel.Nifti1Image(answer, affine), run_folder / "predictions" / f"case-{number}.nii.gz")
    run.commit(
        "index",
        Index(
            task="segmentation", labels=ORGANS, values=(1, 2, 3), training=items[test : test + 2],
            validation=items[test + 2 :], test=items[:test],
        ),
    )  # fmt: skip
    design = Design(
        template="segment", network="unet", dims=3, size=(48, 40, 10), intensity="window",
        window=(-1000, 400), loss="dice_ce", lr=1e-3, batch=2, epochs=3,
    )  # fmt: skip
    run.commit("design", design)
    grade = Grade(
        metric="mean Dice", score=score(0.82), floor=score(0.57),
        per_label=dict(zip(ORGANS, map(score, (0.92, 0.91, 0.6)), strict=True)),
        surfaces=dict(zip(ORGANS, map(score, (0.88, 0.87, 0.55)), strict=True)), oracle=0.971,
        cases=test, patients=test, s1=True, s2=True, worst=("case-3", "case-2"),
    )  # fmt: skip
    run.commit("outcome", Outcome(status="done", grade=grade, phantom=True))
    return run_folder


def anomalous(tmp_path, *, masks=True, weights=None, shots=2):
    """A finished run that finds bright spots in small pictures; draw 2 of the shots is missing, test case c0 too."""
    data = tmp_path / "spots"
    data.mkdir()
    folder, items, rows = tmp_path / "runs" / "three", [], ["id,label,normal,abnormal"]
    run = started(
        folder, data, "anomaly_detection", dims=2, labels=ANOMALY_LABELS, about="liver CT", shots=shots,
        masks="mask*.png" if masks else None,
    )  # fmt: skip
    (folder / "request.json").unlink()
    run.commit("request", Request(text="few-shot anomaly detection", data=str(data), trials=3, weights=weights))
    for name in ("predictions/clip", "predictions/bank"):
        (folder / name).mkdir(parents=True)
    for number in range(16):
        picture, truth = RNG.integers(60, 90, (40, 60)).astype(np.uint8), np.zeros((40, 60), np.uint8)
        truth[10:20, 20:35] = 255 * (number % 2)
        Image.fromarray(picture + truth // 4).save(data / f"{number}.png")
        item = {"id": f"c{number}", "patient": f"p{number}", "image": f"{number}.png"}
        if masks and number % 2:
            Image.fromarray(truth).save(data / f"mask{number}.png")
            item["mask"] = f"mask{number}.png"
        items.append(Item.model_validate({**item, "label": ANOMALY_LABELS[number % 2]}))
        Image.fromarray(truth.astype(np.uint16) * 200 + 9000).save(folder / "predictions" / f"c{number}.png")
        if 0 < number < 8:
            chance = 0.3 + 0.1 * (number % 5)
            rows.append(f"c{number},{ANOMALY_LABELS[chance > 0.5]},{1 - chance},{chance}")
    for name in ("predictions", "predictions/clip"):
        (folder / name / "predictions.csv").write_text("\n".join(rows))
    index = {"training": items[8:12], "validation": items[12:], "test": items[:8]}
    run.commit("index", Index(task="anomaly_detection", labels=ANOMALY_LABELS, about="liver CT", **index))
    design = Design(
        template="detect", network="clip_vit_b16", dims=2, channels=3, size=(64, 64), intensity="unit",
        loss="log-odds", lr=1e-3, batch=4, epochs=3, shots=shots,
    )  # fmt: skip
    run.commit("design", design)
    others = {"image AP": score(0.8), "plain CLIP image AUROC": score(0.55), "bank image AUROC": score(0.65)}
    others |= {"untuned image AUROC": score(0.6), "image AUROC over 2 draws": score(0.7, 0.1)}
    others |= {"image AUROC of draw 0": score(0.74), "image AUROC of draw 1": score(0.66)}
    if masks:
        others |= {name: score(0.88) for name in ("pixel AUROC", "PRO", "Dice", "plain CLIP pixel AUROC")}
    grade = Grade(
        metric="image AUROC", score=score(0.74), floor=score(0.61), control=score(0.49), others=others,
        confusion=((2, 1), (1, 3)), cases=8, patients=8, missing=("c0",), s1=False, s2=False,
        worst=("c0", "c3", "c2"), notes=("draw 2 did not answer every test case",),
    )  # fmt: skip
    run.commit("outcome", Outcome(status="done", grade=grade))
    return folder


def written(tmp_path):
    """A finished run that writes reports of six noisy films; the last case has none."""
    data = tmp_path / "films"
    data.mkdir()
    said = ["No effusion.", "Small | left effusion.", "A nodule."]
    items = []
    for number in range(9):
        Image.fromarray(RNG.integers(0, 255, (40, 30), np.uint8)).save(data / f"{number}.png")
        texts = {"findings": said[number % 3], "impression": "As above."}
        items.append(Item(id=f"f{number}", patient=f"p{number}", image=f"{number}.png", **texts))
    source = Source(kind="table", path="all.csv", file_column="file")
    run = started(
        tmp_path / "runs" / "five", data, "report_generation", dims=2, labels=(), source=source, findings="Findings_EN"
    )
    run.commit("index", Index(task="report_generation", labels=(), training=items[:3], test=items[3:]))
    design = Design(
        template="report", network="report_cnn", dims=2, size=(32, 32), intensity="zscore", loss="ce", lr=1e-3,
        batch=4, epochs=3,
    )  # fmt: skip
    run.commit("design", design)
    (run.folder / "predictions").mkdir()
    answers = {f"f{k}": {"findings": "No *effusion*.", "impression": ""} for k in (3, 4, 5, 6, 7)}
    (run.folder / "predictions/reports.json").write_text(json.dumps(answers))
    others = {"BLEU-4": score(0.31), "side accuracy": score(0.9), "constant finding F1": score(0.41)}
    graded = Grade(
        metric="finding F1", score=score(0.74), floor=score(0.41), control=score(0.42), cases=6, patients=6,
        others=others | {"retrieval finding F1": score(0.52)}, per_label={"nodule": score(0.66)}, missing=("f8",),
        s1=False, s2=False, worst=("f8", "f4"), notes=("3 different reports were written for 6 cases",),
    )  # fmt: skip
    run.commit("outcome", Outcome(status="done", grade=graded))
    return run.folder
