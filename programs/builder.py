"""The four roles in a row, and the way back: from a request to a script whose smoke run ended well."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import dspy
from pydantic import Field

from m3dspy.programs.data_engineer import DataEngineer
from m3dspy.programs.lms.experts import words
from m3dspy.programs.lms.model import M3dLM
from m3dspy.programs.model_trainer import ModelTrainer
from m3dspy.programs.module_architect import ModuleArchitect
from m3dspy.programs.role import OnRepair, Role, SentBack
from m3dspy.programs.task_manager import TaskManager
from m3dspy.signatures.values import Catalogue, DataCard, Design, Fingerprint, Index, Machine, Plan, Request, Value
from m3dspy.workspace import hardware, inventory, training
from m3dspy.workspace.cards import cards
from m3dspy.workspace.emit import catalogue, emit
from m3dspy.workspace.preparing import prepare
from m3dspy.workspace.runs import Run, dataset, write_atomic
from m3dspy.workspace.weights import backbone, fitting

MAX_BACKS = 2
STAGES = ("plan", "index", "design", "script")


class Script(Value):
    """The last stage's marker: code/train.py ran its smoke test."""

    trusted: bool = Field(description="every line of it is ours: no language model mended it")


@dataclass(frozen=True)
class Hands:
    """What the roles act with: the known cards, how a prepare.py and a train.py are tried out, and what trains."""

    cards: Callable[[], list[DataCard]] = cards
    prepare: Callable[..., Index] = prepare
    smoke: Callable[..., str] = training.smoke
    machine: Callable[[], Machine] = hardware.machine


class Builder(dspy.Module):
    """Takes a run with a request and a fingerprint to a tested training script, each stage committed before the next.

    A role may blame an earlier one; the run then goes back there with the complaint, at most twice.
    """

    def __init__(self) -> None:
        super().__init__()
        self.task_manager = TaskManager()
        self.data_engineer = DataEngineer()
        self.module_architect = ModuleArchitect()
        self.model_trainer = ModelTrainer()

    def forward(self, run: Run, hands: Hands = Hands(), stages: Sequence[str] = STAGES) -> dspy.Prediction:
        """`plan`, `index`, `design`: the committed values. What is committed already is not asked again.

        Args: stages: as far as this, the script left out where only the prompts are wanted.
        Raises: Refused, DataError, RunFailed, LMFailed, NoSandbox.
        """
        complaint = _sent_back(run)
        while stage := next((stage for stage in stages if not run.has(stage)), None):
            try:
                with run.stage(stage):
                    getattr(self, f"_{stage}")(run, hands, complaint)
                complaint = ""
            except SentBack as back:
                if sum(event["kind"] == "back" for event in run.events()) >= MAX_BACKS:
                    raise back.cause from back
                run.event("back", by=stage, to=back.stage, complaint=back.complaint)
                complaint = _sent_back(run)
        return dspy.Prediction(
            plan=run.load("plan", Plan), index=run.load("index", Index), design=run.load("design", Design)
        )

    def _plan(self, run: Run, hands: Hands, complaint: str) -> None:
        answer = self.task_manager(
            request=run.load("request", Request).text,
            fingerprint=run.load("fingerprint", Fingerprint),
            cards=hands.cards(),
            complaint=complaint,
            on_repair=_booked(run),
        )
        run.commit("plan", answer.plan)

    def _index(self, run: Run, hands: Hands, complaint: str) -> None:
        request, plan = run.load("request", Request), run.load("plan", Plan)
        root, trusted = dataset(run.folder, request), _by_rules(self.task_manager, self.data_engineer)
        answer = self.data_engineer(
            plan=plan,
            card=next((card.text for card in hands.cards() if card.name == plan.card), ""),
            fingerprint=run.load("fingerprint", Fingerprint),
            root=root,
            prepare=lambda code: hands.prepare(run, code, plan, root, trusted=trusted, unsafe=request.unsafe),
            complaint=complaint,
            on_repair=_booked(run),
        )
        inventory.note(run, answer.index, root)
        run.commit("index", answer.index)

    def _design(self, run: Run, hands: Hands, complaint: str) -> None:
        plan = run.load("plan", Plan)
        answer = self.module_architect(
            request=run.load("request", Request).text,
            plan=plan,
            index=run.load("index", Index),
            fingerprint=run.load("fingerprint", Fingerprint),
            machine=hands.machine(),
            catalogue=_offered(run, plan),
            complaint=complaint,
            on_repair=_booked(run),
        )
        run.commit("design", answer.design)

    def _script(self, run: Run, hands: Hands, complaint: str) -> None:
        design, unsafe = run.load("design", Design), run.load("request", Request).unsafe
        chosen = backbone(run.load("request", Request).weights, design.network)
        folder = emit(design, run.load("index", Index), run.folder / "code", chosen)
        emitted = (folder / "train.py").read_text()

        def smoke(text: str) -> str:
            write_atomic(folder / "train.py", text.encode())
            return hands.smoke(run, trusted=text == emitted, unsafe=unsafe)

        answer = self.model_trainer(design=design, script=emitted, smoke=smoke, on_repair=_booked(run))
        run.commit("script", Script(trusted=not answer.mended))


def _sent_back(run: Run) -> str:
    """The last complaint, if the stage that it went back to has not answered it yet; what stood on that is dropped.

    Read from the events, so that a crash on the way back loses neither.
    """
    for event in reversed(list(run.events())):
        if event["kind"] == "back":
            run.drop(*reversed(STAGES[STAGES.index(event["to"]) :]))
            return event["complaint"]
        if event["kind"] == "stage" and event["status"] == "done" and event["name"] in STAGES:
            break
    return ""


def _offered(run: Run, plan: Plan) -> Catalogue:
    """What may be chosen for this plan: where weights were given, the networks that start from them."""
    request, offered = run.load("request", Request), catalogue(plan.task)
    weights = request.weights
    if words.wants_nnunet(request.text) and plan.task != "segmentation":
        run.event("warning", text=f"nnU-Net is not used: it marks structures, and this is a {plan.task}.")
    if plan.task == "segmentation":
        if weights:
            run.event("warning", text=f"The weights {weights} are not used: nothing in a {plan.task} reads them.")
        return offered
    if weights:
        groups = run.load("fingerprint", Fingerprint).groups
        channels = next(group.channels for group in groups if group.pattern == plan.images)
        found = fitting(weights, offered.networks, plan.dims, channels)
        return offered.model_copy(update={"networks": found})
    if plan.task == "anomaly_detection":
        run.event(
            "warning",
            text="The backbone is random: its features know nothing of images. Give a pretrained CLIP with --weights.",
        )
    without = tuple(entry for entry in offered.networks if not entry.pretrained)
    return offered.model_copy(update={"networks": without})


def _booked(run: Run) -> OnRepair:
    return lambda role, complaint: run.event("repair", role=role, complaint=complaint)


def _by_rules(*roles: Role) -> bool:
    """Whether all that these roles write comes from the built-in rules, and so from us."""
    lms = {predictor.lm or dspy.settings.lm for role in roles for predictor in role.predictors()}
    return all(isinstance(lm, M3dLM) and lm.is_rules for lm in lms)
