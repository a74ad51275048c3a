"""What tells who a patient is reaches no language model, log, event or report."""

import gzip
import json
import re

import dspy
import nibabel
import numpy as np
import pydicom
import pytest
from bad_datasets import dcm
from PIL import Image
from PIL.PngImagePlugin import PngInfo
from rules_server import by_rules, serve
from test_tune import make_run

from m3dspy import job
from m3dspy.optimizers.tune import tune
from m3dspy.programs.builder import Hands
from m3dspy.programs.lms.ledger import Ledger
from m3dspy.programs.lms.model import M3dLM
from m3dspy.signatures.values import Request
from m3dspy.workspace import execute, private, tools
from m3dspy.workspace.private import Private, of_text

FIRST = [
    "ZELDA",
    "YORICK",
    "XAVIER",
    "WILHELMINA",
    "VIOLET",
    "ULRICH",
    "THEODORA",
    "SIGRID",
    "RUPERT",
    "QUENTIN",
    "PRUDENCE",
    "OTTOLINE",
]
LAST = ["ABERNATHY", "BIRTWHISTLE", "CARMICHAEL", "DAVENPORT", "ELLSWORTH", "FAIRWEATHER", "GILLINGHAM", "HOLLOWAY"]
PEOPLE = [
    {
        "name": f"{LAST[n % 8]}^{FIRST[n]}",
        "mrn": f"7{n:02d}41{n:02d}9",
        "birth": f"19{40 + n}-0{1 + n % 9}-1{n % 10}",
        "accession": f"ACC88{n:02d}31",
        "phone": f"+44 20 7946 0{n:03d}",
        "address": f"{100 + n} Larkspur Crescent",
        "physician": "Dr Melisande Thornbury",
        "kind": "ab"[n % 2],
    }
    for n in range(12)
]
SECRETS = [
    *FIRST,
    *LAST,
    *(person[what] for person in PEOPLE for what in ("mrn", "birth", "accession", "phone", "address")),
    *(person["birth"].replace("-", "") for person in PEOPLE),
    "Larkspur",
    "Thornbury",
    "Melisande",
]
REQUEST = "classify the images as benign or malignant, a quick try"
CLASSES = {"a": "benign", "b": "malignant"}


def leaks(text):
    """The secrets in a text, however they are spelled."""
    plain = re.sub(r"[\W_]+", " ", text).lower()
    return sorted({secret for secret in SECRETS if re.sub(r"[\W_]+", " ", secret).lower() in plain})


def notes(root):
    root.mkdir(parents=True, exist_ok=True)
    first = PEOPLE[0]
    (root / "README.md").write_text(
        f"# Lesions\nCollected by Dr Melisande Thornbury, {first['address']}, phone {first['phone']}. The first "
        f"patient is Zelda Abernathy, born {first['birth']}, MRN {first['mrn']}.\n"
    )
    record = {"patient_name": first["name"], "birth_date": first["birth"], "referring_physician": first["physician"]}
    (root / "about.json").write_text(json.dumps({"labels": ["benign", "malignant"], "first": record}))


def table(root, files):
    heads = ["file", "PatientName", "MRN", "birth_date", "accession", "phone", "address", "referring_physician"]
    rows = []
    for person, file in zip(PEOPLE, files, strict=True):
        name = " ".join(word.title() for word in person["name"].split("^")[::-1])
        told = (person[what] for what in ("mrn", "birth", "accession", "phone", "address", "physician"))
        story = f"Seen by {person['physician']} for {name} of {person['address']} last spring"
        rows.append(",".join([file, name, *told, story, CLASSES[person["kind"]]]))
    (root / "labels.csv").write_text("\n".join([",".join([*heads, "remarks", "label"]), *rows]) + "\n")


def pictures(root):
    """PNG files named by patient, with text chunks; a table of everything that must not be told."""
    notes(root)
    random, files = np.random.default_rng(0), []
    for n, person in enumerate(PEOPLE):
        text = PngInfo()
        text.add_text("Patient", f"{person['name']} {person['mrn']} {person['birth']}")
        file = f"images/{person['name'].replace('^', '_')}_{person['mrn']}.png"
        (root / file).parent.mkdir(parents=True, exist_ok=True)
        pixels = random.integers(0, 120, (24, 24), dtype=np.uint8) + np.uint8(90 * (n % 2))
        Image.fromarray(pixels).save(root / file, pnginfo=text)
        files.append(file)
    table(root, files)


