"""One folder a class, in it one folder a patient, in it JPEG pictures."""

from m3dspy.m3bench.layouts._files import save_picture
from m3dspy.m3bench.layouts._tools import Case, Draft, Made, explained
from m3dspy.m3bench.task import Facts
from m3dspy.signatures.values import Caps, Source

TASK, DIMS, MODALITIES = "classification", 2, ()


def write(draft: Draft) -> Made:
    """`images/benign/case-231/view2.jpg`; a card may cap the cases."""
    parent, word, written = draft.choose("", "dataset", "study"), draft.choose("case-", "sub-", "pt"), draft.spelled()
    cases, shape = [], draft.shape
    for shot in draft.shots(lambda number: f"{word}{number}", each=(2, 4)):
        path = f"{parent}/{written[shot.label]}/{shot.patient}/view{shot.number}.jpg".lstrip("/")
        save_picture(draft.file(path), draft.image(shot, shape))
        cases.append(Case(path, shot.patient, written[shot.label]))
    caps = Caps(training=draft.choose(12, 16), test=draft.choose(4, 6), balanced=True) if draft.carded else Caps()
    meaning = f"One folder a class ({explained(written)}), below it one folder a patient."
    draft.readme(meaning)
    about = f"{meaning} Use at most {caps.training} training and {caps.test} test images, balanced over the classes."
    facts = Facts(draft.topic.modality, Source(kind="folder", path=parent), "folder", caps=caps)
    return Made(cases, tuple(written.values()), facts, about)
