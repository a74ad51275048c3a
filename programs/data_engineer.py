"""The Data Engineer: a plan in, an index of every case out, by a script it writes."""

from collections.abc import Callable
from pathlib import Path

import dspy
from dspy.utils.exceptions import AdapterParseError

from m3dspy.errors import LMFailed
from m3dspy.programs.lms.ledger import speaking
from m3dspy.programs.role import OnRepair, Role
from m3dspy.signatures.data_engineer import LookCloser, WritePrepare
from m3dspy.signatures.values import Fingerprint, Index, Plan
from m3dspy.workspace import tools
from m3dspy.workspace.indexing import manual

MAX_LOOKS = 6


class DataEngineer(Role):
    """Reads the dataset's own layout, and writes prepare.py."""

    name = "data_engineer"

    def __init__(self, max_repairs: int = 3):
        super().__init__(max_repairs)
        self.look = dspy.ReAct(
            LookCloser, tools=[tools.list_folder, tools.preview, tools.read_table], max_iters=MAX_LOOKS
        )
        self.write = dspy.Predict(WritePrepare)

    def forward(
        self,
        plan: Plan,
        card: str,
        fingerprint: Fingerprint,
        root: Path,
        prepare: Callable[[str], Index],
        complaint: str = "",
        on_repair: OnRepair = lambda role, complaint: None,
    ) -> dspy.Prediction:
        """`index`: the Index; `prepare`: the script that wrote it.

        Args: prepare: runs a script and checks its index; raises DataError or RunFailed.
        """
        notes = self._look_closer(plan, card, fingerprint, root, on_repair)
        index, code = self.settle(
            ask=lambda complaint: self.write(
                plan=plan, card=card, fingerprint=fingerprint, notes=notes, manual=manual(), complaint=complaint
            ),
            show=lambda answer: answer.prepare.code,
            act=lambda answer: (prepare(answer.prepare.code), answer.prepare.code),
            complaint=complaint,
            on_repair=on_repair,
        )
        return dspy.Prediction(index=index, prepare=code)

    def _look_closer(self, plan: Plan, card: str, fingerprint: Fingerprint, root: Path, on_repair: OnRepair) -> str:
        """Notes beyond the fingerprint; none where the answer cannot be read, for the index can be tried without."""
        try:
            with tools.desk(root), speaking(self.name):
                return self.look(plan=plan, card=card, fingerprint=fingerprint).notes
        except (AdapterParseError, LMFailed):
            on_repair(self.name, "The notes of the closer look cannot be read; going on without them.")
            return ""
