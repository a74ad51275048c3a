"""What could tell who a patient is: found in a dataset, replaced by stable tokens wherever text leaves for elsewhere.

    with private.hiding(private.read(run.folder / "private.json")):
        private.hidden("the scan of DOE^JANE, MRN 00412345")        # 'the scan of <name-1>, MRN <id-1>'

Values are compared by their letters and digits alone, so that a name is found in a file name, too. What names a class,
or stands in the request, is never replaced.
"""

import json
import os
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from itertools import pairwise
from pathlib import Path
from typing import Annotated, Any

from pydantic import StringConstraints, TypeAdapter, ValidationError

from m3dspy.errors import M3Error, Stopped
from m3dspy.workspace.patterns import words

FILE = "private.json"  # of a run: values and tokens; it is sent nowhere
MOST_VALUES = 200_000
MOST_WORDS = 8  # of a cell that may name somebody; a report is longer, and is shown to nobody
LEAST_SIGNS, LEAST_LETTERS = 5, 3  # of a value, and of a part of a person's name; shorter ones are in every text
TOKEN = re.compile(r"<(?:name|id|date|contact)-\d+>")
Values = dict[str, Annotated[str, StringConstraints(pattern=f"^{TOKEN.pattern}$")]]  # value -> its token
_RUN = re.compile(r"[^\W\d_]+|\d+")
_TITLED = re.compile(
    r"(?i:\b(?:dr|prof|mr|mrs|ms|patient|physician|name|surgeon|reader|radiologist)\b[.:=\s]*(?:is\s+)?)"
    r"((?!(?:ID|MRN|DOB)\b)[A-Z][\w'-]+(?:[ ^,]+[A-Z][\w'-]+){0,2})"
)
_PHONE = re.compile(r"(?:\b(?:phone|tel|telephone|mobile|fax)\b[.:\s]*|\+)(\(?\d[\d ()./-]{5,}\d)", re.IGNORECASE)
_STREET = re.compile(
    r"\b\d+[a-z]?,?\s+(?:[A-Z][\w'-]+\s+){1,3}"
    r"(?:Street|St|Road|Rd|Avenue|Ave|Lane|Drive|Crescent|Close|Court|Square|Way|Place|Boulevard|Terrace)\b"
)
_KINDS = {
    "name": "name surname forename patientname physician doctor reader operator father mother",
    "date": "birth dob birthdate",
    "id": "mrn ptid pid rid ssn accession patient patients subject person participant proband",
    "contact": "phone telephone email mail address",
}
_WORDS = {word: kind for kind, text in _KINDS.items() for word in text.split()}
# Attributes of the Basic Application Level Confidentiality Profile, DICOM PS3.15 table E.1-1
DICOM_TAGS = {
    "name": "PatientName OtherPatientNames PatientBirthName PatientMotherBirthName ReferringPhysicianName "
    "OperatorsName PerformingPhysicianName PhysiciansOfRecord NameOfPhysiciansReadingStudy RequestingPhysician "
    "ResponsiblePerson "
    "PersonName VerifyingObserverName ScheduledPerformingPhysicianName ConsultingPhysicianName",
    "id": "PatientID OtherPatientIDs AccessionNumber StudyID AdmissionID MilitaryRank MedicalRecordLocator "
    "RequestedProcedureID PerformedProcedureStepID DeviceSerialNumber InsurancePlanIdentification "
    "IssuerOfPatientID StudyInstanceUID SeriesInstanceUID SOPInstanceUID FrameOfReferenceUID",
    "date": "PatientBirthDate",
    "contact": "PatientAddress PatientTelephoneNumbers PersonAddress PersonTelephoneNumbers ReferringPhysicianAddress "
    "ReferringPhysicianTelephoneNumbers InstitutionAddress InstitutionName CountryOfResidence",
}
_ALSO = "PatientComments ImageComments StudyComments AdditionalPatientHistory RequestAttributesSequence"


