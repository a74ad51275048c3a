"""Where a dataset says which images are of one patient: a column of a table, DICOM's header, a folder, a file name."""

import re
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path

from m3dspy.signatures.values import PatientKey
from m3dspy.workspace.indexes.cases import stem
from m3dspy.workspace.looking.columns import Seen, is_missing, names_person
from m3dspy.workspace.looking.measuring import Measured, spread
from m3dspy.workspace.looking.tree import Family
from m3dspy.workspace.patterns import SPLIT_WORDS, tokens, word_set, words
from m3dspy.workspace.sources import dicom

STUDY_WORDS = word_set("id uid exam study case accession scan")
BUCKET = 100  # pictures a folder; a folder of more is no patient's
LEAST_PATIENTS, ENOUGH_PATIENTS = 4, 10
HEADERS, RUN = 2000, 8  # images whose header is read, in runs of neighbours
LEAST_REPEATS = 1.2  # images a patient, from which on part of a file name is a key
_VISITS = r"([^/]+)[_-](?i:MR|visit|ses|session|tp|v)-?\d+/"  # a folder a visit: OAS1_0001_MR1, OAS1_0001_MR2
_KNOWN = (r"(\d{3}_S_\d{4})", r"(TCGA-\w\w-\w{4})")  # ADNI's and TCGA's patient ids, wherever they stand
_SEQUENCE = r"^(.+)[-_](?i:t1|t1n|t1c|t1ce|t2|t2w|t2f|flair|dwi|adc|swi|pd)\."  # a name that ends in an MR sequence


def patient_keys(root: Path, images: Sequence[Measured], tables: Sequence[Seen]) -> list[PatientKey]:
    """Every place where the patient can be read off, the surest first."""
    columns = [key for seen in tables for key in _columns(seen)]
    sure = [key for key in columns if names_person(key.column)]
    likely = [key for key in columns if not names_person(key.column)]
    paths: dict[tuple[str, str], PatientKey] = {}
    for key in (_across(images), *(key for found in images for key in _of_family(found))):
        if key:
            paths.setdefault((key.where, key.part), key)
    folders = [key for key in paths.values() if key.part == _VISITS]
    folders += [key for key in paths.values() if key.where == "folder"]
    names = [key for key in paths.values() if key.where == "file name" and key not in folders]
    return sure + _header(root, images) + folders + names + likely


def _header(root: Path, images: Sequence[Measured]) -> list[PatientKey]:
    """DICOM's PatientID, where every image has one and some share it."""
    if any(found.family.format != "dicom" for found in images):
        return []
    people = []
    for file in spread([files[0] for found in images for files in found.cases.values()], HEADERS, RUN):
        with suppress(ValueError):  # what is wrong with a file is told where it is measured
            people.append(dicom.patient(root / file))
    patients = len(set(people))
    if not all(people) or not LEAST_PATIENTS <= patients < len(people):
        return []
    return [PatientKey(where="header", part="PatientID", patients=patients, images=len(people))]


def _of_family(found: Measured) -> Iterator[PatientKey | None]:
    cases = list(found.cases)
    yield _folder(found.family, cases)
    yield _file_name(cases)
    yield _visits(cases)


def _across(images: Sequence[Measured]) -> PatientKey | None:
    """A rule for the names of several groups of one format at once: for the sequences of a case, its two scans ..."""
    if not images or len({(found.family.format, found.family.stacks) for found in images}) > 1 or len(images) == 1:
        return None
    return _file_name([case for found in images for case in found.cases])


def patients_of(found: Measured) -> dict[str, str]:
    """Case -> patient, as far as the path says so; else each case is its own."""
    cases = list(found.cases)
    if key := _visits(cases):
        return {case: hit[1] for case in cases if (hit := re.search(key.part, case))}
    if place := _place(found.family):
        return {case: case.split("/")[place] for case in cases}
    if key := _file_name(cases):
        return {case: _searched(key.part, case) for case in cases}
    return {case: case for case in cases}


def _columns(seen: Seen) -> Iterator[PatientKey]:
    file_column = seen.file_column
    if not file_column:
        return
    for name, column in zip(seen.names, seen.table.columns, strict=True):
        if column.kind != "identifier" or name == file_column:
            continue
        named = [
            (case, row[name].strip())
            for case, row in zip(seen.cases[file_column], seen.rows, strict=True)
            if case and not is_missing(row[name])
        ]
        patients, images = len({patient for _, patient in named}), len({case for case, _ in named})
        repeats = 1 < patients < images and STUDY_WORDS.intersection(words(name))
        if patients and (names_person(name) or repeats):
            yield PatientKey(
                where="column", table=seen.table.path, column=column.name, patients=patients, images=images
            )


