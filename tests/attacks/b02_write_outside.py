"""Write outside the run directory (canary), and probe system paths by opening for append without writing."""

import json
import os
import sys

done = []
o = os.environ["ATK_OUTSIDE"]
for p in (o + "/canary.txt", o + "/planted.pth"):
    try:
        with open(p, "a") as f:
            f.write("PWNED\n")
        done.append(p)
    except OSError:
        pass
for p in [
    "/etc/passwd",
    "/etc/hosts",
    "/usr/bin/env",
    "/usr/lib/os-release",
    "/etc/ld.so.cache",
    sys.executable,
    json.__file__,
    "/m3/launch.py",
]:
    try:
        os.close(os.open(p, os.O_WRONLY | os.O_APPEND))
        done.append(p)
    except OSError:
        pass
for d in ("/", "/usr", "/etc", "/m3", "/dev", "/opt", "/var", "/home"):
    try:
        q = d.rstrip("/") + "/m3atk_probe"
        os.mkdir(q)
        os.rmdir(q)
        done.append(d)
    except OSError:
        pass
print("ATTACK", json.dumps({"attack": "write_outside", "breach": bool(done), "detail": done}))
