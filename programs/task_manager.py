"""The Task Manager: a request and a look at the folder in, a plan out, or a refusal."""

from collections.abc import Collection, Mapping

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
    if plan.task == "report_generation":
        return problems + _check_reports(plan, fingerprint)
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
    return problems + _check_patient(plan, tables)


def _check_patient(plan: Plan, tables: Mapping[str, Collection[str]]) -> list[str]:
    key = plan.patient
    if key and key.where == "column" and key.column not in tables.get(key.table, ()):
        return [f"The patient key names column {key.column!r} of {key.table!r}, which is not there."]
    return []


def _check_reports(plan: Plan, fingerprint: Fingerprint) -> list[str]:
    """What keeps the reports that the plan names from being read, and being joined to images."""
    source, tables = plan.source, {table.path: table for table in fingerprint.tables}
    named = {path: {column.name: column for column in table.columns} for path, table in tables.items()}
    if bool(source.files) != bool(source.key) or source.files == source.path:
        return ["files is a second table, which names the images, and key the column both tables share; else both ''."]
    texts = [name for name in (plan.findings, plan.impression) if name]
    asked = {source.path: [*texts, source.key or source.file_column]}
    if source.files:
        asked[source.files] = [source.file_column, source.key]
    problems = []
    for path, names in asked.items():
        if path not in named:
            problems.append(f"There is no table {path!r}; known: {', '.join(tables) or 'none'}.")
            continue
        problems += [
            f"{path} has no column {name!r}; it has {', '.join(sorted(named[path]))}."
            for name in names
            if name not in named[path]
        ]
    if problems:
        return problems
    if (kind := named[source.path][plan.findings].kind) != "text":
        problems.append(
            f"Column {plan.findings!r} of {source.path} is of kind {kind}: findings are of kind text, and several "
            "words long. Refuse if no column is."
        )
    if not named[source.files or source.path][source.file_column].rows_with_file:
        problems.append(
            f"Column {source.file_column!r} of {source.files or source.path} names no image that is there. Name the "
            "column with names_files, and with `files` and `key` the other table where it is in another."
        )
    if not plan.sided:
        problems.append("Reports tell left from right: sided must be true.")
    if plan.patient and plan.patient.where == "column" and plan.patient.table not in (source.path, source.files):
        problems.append(f"The patient key is in {plan.patient.table!r}, which holds neither the reports nor the files.")
    return problems + _check_patient(plan, named)
