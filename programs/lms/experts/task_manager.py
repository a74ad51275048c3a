"""The rules of the Task Manager: what a request asks, what a folder can teach, and whether the two meet."""

import json
import re
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, get_args

from m3dspy.programs.lms.experts import anomalies, reports, words
from m3dspy.programs.lms.experts.data_engineer import file_column, is_split
from m3dspy.signatures.values import (
    ANOMALY_LABELS,
    Caps,
    ClassFolders,
    Column,
    DataCard,
    Fingerprint,
    Group,
    Pair,
    PatientKey,
    Plan,
    Source,
    Task,
)
from m3dspy.workspace.indexes.cases import stem
from m3dspy.workspace.looking.columns import names_person
from m3dspy.workspace.patterns import MASK_WORDS, SPLIT_WORDS
from m3dspy.workspace.patterns import words as name_words

_LABEL_COLUMN = re.compile(r"label|class|diag|group|dx|grade|target|categor|finding|patholog|disease|status", re.I)
_SESSION = {"session", "sessions", "visit", "visits", "timepoint"}
_OWN_NAME = re.compile(r"`([^`]+)`")


class _Refusal(Exception):
    """Why this data cannot serve the request."""


@dataclass(frozen=True)
class _Labels:
    """One way to read class labels off the folder: label -> number of cases."""

    source: Source
    counts: Mapping[str, int]
    rank: float


def make_plan(request: str, fingerprint: Fingerprint, cards: list[DataCard], complaint: str) -> dict[str, Any]:
    """A plan, or a refusal."""
    request = words.meant(request)
    try:
        if beyond := words.beyond(request):
            raise _Refusal(
                f"The request asks for {beyond}; no model for that can be built here: {_holdings(fingerprint)}."
            )
        return {"plan": _plan(request, fingerprint, _card(request, fingerprint, cards)), "refusal": ""}
    except _Refusal as reason:
        return {"plan": None, "refusal": str(reason)}


def _plan(request: str, fingerprint: Fingerprint, card: DataCard | None) -> Plan:
    known = card.text if card else " ".join(document.text for document in fingerprint.documents)
    task = words.task_of(request) or ("segmentation" if fingerprint.pairs else "classification")
    if task not in get_args(Task):
        raise _Refusal(
            f"The request asks for {task}; models for classification, segmentation, anomaly detection and report "
            "generation can be built."
        )
    if task == "segmentation" and not fingerprint.pairs:
        raise _Refusal(f"The request asks to mark structures, but there are no masks: {_holdings(fingerprint)}.")
    _same_subject(request, known, fingerprint)
    if task == "anomaly_detection":
        return _anomalies(request, known, fingerprint, card)
    if task == "report_generation":
        return _reports(request, fingerprint, card)
    return (
        _segmentation(request, fingerprint, card)
        if task == "segmentation"
        else _classification(request, fingerprint, card)
    )


def _segmentation(request: str, fingerprint: Fingerprint, card: DataCard | None) -> Plan:
    pair = _pair(request, fingerprint, card)
    boxes = bool(fingerprint.unpacked and fingerprint.unpacked.boxes)
    if boxes and (asked := words.shape(request)):
        raise _Refusal(
            f'The request says "{asked}", but the masks are boxes drawn around what was found: they can teach where '
            "something is, and not its shape or size."
        )
    names = _mask_names(request, fingerprint, card, pair)
    _same_disease(request, " ".join(names.values()), fingerprint, card)
    group = _group(fingerprint, pair.image)
    asked = {value: name for value, name in names.items() if words.named(name, request)}
    if not asked and not words.unspecific(request) and _organs(request):
        raise _Refusal(f"The masks hold {', '.join(names.values())}; what the request names is not among them.")
    chosen = names if words.everything(request) else asked or names
    source = _listed(fingerprint, pair) or Source(kind="masks", path=pair.mask)
    return Plan(
        task="segmentation",
        goal=f"Mark {'the boxes around ' if boxes else ''}{', '.join(chosen.values())}.",
        card=card.name if card else None,
        modality=_modality(request, group, card),
        dims=group.dims,
        images=group.pattern,
        labels=tuple(chosen.values()),
        label_values=tuple(str(value) for value in chosen),
        source=source,
        patient=_patient(fingerprint, group, source.path),
        caps=_caps(card),
        sided=any(re.search(r"\b(left|right)\b", name, re.I) for name in chosen.values()),
    )


