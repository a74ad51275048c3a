"""Read the memory, the environment and the folders of other processes: the decoy, the parent, the agent."""

import ctypes
import glob
import json
import os

done, own = [], {os.getpid(), 1 if os.getppid() == 1 else 0}
for folder in glob.glob("/proc/[0-9]*"):
    pid = int(folder.split("/")[2])
    if pid in own:
        continue
    for name in ("mem", "maps", "environ", "auxv"):
        try:
            with open(f"{folder}/{name}", "rb") as file:
                if name != "mem" and file.read(1):
                    done.append(f"{folder}/{name}")
        except OSError:
            pass
    for call in (lambda f=folder: os.readlink(f"{f}/cwd"), lambda f=folder: os.stat(f"{f}/root/etc")):
        try:
            call()
            done.append(folder)
        except OSError:
            pass
if ctypes.CDLL(None).ptrace(16, int(os.environ["ATK_DECOY"]), 0, 0) == 0:
    done.append("ptrace")
print("ATTACK", json.dumps({"attack": "foreign_memory", "breach": bool(done), "detail": done[:5]}))
