"""Leave a program that runs as its owner, and folders into which everybody may put files."""

import json
import os
import shutil

out = os.environ["M3_OUT"]
shutil.copy("/bin/sh", out + "/sh")
os.mkdir(out + "/open")
for name, mode in (("sh", 0o6755), ("open", 0o2777)):
    os.chmod(f"{out}/{name}", mode)
print("ATTACK", json.dumps({"attack": "set_uid", "breach": None, "detail": "breach if the bits are there afterwards"}))
