"""The rules plan a segmentation for a GPU as nnU-Net does."""

import doctest
import importlib
import math
from types import SimpleNamespace

import pytest
from test_rules import CT, CUBE, MASKS, SCANS, ask, plan_for

from m3dspy.programs.lms.experts import nnunet
from m3dspy.signatures.module_architect import DesignTraining
from m3dspy.signatures.values import Fingerprint, Index, IndexSummary, Machine, Spread
from m3dspy.workspace.emit import catalogue, check_design

# spacing, median shape, cases, labels, gigabytes -> patch and batch of ExperimentPlanner in nnunetv2 2.8.1
PLANNED = [
    ((0.76, 0.76, 3.0), (512, 512, 148), 30, 13, 8, (192, 192, 48), 2),  # of the size of BTCV
    ((1.0, 1.0, 1.0), (138, 169, 138), 484, 3, 8, (128, 128, 128), 2),  # of brain tumours
    ((0.8, 0.8, 2.5), (512, 512, 93), 281, 2, 24, (320, 320, 56), 2),  # of the pancreas, on a larger GPU
    ((2.2, 2.2, 10), (96, 96, 14), 100, 1, 8, (96, 96, 14), 5),
    ((4.9, 4.9, 5.1), (64, 64, 36), 30, 13, 8, (64, 64, 40), 2),
    ((1.25, 1.25, 1.37), (256, 216, 10), 200, 3, 8, (256, 224, 10), 8),
    ((1.192, 8.279, 6.028), (524, 385, 104), 171, 20, 6, (160, 128, 32), 2),
    ((0.727, 0.727, 0.727), (577, 307, 158), 127, 16, 24, (256, 224, 112), 2),
    ((6.342, 1.296, 1.062), (189, 476, 85), 137, 6, 40, (96, 448, 96), 5),
    ((0.5, 0.5), (512, 512), 40, 2, 8, (512, 512), 2),
    ((1.585, 1.585), (337, 121), 378, 3, 24, (352, 128), 17),
    ((1.329, 8.012), (235, 82), 352, 1, 40, (256, 96), 14),
]


def test_the_doctests_hold():
    assert doctest.testmod(nnunet).failed == 0


@pytest.mark.parametrize(("spacing", "shape", "cases", "labels", "gigabytes", "patch", "batch"), PLANNED)
def test_patch_and_batch_are_those_of_nnunet(spacing, shape, cases, labels, gigabytes, patch, batch):
    assert nnunet.patch_and_batch(spacing, shape, cases, labels, gigabytes) == (patch, batch)


@pytest.mark.parametrize(("spacing", "shape", "cases", "labels", "gigabytes", "patch", "batch"), PLANNED)
def test_the_network_has_the_levels_that_were_planned_and_fits_in_memory(
    spacing, shape, cases, labels, gigabytes, patch, batch
):
    """Counted on tensors without content: the activations kept for the way back, and weights, gradients and Adam."""
    import torch
    from torch._subclasses.fake_tensor import FakeTensorMode

    module = importlib.import_module("networks.dynunet")
    planned = nnunet.levels(spacing, patch)
    strides, kernels = module.levels(patch, spacing)
    if len(strides) == len(planned.strides):  # an axis that is odd further down is not halved there
        assert [tuple(kernel) for kernel in kernels] == planned.kernels
    assert [tuple(stride) for stride in strides[:3]] == planned.strides[:3]
    plain = {"residual": False, "slicewise": False, "width": 16, "channels": 1}
    s = SimpleNamespace(dims=len(patch), size=patch, spacing=spacing, labels=range(labels), **plain)
    kept = {}

    def count(tensor):
        storage = tensor.untyped_storage()
        kept[id(storage)] = storage
        return tensor

    with FakeTensorMode(), torch.autograd.graph.saved_tensors_hooks(count, lambda tensor: tensor):
        net = module.network(s).train()
        with torch.autocast("cpu", torch.bfloat16):
            parts = net(torch.empty(batch, 1, *patch))
            sum(part.float().square().mean() for part in parts)
        used = sum(storage.nbytes() for storage in kept.values()) + sum(16 * w.numel() for w in net.parameters())
    assert used < gigabytes * 1e9


def test_of_thick_and_few_slices_the_finest_tenth_is_the_target():
    spacing = {"least": (0.6, 0.6, 1), "tenth": (0.7, 0.7, 3), "median": (0.8, 0.8, 5), "most": (1, 1, 8)}
    few = Spread(least=(400, 400, 20), tenth=(400, 400, 20), median=(512, 512, 30), most=(512, 512, 90))
    many = few.model_copy(update={"median": (512, 512, 200)})
    assert nnunet.target_spacing(Spread(**spacing), few) == (0.8, 0.8, 3)
    assert nnunet.target_spacing(Spread(**spacing), many) == (0.8, 0.8, 5)
    assert nnunet.target_spacing(Spread(**(spacing | {"tenth": ()})), few) == (0.8, 0.8, 5)
    fine = Spread(**(spacing | {"tenth": (0.7, 0.7, 0.5)}))
    assert nnunet.target_spacing(fine, few) == (0.8, 0.8, 0.8)  # never finer than the other axes
    assert nnunet.target_spacing(Spread(**(spacing | {"median": (0.8, 0.8, 2)})), few) == (0.8, 0.8, 2)


def design(request: str, machine: Machine, folder: Fingerprint = CT, complaint: str = ""):
    plan = plan_for(request, folder).plan
    counted = IndexSummary(task="segmentation", labels=plan.labels, cases={"training": 20}, patients={})
    how = {"fingerprint": folder, "machine": machine, "catalogue": catalogue("segmentation"), "complaint": complaint}
    found = ask(DesignTraining, request=request, plan=plan, index=counted, **how).design
    index = Index(task="segmentation", labels=plan.labels, values=tuple(range(1, len(plan.labels) + 1)))
    assert check_design(found, index) == []
    return found


