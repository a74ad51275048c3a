"""What the four roles share: ask, check and act, repair."""

import re
from collections.abc import Callable
from typing import TypeVar

import dspy
from dspy.utils.exceptions import AdapterParseError

from m3dspy.errors import DataError, LMFailed, M3Error, RunFailed
from m3dspy.programs.lms.ledger import speaking
from m3dspy.signatures.repair import Repair
from m3dspy.workspace.patterns import masked

T = TypeVar("T")
_CASE_NAME = re.compile(r"\b(?=\w*[A-Za-z_])(?=(?:\w*?\d){3})\w+")  # three digits and a letter: scan_001, 116_S_61
OnRepair = Callable[[str, str], None]


class SentBack(Exception):
    """A role cannot do its work because an earlier one did its own wrong.

    Args: stage: whose result is to blame (plan, index, design).  complaint: what is wrong with it.  cause: the failure.
    """

    def __init__(self, stage: str, complaint: str, cause: M3Error):
        super().__init__(complaint)
        self.stage, self.complaint, self.cause = stage, complaint, cause


class Role(dspy.Module):
    """One of the four agents.

    Args: max_repairs: how often an answer that failed its check may be mended.
    """

    name = ""

    def __init__(self, max_repairs: int = 3):
        super().__init__()
        self.repair = dspy.Predict(Repair)
        self.max_repairs = max_repairs

    def settle(
        self,
        ask: Callable[[str], dspy.Prediction],
        show: Callable[[dspy.Prediction], str],
        act: Callable[[dspy.Prediction], T],
        complaint: str = "",
        on_repair: OnRepair = lambda role, complaint: None,
    ) -> T:
        """Ask, then act on the answer; while acting fails, find out why and ask again.

        Args:
            ask: complaint -> answer.  show: answer -> its text.
            act: answer -> result; raises DataError or RunFailed where a better answer may help.
            complaint: what was wrong with this role's earlier work; empty at first.
            on_repair: told (role, complaint) before every repair.
        Raises: SentBack: an earlier stage is to blame.  DataError, RunFailed, LMFailed: no answer passed.
        """
        refused: dict[str, M3Error] = {}
        for repairs_left in range(self.max_repairs, -1, -1):
            work = ""
            try:
                with speaking(self.name):
                    answer = ask(complaint)
                work = show(answer)
                if work in refused:  # the same answer again: asking on would not end
                    raise refused[work]
                return act(answer)
            except AdapterParseError as error:
                problem = LMFailed(
                    f"The {self.name} gave an answer that cannot be read: {' '.join(str(error).split())[:300]}"
                )
            except (DataError, LMFailed, RunFailed) as error:
                problem = error
            if repairs_left == 0 or work in refused:
                raise problem
            refused[work] = problem
            complaint = complaint_of(problem)
            on_repair(self.name, complaint)
            blame, advice = self._diagnose(work, complaint)
            if blame != "here":
                raise SentBack(blame, f"{complaint}\n{advice}", problem)
            complaint = f"{complaint}\n{advice}"
        raise AssertionError("the loop above returns or raises")

    def _diagnose(self, work: str, complaint: str) -> tuple[str, str]:
        """Whom to blame, and advice. Where that answer cannot be read, the validator's own words must do."""
        try:
            with speaking(self.name):
                fix = self.repair(role=self.name, work=work, complaint=complaint)
        except (AdapterParseError, LMFailed):
            return "here", ""
        return fix.blame, fix.advice


def complaint_of(error: M3Error) -> str:
    """What a language model gets to know of an error: no path of this machine, no name that may identify a patient."""
    text = "\n".join(error.tail) if isinstance(error, RunFailed) and error.tail else str(error)
    return _CASE_NAME.sub(lambda name: re.sub(r"\d", "#", name.group()), masked(text))
