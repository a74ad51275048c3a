"""What takes part in the benchmark: an assignment in, a submission out.

    DATA/train/     the dataset in its own layout, without the test cases
    DATA/test/      the images of the test cases, under numbers: `test-000012.nii.gz`; slices: `test-000012/0001.png`
    DATA/test.json  a list of {"id": "test-000012", "image": "test/test-000012.nii.gz"}; slices: their list
    DATA/task.json  the task, the labels in the order of the answers, and the voxel value of each in a mask
    DATA/sample/    a submission that is well formed, and worth nothing
    OUT/predictions/  what the candidate writes: the form of `sample/`

The answers lie in a folder that no candidate is told of and no sandbox shows.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Literal

from pydantic import Field

from m3dspy.signatures.values import Score, Value


class Limits(Value):
    """What one round may take: minutes of wall time, dollars and calls for language models; None: as much as it wants.

    Whoever takes more has failed. After the minutes a round is ended hard, with every process of its own.
    """

    minutes: float | None = Field(default=None, gt=0)
    dollars: float | None = Field(default=None, ge=0)
    calls: int | None = Field(default=None, ge=0)


class Assignment(Value):
    """What a candidate is given. What an interrupted attempt at the same round left in OUT is still there."""

    request: str
    data: Path
    out: Path
    seed: int = 0
    limits: Limits = Limits()


class Submission(Value):
    """How a candidate's work ended, in its own words; what counts is what lies in `OUT/predictions/`."""

    status: Literal["done", "refused", "failed"] = "done"
    reason: str = ""
    checkpoint: Path | None = Field(default=None, description="weights of the model, where the candidate has one")
    control: Path | None = Field(
        default=None, description="answers to the same cases after training on shuffled labels, in the same form"
    )
    claimed: Score | None = Field(default=None, description="what the candidate itself measured on cases it held out")
    index: Path | None = Field(
        default=None, description="index.json of DATA/train, where there is one: judged for patients in two splits"
    )
    roles: dict[str, bool] = Field(default_factory=dict, description="role -> whether it reached its goal")
    seconds: float = 0.0
    calls: int = Field(default=0, description="calls to language models")
    dollars: float | None = Field(default=0.0, description="None where a price is not known")
    program: str = ""
    lm: str = ""


Candidate = Callable[[Assignment], Submission]