ABDOMEN = CT.model_copy(
    update={
        "groups": (
            SCANS.model_copy(
                update={
                    "shape": Spread(**dict.fromkeys(("least", "tenth", "median", "most"), (512, 512, 148))),
                    "spacing": Spread(**dict.fromkeys(("least", "tenth", "median", "most"), (0.76, 0.76, 3.0))),
                }
            ),
            MASKS,
        )
    }
)
REQUEST = "segment both lungs and the infection on chest CT"


def test_a_gpu_gets_nnunets_plan_and_as_many_steps_as_it_can_take():
    found = design(REQUEST, Machine(gpu="a card", gigabytes=16), ABDOMEN)
    assert (found.network, found.size, found.spacing, found.batch) == ("dynunet", (192, 192, 56), (0.76, 0.76, 3.0), 2)
    assert found.crops * 20 / found.batch == 250  # steps an epoch
    assert found.epochs * 250 == 15_000
    assert design(f"{REQUEST}, as accurate as can be", Machine(gigabytes=16), ABDOMEN).epochs == 4 * found.epochs


def scans(shape: tuple[int, ...], spacing: tuple[float, ...], channels: int = 1) -> Fingerprint:
    """ABDOMEN with images of this shape and spacing."""
    ends = ("least", "tenth", "median", "most")
    changed = {name: Spread(**dict.fromkeys(ends, each)) for name, each in (("shape", shape), ("spacing", spacing))}
    return CT.model_copy(update={"groups": (SCANS.model_copy(update=changed | {"channels": channels}), MASKS)})


@pytest.mark.parametrize("slices", [1, 6, 7])
@pytest.mark.parametrize("gigabytes", [8, 48])
def test_volumes_of_a_few_slices_get_nnunets_2d_network(slices, gigabytes):
    found = design(REQUEST, Machine(gigabytes=gigabytes), scans((256, 256, slices), (1.4, 1.4, 10)))
    assert (found.preset, found.size, found.spacing) == ("slicewise", (256, 256, 8), (1.4, 1.4, 10))
    assert "slice by slice" in found.why
    assert design(REQUEST, Machine(gigabytes=gigabytes), scans((256, 256, 8), (1.4, 1.4, 10))).preset == "default"


def test_where_a_patch_shows_little_of_the_image_tuning_tries_a_low_resolution_too():
    found = design(REQUEST, Machine(gigabytes=16), scans((512, 512, 600), (0.9, 0.9, 0.9)))
    first, coarser = found.space["coarser"].choices
    assert first == 1
    assert math.prod(found.size) / math.prod((512, 512, 600)) * coarser**3 == pytest.approx(0.25, rel=0.01)
    assert "coarser" not in design(REQUEST, Machine(gigabytes=16), scans((64, 64, 40), (4.0, 4.0, 4.0))).space


def test_who_puts_accuracy_first_gets_residual_blocks():
    assert design(f"{REQUEST}, as accurate as can be", Machine(gigabytes=16), ABDOMEN).preset == "residual"
    assert design(REQUEST, Machine(gigabytes=16), ABDOMEN).preset == "default"


@pytest.mark.parametrize("gigabytes", [0, 16])
def test_what_lies_beside_a_ct_in_one_file_is_not_cut_to_its_window(gigabytes):
    shape, spacing = (512, 512, 148), (0.76, 0.76, 3.0)
    found = [design(REQUEST, Machine(gigabytes=gigabytes), scans(shape, spacing, n)).intensity for n in (1, 2)]
    assert found == ["window", "percentile"]


def test_more_memory_means_a_larger_patch_up_to_a_bound():
    sizes = [math.prod(design(REQUEST, Machine(gigabytes=gb), ABDOMEN).size) for gb in (8, 16, 32, 48, 140)]
    assert sizes == sorted(sizes)
    assert sizes[0] < sizes[1] < sizes[2] < sizes[3] == sizes[4]


def test_without_a_gpu_or_in_a_hurry_the_training_ends_within_minutes():
    small = design(REQUEST, Machine(), ABDOMEN)
    assert (small.network, small.crops) == ("unet", 4)
    assert math.prod(small.size) <= 48 * 48 * 32
    hurried = design(f"{REQUEST}, as a quick try", Machine(gigabytes=16), ABDOMEN)
    assert (hurried.network, hurried.crops) == ("unet", 4)


@pytest.mark.parametrize(
    ("words", "hurried"),
    [
        ("quickly", True),
        ("something fast", True),
        ("a rough model", True),
        ("as a first draft", True),
        ("draft the findings", False),
        ("fast spin echo", False),
        ("fast-spin-echo", False),
        ("Fast FLAIR", False),
        ("roughly 200 patients", False),
    ],
)
def test_only_who_asks_for_something_quick_gets_it(words, hurried):
    plain, found = (design(f"{REQUEST}{more}", Machine(), ABDOMEN) for more in ("", f", {words}"))
    assert (found.epochs < plain.epochs) == hurried


def test_out_of_memory_means_one_patch_at_a_time():
    found = design(REQUEST, Machine(gigabytes=16), ABDOMEN, complaint="CUDA out of memory")
    assert found.batch == 1
    assert found.crops == 12  # of 20 images, for about 250 steps


def test_images_without_a_voxel_size_keep_their_grid():
    assert CUBE.median == (40, 48, 40)
    found = design(REQUEST, Machine(gigabytes=16))
    assert found.spacing is None
    assert found.size == (40, 48, 40)