class Private:
    """Identifying values and their tokens. `values`: letters and digits, parted by blanks -> token."""

    def __init__(self, values: Mapping[str, str] = {}):
        self.values: dict[str, str] = {}
        self._counts: Counter[str] = Counter()
        self._starts: dict[str, list[tuple[str, ...]]] = {}
        self.learn(values)

    def learn(self, values: Mapping[str, str]) -> None:
        """Take over values with their tokens."""
        for value, token in values.items():
            if value not in self.values:
                self.values[value] = token
                self._begin(value)
                kind, _, number = token.strip(">").partition("-")
                self._counts[kind] = max(self._counts[kind], int(number))

    def add(self, kind: str, value: str) -> None:
        """One more value; of a person's name its parts, too."""
        runs = [run.lower() for run in _RUN.findall(value)]
        text = " ".join(runs)
        if len(self.values) >= MOST_VALUES or sum(map(len, runs)) < (LEAST_LETTERS if kind == "name" else LEAST_SIGNS):
            return
        if not (token := self.values.get(text)):
            self._counts[f"<{kind}"] += 1
            token = f"<{kind}-{self._counts[f'<{kind}']}>"
        forms = [text]
        if kind == "name":
            forms += [run for run in runs if len(run) >= LEAST_LETTERS and run.isalpha()]
            forms += ["".join(runs), "".join(runs[::-1])]
        if kind == "date" and (digits := "".join(runs)).isdigit():
            forms += [digits, *([f"{digits[:4]} {digits[4:6]} {digits[6:]}"] if len(digits) == 8 else [])]
        for form in forms:
            if form and form not in self.values:
                self.values[form] = token
                self._begin(form)

    def protect(self, texts: Iterable[str]) -> None:
        """Never replace these: names of classes, and the words of the request."""
        for text in texts:
            runs = [run.lower() for run in _RUN.findall(text)]
            for value in (" ".join(runs), *runs):
                if self.values.pop(value, None):
                    self._starts[value.split(" ")[0]].remove(tuple(value.split(" ")))

    def hide(self, text: str) -> str:
        """The text with tokens in place of values."""
        if not self.values:
            return text
        runs = list(_RUN.finditer(text))
        out, end, place = [], 0, 0
        while place < len(runs):
            for value in self._starts.get(runs[place].group().lower(), ()):
                found = runs[place : place + len(value)]
                if tuple(run.group().lower() for run in found) == value and _near(text, found):
                    out += [text[end : found[0].start()], self.values[" ".join(value)]]
                    end = found[-1].end()
                    place += len(value) - 1
                    break
            place += 1
        return "".join([*out, text[end:]])

    def _begin(self, value: str) -> None:
        runs = tuple(value.split(" "))
        starts = self._starts.setdefault(runs[0], [])
        starts.append(runs)
        starts.sort(key=len, reverse=True)


def _near(text: str, runs: Sequence[re.Match[str]]) -> bool:
    """Whether no more than three signs stand between the parts."""
    return all(after.start() - before.end() <= 3 for before, after in pairwise(runs))


# ------------------------------------------------------------------------------------------------ where values stand
def kind_of_column(name: str) -> str | None:
    """Of what kind the values under this name are, if they tell who somebody is."""
    said = words(name) or [name.lower()]
    return next((_WORDS[word] for word in said[::-1] if word in _WORDS), None)


def of_rows(private: Private, columns: Iterable[str], rows: Sequence[Mapping[str, str]]) -> None:
    """Cells of the columns that name persons, and cells anywhere that are written as DICOM writes names."""
    for column in columns:
        kind = kind_of_column(column)
        for cell in dict.fromkeys(row[column].strip() for row in rows):
            if len(cell.split()) > MOST_WORDS:
                continue
            if "^" in cell:
                private.add("name", cell)
            elif kind == "name":
                if " " in cell and not any(map(str.isdigit, cell)):
                    private.add("name", cell)
            elif kind == "id" and not any(map(str.isdigit, cell)):
                if len(_RUN.findall(cell)) > 1:
                    private.add("name", cell)
            elif kind:
                private.add(kind, cell)