def slices(root):
    """DICOM files that tell everything in their tags, and a table of names and labels."""
    notes(root)
    files = []
    for n, person in enumerate(PEOPLE):
        file = f"images/{person['accession']}.dcm"
        (root / file).parent.mkdir(parents=True, exist_ok=True)
        (root / file).write_bytes(dcm(uid=f"1.2.3.{n}", series=f"1.2.4.{n}", patient=person["name"]))
        dataset = pydicom.dcmread(root / file)
        dataset.PatientID, dataset.AccessionNumber = person["mrn"], person["accession"]
        dataset.PatientBirthDate = person["birth"].replace("-", "")
        dataset.PatientAddress, dataset.PatientTelephoneNumbers = person["address"], person["phone"]
        dataset.ReferringPhysicianName = "Thornbury^Melisande"
        dataset.add_new(0x00090010, "LO", "NOTES")
        dataset.add_new(0x00091001, "LO", f"{person['name']} {person['mrn']}")
        dataset.save_as(root / file)
        files.append(file)
    table(root, files)


def volumes(root):
    """NIfTI volumes in folders named by patient, whose headers tell the name."""
    notes(root)
    random, files = np.random.default_rng(0), []
    for n, person in enumerate(PEOPLE):
        image = nibabel.Nifti1Image(random.random((12, 12, 6)).astype("f4") + n % 2, np.eye(4))
        image.header["descrip"] = f"{person['name']} {person['birth']}".encode()
        image.header["aux_file"] = person["mrn"].encode()
        file = f"{person['name'].replace('^', '_')}/scan.nii.gz"
        (root / file).parent.mkdir(parents=True, exist_ok=True)
        nibabel.save(image, root / file)
        files.append(file)
    table(root, files)


# The only files of a run that may hold what tells who a patient is, and why.
MUST_TELL = {
    "private.json": "it is the map from values to tokens, for its owner's eyes",
    "request.json": "the user's own words, and where the dataset lies",
    "index.json": "by these paths the images are found again",
    "attempts/index/index.json": "the same, as prepare.py left it",
    "tuning_index.json": "by these paths a training script finds the images it learns from",
    "public_index.json": "the same; test cases have other paths there",
    "prepare/unreadable.json": "by their own ids prepare.py leaves cases out that cannot be read",
    "files.json": "the size and time of every image, by its path",
}


def everything_written(folder):
    """All that a run wrote: path -> path and text. `public/` has the images under their own paths, until training ends.

    Compressed files are opened: Optuna's journals and databases, logs, figures and models are searched as they lie.
    """
    files = {str(path.relative_to(folder)): path for path in folder.rglob("*") if path.is_file()}
    kept = {name: path for name, path in files.items() if name not in MUST_TELL and not name.startswith("public/")}
    return {name: f"{name}\n{unpacked(path).decode('utf-8', 'replace')}" for name, path in kept.items()}


def unpacked(path):
    return gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()


@pytest.fixture
def model():
    """A language model over HTTP that answers by rules: its base address, and all that it was sent."""
    sent = []

    def reply(request):
        sent.append(json.dumps(request, ensure_ascii=False))
        return by_rules(request)

    with serve(reply) as base:
        yield base, sent


@pytest.mark.parametrize("make", [pictures, slices, volumes])
def test_no_prompt_event_or_log_tells_who_a_patient_is(make, tmp_path, model):
    base, sent = model
    make(tmp_path / "data")
    asked = Request(text=REQUEST, data=str(tmp_path / "data"), lm="openai/any", api_base=base, trials=0)
    run = job.start(asked, tmp_path / "runs")
    with private.hiding(Private()) as persons, dspy.context(adapter=dspy.ChatAdapter()):
        job._look(run, asked, persons)
        builder = job._builder(run, asked)
        builder.set_lm(M3dLM("openai/any", Ledger(run.folder / "lm.jsonl"), base))
        builder._plan(run, Hands(), "")
        builder._index(run, Hands(), "")
    assert len(sent) >= 3
    assert [leaks(text) for text in sent] == [[]] * len(sent)
    told = {name: leaks(text) for name, text in everything_written(run.folder).items()}
    assert {name: found for name, found in told.items() if found} == {}
    assert {"benign", "malignant"} == set(run.load("index", job.Index).labels)
    assert (run.folder / "private.json").stat().st_mode & 0o777 == 0o600
    assert leaks((run.folder / "private.json").read_text())  # the map does know them


def ends_of(home, sent, out, err):
    """Where a run's text went, and which secrets stand there."""
    (run,) = (home / "runs").glob("[!.]*")
    told = {name: leaks(text) for name, text in everything_written(run).items()}
    places = {"prompts": leaks("\n".join(sent)), "terminal": leaks(out + err), **told}
    return {place: found for place, found in places.items() if found}