def _listed(fingerprint: Fingerprint, pair: Pair) -> Source | None:
    """The list of cases that names both files of a pair, where it gives more than the names do: splits or patients."""
    for table in fingerprint.tables:
        named = {column.names_files for column in table.columns}
        more = [column for column in table.columns if is_split(column) or names_person(column.name)]
        if table.path.endswith(".json") and {pair.image, pair.mask} <= named and more:
            return Source(kind="json", path=table.path)
    return None


def _classification(request: str, fingerprint: Fingerprint, card: DataCard | None) -> Plan:
    ways = _ways(request, fingerprint, card)
    if not ways:
        why = "nothing says a class"
        if orphans := [table.path for table in fingerprint.tables if not any(c.rows_with_file for c in table.columns)]:
            why += f", for no row of {', '.join(orphans[:3])} names an image that is there"
        raise _Refusal(f"The request asks to tell classes apart, but {why}: {_holdings(fingerprint)}.")
    best = max(ways, key=lambda way: way.rank)
    asked = [label for label in best.counts if words.named(label, request)]
    listed = [label for label in best.counts if card and label in _OWN_NAME.findall(_sentence(card.text, "only"))]
    if not asked and words.task_of(request) is None:
        raise _Refusal(f"The request does not say what is to be told apart: {_holdings(fingerprint)}.")
    if not asked or anomalies.sides(request, ClassFolders(parent="", classes=dict(best.counts))) is None:
        _same_disease(request, " ".join(best.counts), fingerprint, card)
    are_words = all(re.fullmatch(r"[^\W\d]{4,}", label) for label in best.counts)  # no codes, which nobody says
    hinted = best.rank or words.named(best.source.column, request)
    if not asked and (not hinted or (are_words and words.contrasts(request))):
        where = f"column {best.source.column}" if best.source.column else "the class folders"
        raise _Refusal(
            f"The request names none of the classes that are there: {', '.join(list(best.counts)[:6])}, of {where}. "
            "Name those to be told apart."
        )
    labels = asked if len(asked) >= 2 else listed if len(listed) >= 2 else list(best.counts)
    if len({label.casefold() for label in labels}) < len(labels):
        raise _Refusal(f"Of the classes {', '.join(labels)}, some differ by capitals only. Spell each in one way.")
    if len(labels) < 2:
        raise _Refusal(f"There is one class only ({', '.join(labels)}), so there is nothing to tell apart.")
    group = _labelled_group(fingerprint, best.source)
    return Plan(
        task="classification",
        goal=f"Tell {', '.join(labels)} apart.",
        card=card.name if card else None,
        modality=_modality(request, group, card),
        dims=group.dims,
        images=group.pattern,
        labels=tuple(labels),
        source=best.source,
        patient=_patient(fingerprint, group, best.source.path),
        caps=_caps(card),
        sided=any(re.search(r"\b(left|right)\b", label, re.I) for label in labels),
    )


def _anomalies(request: str, known: str, fingerprint: Fingerprint, card: DataCard | None) -> Plan:
    shots = words.shots(request)
    if shots == 0:
        raise _Refusal(f"{anomalies.ZERO_SHOT}.")
    found = anomalies.pool(request, fingerprint)
    if found is None:
        raise _Refusal(
            "The request asks to find anomalies, but there is no abnormal support: no two class folders tell normal "
            f"images from abnormal ones, as good and Ungood do; {_holdings(fingerprint)}."
        )
    folders, names = found
    source = Source(kind="folder", path=folders.parent)
    group = _labelled_group(fingerprint, source)
    if group.dims == 3:
        raise _Refusal(f"Anomalies can be found in 2D images only; {group.pattern} is 3D.")
    about = anomalies.about(request, known)
    pairs = [pair for pair in fingerprint.pairs if pair.image == group.pattern]
    masks = [pair.mask for pair in pairs]
    whole = [pair.mask for pair in pairs if 2 * pair.matched > folders.classes[names[1]]]
    if len(whole) > 1:
        raise _Refusal(
            f"There are masks of {len(whole)} kinds, {', '.join(whole)}, and what is abnormal is learnt from one. "
            "Leave one kind only in the folder."
        )
    return Plan(
        task="anomaly_detection",
        goal=f"Find what is abnormal in {about}.",
        card=card.name if card else None,
        modality=_modality(f"{request} {about}", group, card),
        dims=2,
        images=group.pattern,
        labels=ANOMALY_LABELS,
        label_values=names,
        source=source,
        masks=masks[0] if masks else None,
        about=about,
        shots=shots or anomalies.SHOTS,
        patient=_patient(fingerprint, group, source.path),
        caps=_caps(card),
    )


