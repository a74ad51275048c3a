"""What every role is asked when a check found its answer wanting."""

from typing import Literal

import dspy


class Repair(dspy.Signature):
    """Find out why a check refused this piece of work, and say how to mend it.

    Read the complaint literally; it comes from a validator or from the log of a script. Blame `here` if this role can
    mend it by answering again. Blame an earlier stage only if its result makes a right answer impossible: `plan` (wrong
    task, labels or patient key), `index` (wrong items, labels or split), `design` (settings that cannot run on this
    data).
    """

    role: str = dspy.InputField(desc="whose work it is")
    work: str = dspy.InputField(desc="the answer that was refused")
    complaint: str = dspy.InputField(desc="the validator's words, or the last lines of the log")
    blame: Literal["here", "plan", "index", "design"] = dspy.OutputField()
    advice: str = dspy.OutputField(desc="what to do differently, one or two sentences")