def of_json(private: Private, data: Any, name: str = "") -> None:
    """Values under keys that name persons."""
    if isinstance(data, Mapping):
        for key, value in data.items():
            of_json(private, value, str(key))
    elif isinstance(data, list):
        for value in data[:1000]:
            of_json(private, value, name)
    elif isinstance(data, str):
        of_rows(private, [name], [{name: data}])
        of_text(private, data)


def of_text(private: Private, text: str) -> None:
    """Names that a title or a word such as "patient" leads, telephone numbers, and streets with their numbers."""
    for found in _TITLED.finditer(text):
        titled = found[0][:2].lower() in ("dr", "pr", "mr", "ms")
        if found[1][0].isupper() and (titled or " " in found[1] or "^" in found[1]):
            private.add("name", found[1])
    for found in (*_PHONE.finditer(text), *_STREET.finditer(text)):
        private.add("contact", found[found.re.groups])


def of_dicom(private: Private, files: Iterable[Path]) -> None:
    """The tags of PS3.15's basic profile, and every private tag and comment."""
    import pydicom
    from pydicom.errors import InvalidDicomError

    for file in files:
        try:
            dataset = pydicom.dcmread(file, stop_before_pixels=True)
            for kind, tags in DICOM_TAGS.items():
                for tag in tags.split():
                    for value in _several(dataset.get(tag)):
                        private.add(kind, value)
            for element in dataset.iterall():
                if element.VR == "PN":
                    for value in _several(element.value):
                        private.add("name", value)
                elif element.tag.is_private or element.keyword in _ALSO.split():
                    for value in _several(element.value):
                        of_rows(private, ["private"], [{"private": value}])
        except (InvalidDicomError, OSError, ValueError, AttributeError, KeyError, NotImplementedError):
            continue  # what is wrong with the file is told where it is measured


def _several(value: Any) -> list[str]:
    if value is None or isinstance(value, bytes):
        return []
    return [str(part) for part in ([value] if isinstance(value, str) or not isinstance(value, Sequence) else value)]


# ------------------------------------------------------------------------------------------------ the run's own
_NOTHING = Private()
_current: ContextVar[Private] = ContextVar("identifying values of the dataset at hand", default=_NOTHING)


@contextmanager
def hiding(private: Private) -> Iterator[Private]:
    """Inside, `hidden` replaces these values, and those that are added; an error that leaves carries tokens, too."""
    token = _current.set(private)
    try:
        yield private
    except (M3Error, Stopped) as error:
        error.args = (hidden(str(error)),)
        raise
    finally:
        _current.reset(token)


def current() -> Private:
    """The values that `hidden` replaces here; threads begin without."""
    return _current.get()


def hidden(value: Any) -> Any:
    """Text, or lists and dicts of it, with tokens in place of what identifies; keys stay."""
    private = current()
    if not private.values:
        return value
    if isinstance(value, str):
        return private.hide(value)
    if isinstance(value, dict):
        return {key: hidden(entry) for key, entry in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(hidden(entry) for entry in value)
    return value


def write(private: Private, path: Path) -> None:
    """Keep the values, for this user's eyes only."""
    new = path.with_name(f".{path.name}.{os.getpid()}")
    new.unlink(missing_ok=True)
    file = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(file, "w") as opened:
        json.dump(private.values, opened, ensure_ascii=False)
        opened.flush()
        os.fsync(file)
    new.replace(path)


def read(path: Path) -> Private:
    """The values kept with a run; none where it has none yet."""
    try:
        return Private(TypeAdapter(Values).validate_json(path.read_bytes()))
    except (FileNotFoundError, ValidationError):
        return Private()
