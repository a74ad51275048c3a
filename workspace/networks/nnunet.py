"""The network that nnU-Net v2 plans for the images; belongs to the template nnunet, and is built by the package itself.

Isensee et al. 2021, doi:10.1038/s41592-020-01008-z; ResEnc: Isensee et al. 2024, arXiv:2404.09556.
"""

TASK = "segmentation"
DIMS = (2, 3)
SIZE = "strong"
TEMPLATE = "nnunet"  # the only one that it serves


def network(s):
    """Images (B, channels, *patch) to logits (B, outputs, *patch), as `s.plans` has it."""
    from nnunetv2.utilities.get_network_from_plans import (  # pyright: ignore[reportMissingImports]
        get_network_from_plans,
    )
    from nnunetv2.utilities.plans_handling.plans_handler import PlansManager  # pyright: ignore[reportMissingImports]

    plans = PlansManager(s.plans)
    planned = plans.get_configuration(s.configuration)
    return get_network_from_plans(
        planned.network_arch_class_name,
        planned.network_arch_init_kwargs,
        planned.network_arch_init_kwargs_req_import,
        s.channels,
        plans.get_label_manager(s.dataset).num_segmentation_heads,
        deep_supervision=False,
    )
