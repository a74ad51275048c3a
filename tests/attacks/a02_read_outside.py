"""Read ~/.ssh, home directories, a secret file outside the run."""

import glob
import json
import os

hits, seen = [], []
for p in [
    os.environ["ATK_OUTSIDE"] + "/secret.txt",
    *glob.glob("/root/.ssh/*"),
    *glob.glob("/home/*/.ssh/*"),
    *glob.glob("/home/*/.bashrc"),
    *glob.glob(os.path.expanduser("~/.ssh/*")),
    "/etc/shadow",
    *glob.glob("/root/.[a-z]*rc"),
    "/etc/machine-id",
    "/etc/resolv.conf",
]:
    try:
        open(p, "rb").read(1)
        seen.append(p)
    except OSError:
        pass
hits = [p for p in seen if not p.startswith("/m3/out")]
print("ATTACK", json.dumps({"attack": "read_outside", "breach": bool(hits), "detail": hits[:5]}))