SABOTAGE = {
    "its output": "raise SystemExit((root / 'labels.csv').read_text())",
    "the check of its index": "splits['test'][0]['image'] += '.gone'",
    "an id": "splits['test'][0] |= {'id': splits['training'][0]['id']}",
}


def test_class_folders_below_a_folder_named_after_a_patient_are_indexed(tmp_path, model, m3dspy):
    base, sent = model
    pictures(tmp_path / "made")
    for n, image in enumerate(sorted((tmp_path / "made" / "images").iterdir())):
        place = tmp_path / "data" / "Zelda Abernathy" / CLASSES["ab"[n % 2]] / f"{n}.png"
        place.parent.mkdir(parents=True, exist_ok=True)
        image.rename(place)
    notes(tmp_path / "data")
    to = ("--data", "data", "--lm", "openai/any", "--api-base", base, "--trials", 0, "--max-calls", 5)
    _, out, err = m3dspy("run", REQUEST, *to)
    (run,) = (tmp_path / "runs").glob("[!.]*")
    assert (run / "index.json").is_file()
    assert ends_of(tmp_path, sent, out, err) == {}


@pytest.mark.skipif(execute.probe().level == "none", reason="no script of a language model runs here")
@pytest.mark.parametrize("how", SABOTAGE)
def test_a_prepare_that_fails_over_a_patient_names_it_nowhere(how, tmp_path, m3dspy):
    sent = []

    def reply(request):
        sent.append(json.dumps(request, ensure_ascii=False))
        status, body = by_rules(request)
        message = body["choices"][0]["message"]
        message["content"] = message["content"].replace("ix.write_index(", f"{SABOTAGE[how]}; ix.write_index(")
        return status, body

    pictures(tmp_path / "data")
    with serve(reply) as base:
        to = ("--data", "data", "--lm", "openai/any", "--api-base", base, "--trials", 0)
        status, out, err = m3dspy("run", REQUEST, *to)
    assert status == 1
    assert sum("complaint" in text and "<name-" in text for text in sent) > 0  # it did get to the language model
    assert "<name-" in err
    assert ends_of(tmp_path, sent, out, err) == {}


def test_what_a_closer_look_finds_names_no_patient(tmp_path, m3dspy):
    sent, asked = [], iter([("preview", {"path": "README.md"}), ("list_folder", {"folder": "images/Zelda Abernathy"})])

    def reply(request):
        sent.append(json.dumps(request, ensure_ascii=False))
        status, body = by_rules(request)
        message = body["choices"][0]["message"]
        if "next_tool_name" in message["content"] and (call := next(asked, None)):
            name, arguments = call
            message["content"] = message["content"].replace("finish", name).replace("{}", json.dumps(arguments))
        return status, body

    pictures(tmp_path / "data")
    with tools.desk(tmp_path / "data"):
        assert leaks(tools.preview("README.md"))  # what the tool itself lets pass
    with serve(reply) as base:
        status, _, _ = m3dspy("run", REQUEST, "--data", "data", "--lm", "openai/any", "--api-base", base,
                              "--trials", 0, "--max-calls", 6)  # fmt: skip
    assert status == 1
    assert sum("observation_1" in text and "The first patient is <name-" in text for text in sent) > 0
    assert leaks("\n".join(sent)) == []


def test_a_dataset_that_is_of_no_use_names_no_patient(tmp_path, m3dspy):
    pictures(tmp_path / "data")
    for image in (tmp_path / "data" / "images").iterdir():
        image.write_bytes(image.read_bytes()[:60])
    status, out, err = m3dspy("run", REQUEST, "--data", "data", "--trials", 0)
    assert (status, "No image in" in err, "<name-" in err) == (1, True, True)
    assert ends_of(tmp_path, [], out, err) == {}
    (kept,) = (tmp_path / "runs").glob("*/private.json")
    assert leaks(kept.read_text())  # there a person finds who is meant
    assert leaks(m3dspy("data", "look", "data")[2])  # and here, where nothing is kept


FAILURES = {
    "it ends": "assert lr == 0.002 or sys.stderr.write('no slice of ABERNATHY, ZELDA\\n') == 0, 'see Zelda Abernathy'",
    "it says why": "if lr != 0.002: raise OSError('no slice of ABERNATHY, ZELDA')",
}


