"""The Model Trainer: an emitted script in; the same out once a smoke run ended well, mended where it had to be."""

import ast
from collections.abc import Callable

import dspy

from m3dspy.errors import DataError, RunFailed
from m3dspy.programs.role import OnRepair, Role, complaint_of
from m3dspy.signatures.model_trainer import JudgeSmokeRun
from m3dspy.signatures.values import Design
from m3dspy.workspace.patterns import masked
from m3dspy.workspace.syntax import parse

_KEPT = ("Settings", "SETTINGS", "SPACE", "train", "predict")


class ModelTrainer(Role):
    """Sees to it that the script runs before hours are spent on it."""

    name = "model_trainer"

    def __init__(self, max_repairs: int = 3):
        super().__init__(max_repairs)
        self.judge = dspy.Predict(JudgeSmokeRun)

    def forward(
        self,
        design: Design,
        script: str,
        smoke: Callable[[str], str],
        on_repair: OnRepair = lambda role, complaint: None,
    ) -> dspy.Prediction:
        """`script`: the text of train.py; `mended`: whether it differs from what was emitted.

        Args: smoke: runs a script's text and returns its last lines; raises RunFailed.
        Raises: SentBack: index or design is to blame.  RunFailed, DataError: it could not be mended.
        """
        text, log = script, _smoked(smoke, script)

        def act(answer: dspy.Prediction) -> str:
            nonlocal text, log
            if answer.verdict == "repair" and answer.mended.code.strip():
                check_script(answer.mended.code)
                text, log = answer.mended.code, _smoked(smoke, answer.mended.code)
            if isinstance(log, RunFailed):
                raise log
            return text

        self.settle(
            ask=lambda complaint: self.judge(
                design=design,
                script=text,
                log=f"failed\n{complaint or complaint_of(log)}" if isinstance(log, RunFailed) else f"ended well\n{log}",
            ),
            show=lambda answer: answer.mended.code or text,
            act=act,
            on_repair=on_repair,
        )
        return dspy.Prediction(script=text, mended=text != script)


def _smoked(smoke: Callable[[str], str], script: str) -> str | RunFailed:
    try:
        return masked(smoke(script))
    except RunFailed as failure:
        return failure


def check_script(script: str) -> None:
    """Refuse a mended script that is not a whole one.

    Raises: DataError: it does not parse, or lost something that the rest relies on.
    """
    try:
        tree = parse(script)
    except SyntaxError as error:
        raise DataError(f"The mended script does not parse: line {error.lineno}: {error.msg}.") from error
    names = {node.name for node in tree.body if isinstance(node, ast.ClassDef | ast.FunctionDef)}
    names |= {
        target.id
        for node in tree.body
        if isinstance(node, ast.Assign)
        for target in node.targets
        if isinstance(target, ast.Name)
    }
    if lost := [name for name in _KEPT if name not in names]:
        raise DataError(f"The mended script is not whole: {', '.join(lost)} is gone. Give all of train.py.")