def _reports(request: str, fingerprint: Fingerprint, card: DataCard | None) -> Plan:
    found = reports.texts(request, fingerprint)
    if found is None:
        raise _Refusal(
            "The request asks for report generation, but no table and no JSON list holds the text of reports and "
            f"names their images: {_holdings(fingerprint)}."
        )
    group = _group(fingerprint, found.named.names_files)
    tables = (found.source.path, found.source.files)
    patients = [key for key in fingerprint.patients if key.where != "column" or key.table in tables]
    return Plan(
        task="report_generation",
        goal=f"Write the findings{' and the impression' if found.impression else ''} of each image.",
        card=card.name if card else None,
        modality=_modality(request, group, card),
        dims=group.dims,
        images=group.pattern,
        labels=(),
        source=found.source,
        findings=found.findings,
        impression=found.impression,
        patient=patients[0] if patients else None,
        caps=_caps(card),
        sided=True,
    )


def _ways(request: str, fingerprint: Fingerprint, card: DataCard | None) -> list[_Labels]:
    ways = []
    for table in fingerprint.tables:
        files = max(table.columns, key=lambda column: column.rows_with_file, default=None)
        if files is None or not files.rows_with_file:
            continue
        for column in table.columns:
            if _holds_classes(column) and column is not files:
                source = Source(kind="table", path=table.path, column=column.name, file_column=files.name)
                hints = bool(_LABEL_COLUMN.search(column.name)) + 2 * bool(card and f"`{column.name}`" in card.text)
                ways.append(_Labels(source, column.values, _rank(request, column.values, hints)))
    for folders in fingerprint.class_folders:
        source = Source(kind="folder", path=folders.parent)
        ways.append(_Labels(source, folders.classes, _rank(request, folders.classes, 1.5)))
    return ways


def _holds_classes(column: Column) -> bool:
    """Whether a column's values could be classes: not splits, and not the sessions in which a person came."""
    named = _SESSION.intersection(name_words(column.name))
    return column.kind == "category" and len(column.values) >= 2 and not named and not is_split(column)


def _rank(request: str, counts: Mapping[str, int], hints: float) -> float:
    return 3 * sum(words.named(label, request) for label in counts) / len(counts) + hints


def _card(request: str, fingerprint: Fingerprint, cards: list[DataCard]) -> DataCard | None:
    """The card whose own names (in back-quotes) are those of the folder: two of them and most of them, and the most.

    Of several with one layout, the one whose subject is the request's and which names the files' suffix; else none.
    """
    there = _names(fingerprint)
    found: dict[int, list[DataCard]] = defaultdict(list)
    for card in cards:
        about = anomalies.about("", card.text).lower()
        own = {name.lower().strip("/") for name in _OWN_NAME.findall(card.text) if not name.isdigit()}
        own = {name for name in own if name[-1] not in "-_" and name != about}
        if len(own & there) >= 2 and len(own & there) / len(own) > 0.5:
            found[len(own & there)].append(card)
    best = found[max(found)] if found else []
    if len(best) > 1:
        best = [card for card in best if _could_be_about(request, card.text)]
    if len(best) > 1:
        best = [card for card in best if any(f"`{suffix}`" in card.text for suffix in fingerprint.formats)] or best
    return best[0] if len(best) == 1 else None


def _could_be_about(request: str, text: str) -> bool:
    """Whether a text speaks of a body part and of a kind of image that the request names, as far as it names any."""
    pairs = ((told(request), told(text)) for told in (words.regions, words.modalities))
    return all(asked & there for asked, there in pairs if asked)


def _names(fingerprint: Fingerprint) -> set[str]:
    """Every name that the folder uses for a file, a folder, a column, a class or a cell."""
    paths = [_fixed(group) for group in fingerprint.groups] + [folders.parent for folders in fingerprint.class_folders]
    paths += [table.path for table in fingerprint.tables] + [document.path for document in fingerprint.documents]
    names = {part for path in paths for part in (path, *path.split("/"))}
    names |= {name for group in fingerprint.groups if not re.search(r"[*#?]", name := group.pattern.split("/")[-1])}
    names |= {name for folders in fingerprint.class_folders for name in folders.classes}
    for column in (column for table in fingerprint.tables for column in table.columns):
        names |= {column.name, *column.values}
    return {name.lower() for name in names if name}


def _fixed(group: Group) -> str:
    """The folders of a group's pattern that have a name."""
    return "/".join(part for part in group.pattern.split("/")[:-1] if not re.search(r"[*#?]", part))


