"""Containers and foreign annotations, made plain files before anything looks at them; a new format is one new file.

A format's file defines

    HOLDS_IMAGES: bool             whether it says what the images are; False: it only annotates those that lie there
    found(root) -> bool            whether names in the folder speak for it; nothing is opened
    unpack(root, plain) -> bool    write its images and labels; False: the names deceived, and nothing was written

`plain` is a `_plain.Plain`: images lie below `images/`, masks below `masks/`; classes and texts are in `labels.csv`,
pairs of image and mask in `dataset.json`, each with the split and the patient that the container gives. `unpack` runs
in the sandbox (`workspace.unpack`). What is wrong with a container is a DataError of one line, or a ValueError.
"""

from m3dspy.registry import Registry

FORMATS = Registry("container", "m3dspy.workspace.unpacking")
