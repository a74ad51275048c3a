"""Find a key on the command line of another process."""

import glob
import json
from pathlib import Path

hits = []
for path in glob.glob("/proc/[0-9]*/cmdline"):
    try:
        if b"M3SEC" + b"RET" in Path(path).read_bytes():
            hits.append(path)
    except OSError:
        pass
print("ATTACK", json.dumps({"attack": "argv", "breach": bool(hits), "detail": hits[:3]}))
