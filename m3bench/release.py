"""A dataset as a candidate gets it, and the answers apart from it.

HOME/public/train/      the dataset's own layout, without anything that tells of a test case
HOME/public/test/       the images of the test cases under numbers, in an order that tells nothing
HOME/public/test.json   a list of {"id", "image"}
HOME/public/task.json   the task, its labels and their voxel values
HOME/public/sample/     a well-formed submission that is worth nothing
HOME/private/           the index with the answers, its masks, and what only a phantom's generator knows
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from m3dspy.m3bench.task import BenchTask
from m3dspy.signatures.values import Grade, Index


@dataclass(frozen=True)
class Release:
    """A released dataset. home: has the folders public/ and private/; what is not here yet is made by `release`."""

    home: Path

    @property
    def public(self) -> Path:
        return self.home / "public"

    @property
    def private(self) -> Path:
        return self.home / "private"

    def given(self) -> Index:
        """The test cases as a candidate is given them, without answers; paths relative to `public`."""
        raise NotImplementedError

    def index(self) -> Index:
        """Every case with its answer; the test cases under their numbers; paths relative to `home`."""
        raise NotImplementedError

    def own(self) -> Index:
        """The same with the dataset's own ids and paths, in the same order."""
        raise NotImplementedError

    def phantom(self) -> bool:
        raise NotImplementedError

    def oracle(self) -> float | None:
        """The best score that the phantom allows on the test cases; None for real data or if not known."""
        raise NotImplementedError


def release(task: BenchTask, data: Path, home: Path, seed: int = 0) -> Release:
    """Release a dataset, real or phantom; a release that is there already is kept. `data` is never written to."""
    raise NotImplementedError


def validate(released: Release, predictions: Path) -> list[str]:
    """What is not well-formed about a submission, from the public files alone; []: nothing. It never tells a score."""
    raise NotImplementedError


def graded(
    released: Release,
    predictions: Path,
    *,
    checkpoint: Path | None = None,
    control: Path | None = None,
    seed: int = 0,
) -> Grade:
    """Grade a submission against the private answers; see m3bench.grade."""
    raise NotImplementedError
