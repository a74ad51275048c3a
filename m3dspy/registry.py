"""Named things, one file each: a new network, dataset, file format or optimizer is one new file and no list to edit."""

import sys
from collections.abc import Iterator, Mapping
from importlib import import_module
from pkgutil import iter_modules
from types import ModuleType

from m3dspy.errors import unknown


class Registry(Mapping[str, ModuleType]):
    """The modules of one folder, by name; each is imported when it is first asked for.

    Args: kind: what an entry is called in messages, "network".  package: the folder, "m3dspy.workspace.networks".

    A file whose name begins with `_` is a helper, not an entry. `_` in a file's name may be typed as `-`.

    >>> sources = Registry("file format", "m3dspy.workspace.sources")
    >>> sources["nifti"].SUFFIXES[0]
    '.nii.gz'
    """

    def __init__(self, kind: str, package: str):
        self.kind, self.package = kind, package

    def __iter__(self) -> Iterator[str]:
        folder = import_module(self.package).__path__
        return iter(sorted(module.name for module in iter_modules(folder) if not module.name.startswith("_")))

    def __len__(self) -> int:
        return sum(1 for _ in self)

    def __getitem__(self, name: str) -> ModuleType:
        spelled = name.replace("-", "_")
        module = f"{self.package}.{spelled}"
        imported = module in sys.modules and spelled.isidentifier() and not spelled.startswith("_")
        if not imported and spelled not in set(self):
            raise unknown(self.kind, name, self)
        return import_module(module)
