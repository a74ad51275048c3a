"""PyTorch tensors and a CSV with the class and an official split in two letters."""

import numpy as np

from m3dspy.m3bench import phantom
from m3dspy.m3bench.layouts._files import save_table
from m3dspy.m3bench.layouts._tools import Case, Draft, Made, explained
from m3dspy.m3bench.task import Facts
from m3dspy.signatures.values import Source
from m3dspy.workspace.indexes.splitting import SPELLINGS

TASK, DIMS, MODALITIES = "classification", 3, ()


def write(draft: Draft) -> Made:
    """`tensors/I10231.pt`; most subjects came more than once."""
    folder, table = draft.choose("tensors", "pt"), draft.choose("subjects.csv", "visits.csv")
    column, split, written = draft.choose("Group", "Status"), draft.choose("fold", "set"), draft.spelled()
    cases, rows, shape, dealt = [], [], draft.shape, {}
    for shot in draft.shots(lambda number: f"{number}_S_{number[::-1]}", each=(1, 3)):
        visits = dealt.setdefault(shot.label, {})
        part = visits.setdefault(shot.patient, ("tr", "ts", "tr", "dev")[len(visits) % 4])
        name = f"I{10_000 + 17 * shot.place}"
        volume = draft.scanned(draft.image(shot, shape)).astype(np.float32)
        phantom.save_tensor(draft.file(f"{folder}/{name}.pt"), volume if shot.place % 7 else volume[None])
        rows.append(
            {
                "Image ID": name,
                "Subject": shot.patient,
                column: written[shot.label],
                "Sex": draft.choose("F", "M"),
                split: part,
            }
        )
        cases.append(Case(f"{folder}/{name}.pt", shot.patient, written[shot.label], SPELLINGS[part]))
    save_table(draft.file(table), rows)
    meaning = f"`{column}` of `{table}`: {explained(written)}. `{split}` is the official division (tr, dev, ts)."
    draft.readme(meaning)
    about = f"{meaning} `Image ID` names the tensor in `{folder}`; `Subject` came up to three times."
    source = Source(kind="table", path=table, column=column, file_column="Image ID")
    return Made(cases, tuple(written.values()), Facts(draft.topic.modality, source, "Subject"), about)