@pytest.mark.parametrize("how", FAILURES)
def test_a_trial_that_fails_over_a_patient_names_it_nowhere(how, tmp_path):
    run = make_run(tmp_path, failure=FAILURES[how])
    persons = Private()
    persons.add("name", "ABERNATHY^ZELDA")
    private.write(persons, run.folder / private.FILE)
    told = []
    run.listen = told.append
    with run.lock():
        tuned = tune(run, 3, trusted=True, unsafe=False, jobs=2)
    assert [trial.state for trial in tuned.trials] == ["complete", "failed", "failed"]
    told_by = {str(path): path.read_text(errors="replace") for path in run.folder.rglob("*") if path.is_file()}
    told_by = {name: text for name, text in told_by.items() if not name.endswith(private.FILE) and "/code/" not in name}
    assert sum("no slice of <name-1>" in text for text in told_by.values()) >= 2
    assert "<name-1>" in (run.folder / "study" / "journal.log").read_text()
    assert {name: leaks(text) for name, text in told_by.items() if leaks(text)} == {}


@pytest.mark.slow
@pytest.mark.parametrize("make", [pictures, pytest.param(slices, marks=pytest.mark.soak)])
def test_a_whole_run_tells_nobody_who_a_patient_is(make, tmp_path, model, m3dspy):
    base, sent = model
    make(tmp_path / "data")
    status, out, err = m3dspy("run", REQUEST, "--data", "data", "--lm", "openai/any", "--api-base", base, "--trials", 0)
    assert status == 0
    (run,) = (tmp_path / "runs").glob("[!.]*")
    assert (run / "report.html").is_file()
    assert ends_of(tmp_path, sent, out, err) == {}
    commands = [("tune", run.name, "--trials", 2), ("predict", run.name, "data/images", "--out", "answers")]
    ended = [m3dspy(*command) for command in commands]
    assert [status for status, _, _ in ended] == [0, 0]
    assert ends_of(tmp_path, sent, *("".join(texts) for texts in list(zip(*ended, strict=True))[1:])) == {}
    assert leaks((run / "index.json").read_text())  # a search of the rest for nothing would find nothing


def test_a_look_at_dicom_prints_no_tag(tmp_path, m3dspy):
    slices(tmp_path / "data")
    (tmp_path / "data" / "labels.csv").unlink()
    status, out, err = m3dspy("data", "look", "data")
    assert (status, leaks(out + err)) == (0, [])


def test_a_value_has_one_token_in_every_spelling():
    private = Private()
    private.add("name", "DOE^JANE")
    private.add("date", "1970-01-31")
    private.add("id", "MRN-00412345")
    assert private.hide("Jane Doe, doe_jane.png, JaneDoe2.png") == "<name-1> <name-1>, <name-1>.png, <name-1>2.png"
    assert private.hide("born 19700131 or 1970/01/31") == "born <date-1> or <date-1>"
    assert private.hide("mrn_00412345_2.png") == "<id-1>_2.png"


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("Seen by Dr. Ada Byron in 2019, 512 x 512 x 30", "Seen by Dr. <name-1> in 2019, 512 x 512 x 30"),
        ("tel. (020) 7946-0018", "tel. (<contact-1>"),
        ("call +44 20 7946 0018.", "call +<contact-1>."),
        ("12b Old Mill Lane, 40 Way points", "<contact-1>, 40 Way points"),
    ],
)
def test_persons_in_free_text_are_hidden_and_counts_are_not(text, shown):
    private = Private()
    of_text(private, text)
    assert private.hide(text) == shown


def test_names_of_classes_and_words_of_the_request_survive():
    private = Private()
    private.add("name", "Stone^Emma")
    private.protect(["kidney stone"])
    assert private.hide("stone of Emma") == "stone of <name-1>"


def test_short_numbers_are_no_identifiers():
    private = Private()
    private.add("id", "12")
    assert private.hide("12 images") == "12 images"


def test_show_prompts_prints_what_a_run_would_send_and_leaves_nothing_behind(tmp_path, model, m3dspy):
    base, sent = model
    pictures(tmp_path / "data")
    to = ("--data", "data", "--lm", "openai/any", "--api-base", base, "--trials", 0)
    status, out, _ = m3dspy("run", REQUEST, *to, "--show-prompts", "--json")
    shown = json.loads(out)["prompts"]
    assert (status, sent) == (0, [])
    assert not (tmp_path / "runs").exists()
    assert leaks(out) == []
    assert m3dspy("run", REQUEST, *to, "--max-calls", 2)[0] == 1  # the preflight, and the first question
    assert json.loads(sent[1])["messages"] == shown[0]["messages"]
