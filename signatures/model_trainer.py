"""What the Model Trainer is asked."""

from typing import Literal

import dspy

from m3dspy.signatures.data_engineer import PythonCode
from m3dspy.signatures.values import Design


class JudgeSmokeRun(dspy.Signature):
    """Read what a smoke run of the training script said, and let the script go or mend it.

    A smoke run takes one training step and one validation case on a few items. `go` when it ended well. Otherwise find
    the cause in the log, change as little as possible, and give the whole mended script: same command line, same
    outputs, same `Settings`. Never make an error disappear by catching it, by skipping data, or by writing results that
    were not computed.
    """

    design: Design = dspy.InputField(desc="what the script is meant to do")
    script: str = dspy.InputField(desc="train.py")
    log: str = dspy.InputField(desc="status and last lines of the smoke run")
    verdict: Literal["go", "repair"] = dspy.OutputField()
    mended: PythonCode = dspy.OutputField(desc="the whole mended train.py; empty with 'go'")