def _same_subject(request: str, known: str, fingerprint: Fingerprint) -> None:
    for what, told in (("body part", words.regions), ("modality", words.modalities)):
        asked, there = told(request), told(known)
        if what == "modality" and not there and any("HU" in group.units for group in fingerprint.groups):
            there = {"CT"}
        if asked and there and not asked & there:
            raise _Refusal(
                f"The request is about {_list(asked)}, but this folder is about {_list(there)}: "
                f"{_holdings(fingerprint)}."
            )


def _pair(request: str, fingerprint: Fingerprint, card: DataCard | None) -> Pair:
    """The images and masks to learn from: those that the request names in the masks' path, else the most of them.

    Of several alike those that the card speaks of first, or with most of the labels that the request means. Where
    nothing tells masks of the same images apart, it is a refusal.
    """
    most = max(pair.matched for pair in fingerprint.pairs)

    def fit(pair: Pair) -> tuple:
        said = [
            [words.named(word, request) for word in name.split() if word != "and"] for name in _called(request, pair)
        ]
        named = max(((hits.count(True), -hits.count(False)) for hits in said), default=(0, 0))
        labels = list(_mask_names(request, fingerprint, card, pair).values())
        meant = [label for label in labels if words.named(label, request)]
        if not meant and (words.unspecific(request) or words.everything(request)):
            meant = labels
        return named, pair.matched, -_place(pair, card), len(meant)

    fits = [(fit(pair), pair) for pair in fingerprint.pairs if 2 * pair.matched > most]
    best, pair = max(fits, key=lambda entry: entry[0])
    alike = [other.mask for how, other in fits if how == best and other.image == pair.image]
    if len(alike) > 1:
        raise _Refusal(
            f"There are masks of {len(alike)} kinds, and the request names {'several' if best[0][0] else 'none'} of "
            f"them: {', '.join(alike)}. Name one as its files are called, or leave one kind only in the folder."
        )
    return pair


def _place(pair: Pair, card: DataCard | None) -> int:
    """Where a card first names both files of a pair, so that of several the one it speaks of first is taken."""
    names = [f"`{pattern.rpartition('/')[2]}`" for pattern in (pair.image, pair.mask)]
    return max(card.text.index(name) if name in card.text else len(card.text) for name in names) if card else 0


def _same_disease(request: str, labels: str, fingerprint: Fingerprint, card: DataCard | None) -> None:
    """Refuse a request for diseases of which neither the labels nor what is told of the data knows one."""
    told = card.text if card else " ".join(document.text for document in fingerprint.documents)
    asked, there = words.diseases(request), words.diseases(f"{told} {labels}")
    if told and asked and not asked.keys() & there.keys():
        raise _Refusal(
            f"The request is about {_list(set(asked.values()))}; the labels are {', '.join(labels.split())}, "
            f"and nothing here tells of the former: {_holdings(fingerprint)}."
        )


def _mask_names(request: str, fingerprint: Fingerprint, card: DataCard | None, pair: Pair) -> dict[int, str]:
    """Voxel value -> name, from a label list in the folder, the card, the masks' path, or the values themselves."""
    seen = sorted(int(value) for value in pair.values if int(value) != 0)
    stem = pair.mask.rpartition("/")[2].partition(".")[0]
    own_first = sorted(fingerprint.documents, key=lambda document: stem not in document.path)
    for document in own_first:
        if document.path.endswith((".json", ".txt")) and (names := _label_list(document.text)):
            return names
    told = {
        int(value): name.strip()
        for value, name in re.findall(r"`(\d+)`\s*=?\s*([A-Za-z][\w -]+)", card.text if card else "")
    }
    if not told and len(seen) == 1 and (name := _named_by_path(request, pair)):
        return {seen[0]: name}
    return told or {value: f"structure {value}" for value in seen or [1]}


def _named_by_path(request: str, pair: Pair) -> str:
    """What is to be marked by the request, if a part of the masks' path is called so: `spot` of masks/spot/#.png."""
    asked = _called(request, pair)
    return asked.pop() if len(asked) == 1 else ""


