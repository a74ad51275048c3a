"""The Module Architect: a plan and the data in numbers in, one complete training design out."""

import dspy

from m3dspy.errors import DataError
from m3dspy.programs.role import OnRepair, Role
from m3dspy.signatures.module_architect import DesignTraining
from m3dspy.signatures.values import Catalogue, Design, Fingerprint, Index, Machine, Plan
from m3dspy.workspace.emit import check_design
from m3dspy.workspace.indexing import summary


class ModuleArchitect(Role):
    """Chooses template, network and settings."""

    name = "module_architect"

    def __init__(self, max_repairs: int = 3):
        super().__init__(max_repairs)
        self.design_training = dspy.Predict(DesignTraining)

    def forward(
        self,
        request: str,
        plan: Plan,
        index: Index,
        fingerprint: Fingerprint,
        machine: Machine,
        catalogue: Catalogue,
        complaint: str = "",
        on_repair: OnRepair = lambda role, complaint: None,
    ) -> dspy.Prediction:
        """`design`: a Design that some template can run out."""

        def act(answer: dspy.Prediction) -> Design:
            problems = check_design(answer.design, index)
            if answer.design.network not in (offered := [network.name for network in catalogue.networks]):
                problems.append(f"The network must be one of: {', '.join(offered)}.")
            if answer.design.template not in (offered := [template.name for template in catalogue.templates]):
                problems.append(f"The template must be one of: {', '.join(offered)}.")
            if answer.design.shots != plan.shots:
                problems.append(f"The plan says shots {plan.shots}, the design {answer.design.shots}.")
            left_right = 0 if plan.dims == 3 else 1
            if plan.sided and left_right in answer.design.flips:
                problems.append(f"The labels tell left from right, so axis {left_right} must not be mirrored.")
            if problems:
                raise DataError(" ".join(problems))
            return answer.design

        design = self.settle(
            ask=lambda complaint: self.design_training(
                request=request,
                plan=plan,
                index=summary(index),
                fingerprint=fingerprint,
                machine=machine,
                catalogue=catalogue,
                complaint=complaint,
            ),
            show=lambda answer: f"{answer.design}",
            act=act,
            complaint=complaint,
            on_repair=on_repair,
        )
        return dspy.Prediction(design=design)
