"""Become somebody: set-uid programs, setuid(0), a capability, a new user namespace by clone."""

import ctypes
import json
import os
import shutil
import subprocess

done, libc, before = [], ctypes.CDLL(None, use_errno=True), os.geteuid()
for name in ("sudo", "su", "newuidmap", "pkexec"):
    if shutil.which(name) and subprocess.run([name, "-n", "true"], capture_output=True, timeout=5).returncode == 0:
        done.append(name)
with open("/proc/self/status") as file:
    facts = dict(line.split(":\t", 1) for line in file.read().splitlines() if ":\t" in line)
if facts["NoNewPrivs"].strip() != "1":
    done.append("may gain rights")
if facts["Seccomp"].strip() != "2":
    done.append("no filter")
child = libc.syscall(56 if os.uname().machine == "x86_64" else 220, 0x10000000 | 17, 0, 0, 0, 0)
if child == 0:
    os._exit(0)
if child > 0:
    done.append("clone")
print("ATTACK", json.dumps({"attack": "root_again", "breach": bool(done), "detail": done}))