# ------------------------------------------------------------------------------------------------ paths
def _place(family: Family) -> int | None:
    """Which part of the path is the patient's folder: the first that varies, classes and official parts aside."""
    for place, part in enumerate(family.parts):
        if part.kind == "id" and not all(SPLIT_WORDS.intersection(words(name)) for name in _at(place, family.files)):
            folders = {file.rpartition("/")[0] for file in family.files}
            return place if family.stacks or len(family.files) < BUCKET * len(folders) else None
    return None


def _folder(family: Family, cases: Sequence[str]) -> PatientKey | None:
    place = _place(family)
    if place is None:
        return None
    patients = len(_at(place, cases))
    if any(part.kind == "id" for part in family.parts[:place]):
        part = rf"^(?:[^/]+/){{{place}}}([^/]+)/"
        return PatientKey(where="file name", part=part, patients=patients, images=len(cases))
    return PatientKey(where="folder", part=family.parts[place].pattern, patients=patients, images=len(cases))


def _at(place: int, paths: Sequence[str]) -> set[str]:
    return {path.split("/")[place] for path in paths}


def _visits(cases: Sequence[str]) -> PatientKey | None:
    """The folder's name less the visit that it ends in, where some patient came twice."""
    hits = [re.search(_VISITS, case) for case in cases]
    patients = len({hit[1] for hit in hits if hit})
    if not all(hits) or len({hit[0] for hit in hits if hit}) == patients:
        return None
    return PatientKey(where="file name", part=_VISITS, patients=patients, images=len(cases))


def _file_name(cases: Sequence[str]) -> PatientKey | None:
    """A regular expression with one group that finds fewer patients than images, in every name."""
    names = [case.rpartition("/")[2] for case in cases]
    best = None
    for rule in (*_KNOWN, *_rules(names), _SEQUENCE):
        hits = [re.search(rule, name) for name in names]
        if not all(hits):
            continue
        found = [hit[1] for hit in hits if hit]
        patients = len(set(found))
        if patients < LEAST_PATIENTS or not (len(names) >= LEAST_REPEATS * patients or _counted(names, found)):
            continue
        key = PatientKey(where="file name", part=rule, patients=patients, images=len(names))
        if patients >= ENOUGH_PATIENTS:
            return key
        if best is None or patients > best.patients:
            best = key
    return best


def _counted(names: Sequence[str], patients: Sequence[str]) -> bool:
    """Whether somebody has several images, and everybody's are counted from 0 or 1 on: P7_1, P7_2, P8_1, P9_1."""
    counts: dict[str, list[int]] = {}
    for name, patient in zip(names, patients, strict=True):
        hit = re.search(r"(\d+)\D*$", stem(name))
        counts.setdefault(patient, []).append(int(hit[1]) if hit else -1)
    ordered = [sorted(found) for found in counts.values()]
    first = ordered[0][0]
    return (
        first in (0, 1)
        and len(counts) < len(names)
        and all(found == list(range(first, first + len(found))) for found in ordered)
    )


def _searched(rule: str, case: str) -> str:
    hit = re.search(rule, case.rpartition("/")[2])
    return hit[1] if hit else case


def _rules(names: Sequence[str]) -> Iterator[str]:
    """For each number of the names but the last: what leads up to it, where that is the same; else the number alone.

    Longer parts come later: a patient before the patient's scan.
    """
    lists = [tokens(stem(name)) for name in names]
    if not lists or len(set(map(len, lists))) > 1:
        return
    lead, places = "", list(zip(*lists, strict=True))
    number_places = [i for i, place in enumerate(places) if all(token[0].isdigit() for token in place)]
    constant = True
    for i, place in enumerate(places):
        if i in number_places:
            if i == number_places[-1]:
                return
            after = re.escape(places[i + 1][0]) if len(set(places[i + 1])) == 1 else r"(?!\d)"
            yield f"^({lead}\\d+){after}" if constant else f"^{lead}(\\d+){after}"
            lead += r"\d+"
        elif len(set(place)) == 1:
            lead += re.escape(place[0])
        elif SPLIT_WORDS.issuperset(token.lower() for token in place):  # train_1 and valid_1 are two
            lead += f"(?:{'|'.join(sorted(set(place)))})"
        elif all(token[0].isalpha() for token in place):
            lead, constant = lead + r"[^\W\d_]+", False
        else:
            return
