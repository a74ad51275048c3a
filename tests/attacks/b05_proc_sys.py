"""Kernel knobs: open for writing (nothing is written)."""

import json
import os

done = []
for p in (
    "/proc/sys/kernel/core_pattern",
    "/proc/sys/kernel/modprobe",
    "/proc/sys/vm/overcommit_memory",
    "/proc/sysrq-trigger",
    "/proc/sys/kernel/hostname",
    "/sys/kernel/uevent_helper",
    "/sys/power/state",
    "/dev/mem",
    "/dev/kmsg",
    "/dev/vda",
    "/dev/sda",
    "/dev/nvme0n1",
    "/proc/kcore",
    "/dev/fuse",
    "/dev/kvm",
):
    try:
        os.close(os.open(p, os.O_WRONLY))
        done.append(p)
    except OSError:
        pass
print("ATTACK", json.dumps({"attack": "proc_sys", "breach": bool(done), "detail": done}))
