"""Training, validation and test lists in which no patient stands twice; caps on how many cases each may hold."""

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from hashlib import blake2b
from itertools import zip_longest

from m3dspy.errors import DataError
from m3dspy.signatures.values import SPLITS, Split
from m3dspy.workspace.indexes.cases import case_of, ids, left_out
from m3dspy.workspace.sources import IMAGE_SUFFIXES

SPELLINGS: dict[str, Split] = {
    **dict.fromkeys(("train", "training", "tr"), "training"),
    **dict.fromkeys(("val", "valid", "validation", "dev"), "validation"),
    **dict.fromkeys(("test", "testing", "ts"), "test"),
}


def split(
    items: Sequence[dict], *, seed: int = 0, validation: float = 0.15, test: float = 0.2
) -> dict[str, list[dict]]:
    """Three lists: training, validation, test. A patient is never divided; each class is spread in proportion.

    `validation`, `test`: shares of the cases. Items that carry a `split` (split_column, lists of a JSON file) keep it;
    what else is needed is carved out of training cases. An official split that divides a patient, or leaves a class out
    of the test cases, is said and not used.

    Example: splits = ix.split(items, seed=0, validation=0.15, test=0.2)
    """
    if not (validation > 0 and test > 0 and validation + test < 1):
        raise DataError(f"validation={validation} and test={test} must be above 0 and leave room for training.")
    if len({item["id"] for item in items}) < len(items):
        named = ids([case_of(item) for item in items], slices=False)
        items = [item | {"id": name} for item, name in zip(items, named, strict=True)]
    given = _given(items)
    shares: dict[Split, float] = {"test": test, "validation": validation}
    shares = {name: share for name, share in shares.items() if name not in given.values()}
    dealt = given
    if shares:
        dealt = given | _deal([item for item in items if given[item["patient"]] == "training"], shares, seed)
    lists: dict[str, list[dict]] = {name: [] for name in SPLITS}
    for item in items:
        lists[dealt[item["patient"]]].append({key: item[key] for key in item if key != "split"})
    return lists


def cap(
    splits: Mapping[str, Sequence[dict]],
    *,
    training: int | None = None,
    test: int | None = None,
    balanced: bool = False,
    seed: int = 0,
) -> dict[str, list[dict]]:
    """At most `training` and `test` cases, of as many patients as possible; `balanced`: spread evenly over the classes.

    Example: splits = ix.cap(splits, training=1000, test=200, balanced=True)
    """
    most = {"training": training, "test": test}
    return {name: _drawn(name, cases, most.get(name), balanced, seed) for name, cases in splits.items()}


def labels_of(item: Mapping) -> tuple[str, ...]:
    """The classes of an item; none where its label is a mask."""
    label = item["label"]
    words = (label,) if isinstance(label, str) else tuple(label or ())
    return () if words and words[0].lower().endswith(IMAGE_SUFFIXES) else words


def split_named(word: str, where: str) -> Split:
    """The split that a dataset calls `word`.

    Raises: DataError: no split is called so.
    """
    if word.strip().lower() not in SPELLINGS:
        raise DataError(f"{where} calls a split {word!r}; known are train, val and test. Leave split_column out.")
    return SPELLINGS[word.strip().lower()]


def _given(items: Sequence[Mapping]) -> dict[str, Split]:
    """Patient -> the split that the dataset gives; training where it gives none, or one that cannot be used."""
    lists: dict[str, set[Split]] = defaultdict(set)
    classes: dict[Split, set[str]] = defaultdict(set)
    for item in items:
        here: Split = item.get("split", "training")
        lists[item["patient"]].add(here)
        classes[here].update(labels_of(item))
    if divided := sum(len(found) > 1 for found in lists.values()):
        why = f"it puts {divided} of {len(lists)} patients into several lists"
    elif "test" in classes and (missing := sorted(classes["training"] - classes["test"])):
        why = f"its test cases hold no {', '.join(missing[:6])}"
    else:
        return {patient: next(iter(found)) for patient, found in lists.items()}
    print(f"the dataset's own split is not used: {why}")
    return dict.fromkeys(lists, "training")


def _rank(patient: str, seed: int) -> bytes:
    return blake2b(f"{seed}:{patient}".encode(), digest_size=8).digest()


def _deal(pool: Sequence[Mapping], shares: Mapping[Split, float], seed: int) -> dict[str, Split]:
    """Patient -> split, class by class from the rarest on: each patient goes where most cases of the class are wanting.

    A class of few patients serves training first, then test, then validation. A patient with so many cases that a
    share would be passed by more than it is now missed goes to training.
    """
    cases: dict[str, Counter[str]] = defaultdict(Counter)
    for item in pool:
        cases[item["patient"]].update(labels_of(item) or ("",))
    people = sorted(cases, key=lambda patient: _rank(patient, seed))
    share_of: dict[Split, float] = {"training": 1 - sum(shares.values()), **shares}
    order: list[Split] = ["training", *shares]
    if len(people) < len(order):
        raise DataError(f"{len(people)} patients cannot fill {' and '.join(order)}; at least {len(order)} are needed.")
    of_class = {label: [p for p in people if label in cases[p]] for label in sorted(set().union(*cases.values()))}
    for label, members in of_class.items():
        if label and len(members) < 2:
            raise DataError(f"Class {label!r} has {len(members)} patient; at least 2 are needed, to train and to test.")

    dealt: dict[str, Split] = {}
    have: Counter[tuple[Split, str]] = Counter()
    for label, members in sorted(of_class.items(), key=lambda entry: len(entry[1])):
        total = sum(cases[patient][label] for patient in members)
        waiting = [patient for patient in members if patient not in dealt]
        for number, patient in enumerate(waiting):
            room = {name: total * share_of[name] - have[name, label] for name in order}
            bare: list[Split] = [name for name in order[: len(members)] if not have[name, label]]
            fits: list[Split] = [
                name for name in order if name == "training" or cases[patient][label] <= 2 * room[name]
            ]
            to = bare[0] if len(waiting) - number <= len(bare) else max(fits, key=lambda name: room[name])
            dealt[patient] = to
            for held, count in cases[patient].items():
                have[to, held] += count
    if empty := [name for name in order if name not in dealt.values()]:
        raise DataError(f"{len(people)} patients leave {empty[0]} empty; give every class at least 3 patients.")
    return dealt


def _drawn(name: str, cases: Sequence[dict], most: int | None, balanced: bool, seed: int) -> list[dict]:
    """At most `most` cases: the first of every patient before the second of any, the classes in turn if `balanced`."""
    if most is None or len(cases) <= most:
        return list(cases)
    visits: Counter[tuple] = Counter()
    queues: dict[tuple[str, ...], list] = defaultdict(list)
    for number, item in enumerate(cases):
        kind = labels_of(item) if balanced else ()
        visits[kind, item["patient"]] += 1
        queues[kind].append((visits[kind, item["patient"]], _rank(item["patient"], seed), number))
    rounds = zip_longest(*(sorted(queues[kind]) for kind in sorted(queues)))
    drawn = [entry[-1] for turn in rounds for entry in turn if entry is not None][:most]
    left_out(
        [repr(cases[number]["id"]) for number in sorted(set(range(len(cases))) - set(drawn))],
        f"{name} cases over the cap",
    )
    return [cases[number] for number in sorted(drawn)]