def _called(request: str, pair: Pair) -> set[str]:
    """The parts of the masks' path that are called as something that the request wants marked."""
    folders, _, name = pair.mask.rpartition("/")
    beside = {*MASK_WORDS, *name_words(pair.image)}
    parts = [[word for word in name_words(part) if word not in beside] for part in (*folders.split("/"), stem(name))]
    for where in ("in|on|of|from", "in|on|from"):  # not where it is: "in brain MR", but "segmentation of the lesion"
        wanted = re.split(rf"\b(?:{where})\b", request.lower())[0]
        if asked := {" ".join(part) for part in parts if part and words.named(" ".join(part), wanted)}:
            return asked - {f"{name}s" for name in asked}
    return set()


def _label_list(text: str) -> dict[int, str]:
    try:
        data = json.loads(text)
    except json.JSONDecodeError:
        return {}
    data = data.get("labels", data) if isinstance(data, dict) else data
    if isinstance(data, list) and all(isinstance(name, str) for name in data):
        return {value: name for value, name in enumerate(data, 1) if name.lower() != "background"}
    if isinstance(data, dict):
        pairs = [(key, name) if str(key).isdigit() else (name, key) for key, name in data.items()]
        if all(str(value).isdigit() and isinstance(name, str) for value, name in pairs):
            return {int(value): name for value, name in pairs if int(value) != 0}
    return {}


def _organs(request: str) -> set[str]:
    """Regions that the request names by an organ, not as a whole ("abdominal CT")."""
    return words.regions(re.sub(r"\b(abdom\w*|chest|thora\w*|head|brain)\b", "", request.lower()))


def _group(fingerprint: Fingerprint, pattern: str) -> Group:
    return next(group for group in fingerprint.groups if group.pattern == pattern)


def _labelled_group(fingerprint: Fingerprint, source: Source) -> Group:
    """The images that the labels speak of."""
    images = [group for group in fingerprint.groups if not group.values]
    if source.kind == "folder":
        inside = [group for group in images if group.folder.startswith(source.path)]
    else:
        table = next(table for table in fingerprint.tables if table.path == source.path)
        column = next(column for column in table.columns if column.name == source.file_column)
        inside = [group for group in images if group.pattern == column.names_files]
    return max(inside or images or fingerprint.groups, key=lambda group: group.count)


def _patient(fingerprint: Fingerprint, group: Group, labels: str) -> PatientKey | None:
    """The surest key; a column of another table than that of the labels has to name most of the images."""
    for key in fingerprint.patients:
        if key.where != "column" or key.table == labels:
            return key
        table = next((table for table in fingerprint.tables if table.path == key.table), None)
        named = file_column(table).names_files if table else ""
        if _apart_from_split(named) == _apart_from_split(group.pattern) and 2 * key.images > group.count:
            return key
    return None


def _apart_from_split(pattern: str) -> list[str]:
    """The parts of a path that do not say which official split it is of."""
    return [part for part in pattern.split("/") if not SPLIT_WORDS.intersection(name_words(part))]


def _modality(request: str, group: Group, card: DataCard | None) -> Any:
    for text in (card.text if card else "", request):
        if found := words.modalities(text) & set(get_args(Plan.model_fields["modality"].annotation)):
            return sorted(found)[0] if len(found) > 1 else next(iter(found))
    return "CT" if "HU" in group.units else "other"


def _caps(card: DataCard | None) -> Caps:
    sentence = _sentence(card.text, "at most") if card else ""
    numbers = {
        split: re.search(rf"([\d,]+)\s+{word}", sentence) for split, word in (("training", "train"), ("test", "test"))
    }
    found = {split: int(match.group(1).replace(",", "")) for split, match in numbers.items() if match}
    return Caps(**found, balanced=bool(found) and "balanced" in sentence)


def _sentence(text: str, phrase: str) -> str:
    """The first sentence of a text that holds a phrase."""
    return next((part for part in re.split(r"(?<=[.;])\s", text) if phrase in part.lower()), "")


def _holdings(fingerprint: Fingerprint) -> str:
    images = [f"{group.count} images in {group.pattern}" for group in fingerprint.groups[:3]]
    classes = [", ".join(list(folders.classes)[:6]) for folders in fingerprint.class_folders[:1]]
    columns = [
        f"column {column.name} with {', '.join(list(column.values)[:6])}"
        for table in fingerprint.tables
        for column in table.columns
        if column.kind == "category" and _LABEL_COLUMN.search(column.name)
    ]
    labels = [f"class folders {line}" for line in classes] + columns[:2]
    masks = [f"masks in {pair.mask}" for pair in fingerprint.pairs[:2]]
    return "the folder holds " + "; ".join([*images, *(masks or ["no masks"]), *(labels or ["no class labels"])])


def _list(names: set[str]) -> str:
    return " and ".join(sorted(names))
