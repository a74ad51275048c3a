"""Import MONAI without what it takes along where that is installed: it halves that import."""

import sys

_kept_out = {"matplotlib", "mlflow", "pandas", "tensorboard", "torchvision", "transformers"} - set(sys.modules)
sys.modules |= dict.fromkeys(_kept_out)  # pyright: ignore[reportOperatorIssue]  None: as if it were not installed
import monai  # noqa: E402, F401

for _name in _kept_out:
    del sys.modules[_name]
