"""Fill memory that is no process's: files in /dev/shm, /tmp and without a name, 1.2 GiB (the harness allows 512 MiB)."""

import json
import os
import time

held, files = 0, [os.memfd_create("m3"), os.memfd_create("m3")]
for folder in ("/dev/shm", os.environ.get("TMPDIR", "/tmp")):
    try:
        files.append(os.open(f"{folder}/m3-attack", os.O_CREAT | os.O_RDWR))
        os.unlink(f"{folder}/m3-attack")
    except OSError:
        pass
for _ in range(30):
    for file in files:
        try:
            held += os.write(file, b"x" * (10 << 20)) >> 20
        except OSError:
            pass
    time.sleep(0.1)
print("ATTACK", json.dumps({"attack": "nameless_memory", "breach": held >= 1024, "detail": f"{held} MiB"}), flush=True)
