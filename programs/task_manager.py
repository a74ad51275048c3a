"""The Task Manager: a request and a look at the folder in, a plan out, or a refusal."""

import dspy

from m3dspy.errors import DataError, Refused
from m3dspy.programs.role import OnRepair, Role
from m3dspy.signatures.task_manager import MakePlan
from m3dspy.signatures.values import DataCard, Fingerprint, Plan

_AS_IT_STANDS = " Give the pattern itself, signs and all, not the path of a file."


class TaskManager(Role):
    """Decides what to build."""

    name = "task_manager"

    def __init__(self, max_repairs: int = 3):
        super().__init__(max_repairs)
        self.make_plan = dspy.Predict(MakePlan)

    def forward(
        self,
        request: str,
        fingerprint: Fingerprint,
        cards: list[DataCard],
        complaint: str = "",
        on_repair: OnRepair = lambda role, complaint: None,
    ) -> dspy.Prediction:
        """`plan`: the Plan.

        Raises: Refused: no data here can serve the request.
        """

        def act(answer: dspy.Prediction) -> Plan:
            if answer.plan is None:
                raise Refused(answer.refusal or "The request cannot be served with this data.")
            if problems := check_plan(answer.plan, fingerprint, cards):
                raise DataError(" ".join(problems))
            return answer.plan

        plan = self.settle(
            ask=lambda complaint: self.make_plan(
                request=request, fingerprint=fingerprint, cards=cards, complaint=complaint
            ),
            show=lambda answer: f"{answer.plan or answer.refusal}",
            act=act,
            complaint=complaint,
            on_repair=on_repair,
        )
        return dspy.Prediction(plan=plan)


def check_plan(plan: Plan, fingerprint: Fingerprint, cards: list[DataCard]) -> list[str]:
    """Everything that the plan names and the folder does not hold, a sentence each."""
    problems = []
    groups = {group.pattern: group for group in fingerprint.groups}
    tables = {table.path: {column.name for column in table.columns} for table in fingerprint.tables}
    if plan.card is not None and plan.card not in {card.name for card in cards}:
        problems.append(f"No card is called {plan.card!r}.")
    if plan.images not in groups:
        problems.append(f"No image group has the pattern {plan.images!r}; known: {', '.join(groups)}.{_AS_IT_STANDS}")
    elif groups[plan.images].dims != plan.dims:
        problems.append(f"{plan.images} is {groups[plan.images].dims}D, the plan says {plan.dims}D.")
    if plan.task == "classification" and len(plan.labels) < 2:
        problems.append(f"A classification needs two classes at least; the plan has {', '.join(plan.labels)}.")
    source = plan.source
    if plan.task == "anomaly_detection":
        if source.kind != "folder" or len(plan.label_values) != len(plan.labels):
            problems.append(
                "An anomaly detection reads class folders; label_values are the normal and the abnormal one."
            )
        if plan.dims != 2:
            problems.append("Anomalies can be found in 2D images only.")
        if plan.masks is not None and plan.masks not in groups:
            problems.append(f"No mask group has the pattern {plan.masks!r}; known: {', '.join(groups)}.{_AS_IT_STANDS}")
    if plan.task == "segmentation":
        if source.kind not in ("masks", "json"):
            problems.append(f"A segmentation reads masks; the plan reads a {source.kind}.")
        if source.kind == "masks" and source.path not in groups:
            problems.append(
                f"No mask group has the pattern {source.path!r}; known: {', '.join(groups)}.{_AS_IT_STANDS}"
            )
        if not all(value.isdigit() for value in plan.label_values) or not plan.label_values:
            problems.append("label_values must hold the voxel value of each label.")
    if source.kind == "table":
        columns = tables.get(source.path)
        if columns is None:
            problems.append(f"There is no table {source.path!r}; known: {', '.join(tables) or 'none'}.")
        else:
            problems += [
                f"{source.path} has no column {name!r}; it has {', '.join(sorted(columns))}."
                for name in (source.column, source.file_column)
                if name not in columns
            ]
    if source.kind == "folder":
        folders = {folders.parent: folders.classes for folders in fingerprint.class_folders}
        if source.path not in folders:
            problems.append(f"There are no class folders below {source.path!r}; known: {', '.join(folders) or 'none'}.")
        else:
            problems += [
                f"There is no class folder {value!r}; there are {', '.join(folders[source.path])}."
                for value in plan.label_values or plan.labels
                if value not in folders[source.path]
            ]
    patient = plan.patient
    if patient and patient.where == "column" and patient.column not in tables.get(patient.table, set()):
        problems.append(f"The patient key names column {patient.column!r} of {patient.table!r}, which is not there.")
    return problems
