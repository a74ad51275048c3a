"""m3dspy: a free-text request and a folder of medical images in; a trained, tuned, graded model out.

`programs/` is `m3dspy.programs`; a wheel carries the folders inside `m3dspy/`, a source tree finds them next door.
"""

from pathlib import Path

__version__ = "0.1.0"

_tree = Path(__file__).resolve().parent.parent
if (_tree / "pyproject.toml").is_file():
    __path__.insert(0, str(_tree))
