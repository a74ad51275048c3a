"""What takes part in the benchmark: an assignment in, a submission out.

    DATA/train/     the dataset in its own layout, without the test cases
    DATA/test/      the images of the test cases, under numbers: `test-000012.nii.gz`; slices: `test-000012/0001.png`
    DATA/test.json  a list of {"id": "test-000012", "image": "test/test-000012.nii.gz", ...}
    DATA/sample/    a submission that is well formed, and worth nothing
    OUT/predictions/  what the candidate writes: the form of `sample/`

The answers lie in a folder that no candidate is told of and no sandbox shows.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Literal

from pydantic import Field

from m3dspy.signatures.values import Score, Value


class Assignment(Value):
    """What a candidate is given.

    minutes, dollars, calls: of wall time, for language models; None: as much as it takes.
    """

    request: str
    data: Path
    out: Path
    seed: int = 0
    minutes: float | None = None
    dollars: float | None = None
    calls: int | None = None


class Submission(Value):
    """How a candidate's work ended, in its own words; what counts is what lies in `OUT/predictions/`."""

    status: Literal["done", "refused", "failed"] = "done"
    reason: str = ""
    checkpoint: Path | None = Field(default=None, description="weights of the model, where the candidate has one")
    control: Path | None = Field(
        default=None, description="answers to the same cases after training on shuffled labels, in the same form"
    )
    claimed: Score | None = Field(default=None, description="what the candidate itself measured on cases it held out")
    roles: dict[str, bool] = Field(default_factory=dict, description="role -> whether it reached its goal")
    seconds: float = 0.0
    calls: int = Field(default=0, description="calls to language models")
    dollars: float | None = Field(default=0.0, description="None where a price is not known")
    program: str = ""
    lm: str = ""


Candidate = Callable[[Assignment], Submission]
