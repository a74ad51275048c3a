"""Compile the filters of system calls that a script may not make; for developers: `python compile.py`, needs pyseccomp.

`bwrap` goes with bubblewrap, which has a network of its own; `landlock` knows no network at all. What is denied here
is what attacks on the kernel start from and what no training script needs. `memfd_create` stays: CUDA needs it.
"""

from errno import EAFNOSUPPORT, ENOSYS, EPERM
from pathlib import Path

import pyseccomp as seccomp  # pyright: ignore[reportMissingImports]

DENIED = """
acct add_key bpf chroot clock_adjtime clock_settime create_module delete_module fanotify_init finit_module fsconfig
fsmount fsopen fspick get_kernel_syms init_module io_uring_enter io_uring_register io_uring_setup ioperm iopl kcmp
kexec_file_load kexec_load keyctl lookup_dcookie mount mount_setattr move_mount name_to_handle_at nfsservctl
open_by_handle_at open_tree perf_event_open personality pidfd_getfd pivot_root process_vm_readv process_vm_writev
ptrace quotactl quotactl_fd reboot request_key setdomainname sethostname setns settimeofday swapoff swapon syslog
umount2 unshare uselib userfaultfd ustat vhangup vm86 vm86old
"""
CLONE_NEWUSER, TIOCSTI, TIOCLINUX = 0x10000000, 0x5412, 0x541C  # a new user namespace; typing into the terminal
UNIX, INET, INET6, NETLINK = 1, 2, 10, 16
FAMILIES = {"bwrap": {UNIX, INET, INET6, NETLINK}, "landlock": {UNIX, NETLINK}}
MACHINES = {"x86_64": seccomp.Arch.X86_64, "aarch64": seccomp.Arch.AARCH64}


def filter_of(level: str, machine: str) -> seccomp.SyscallFilter:
    found = seccomp.SyscallFilter(seccomp.ALLOW)
    if MACHINES[machine] != seccomp.system_arch():
        found.remove_arch(seccomp.system_arch())
        found.add_arch(MACHINES[machine])
    denied = seccomp.ERRNO(EPERM)
    for name in DENIED.split():
        try:
            found.add_rule(denied, name)
        except (OSError, RuntimeError) as error:  # no call of this machine
            print(f"{machine}: {name}: {error}")
    found.add_rule(denied, "clone", seccomp.Arg(0, seccomp.MASKED_EQ, CLONE_NEWUSER, CLONE_NEWUSER))
    found.add_rule(seccomp.ERRNO(ENOSYS), "clone3")  # its flags lie behind a pointer; libc goes back to clone
    for request in (TIOCSTI, TIOCLINUX):
        found.add_rule(denied, "ioctl", seccomp.Arg(1, seccomp.MASKED_EQ, 0xFFFFFFFF, request))
    for family in set(range(NETLINK)) - FAMILIES[level]:
        found.add_rule(seccomp.ERRNO(EAFNOSUPPORT), "socket", seccomp.Arg(0, seccomp.EQ, family))
    found.add_rule(seccomp.ERRNO(EAFNOSUPPORT), "socket", seccomp.Arg(0, seccomp.GT, NETLINK))
    return found


if __name__ == "__main__":
    for level in FAMILIES:
        for machine in MACHINES:
            with Path(__file__).with_name(f"{level}_{machine}.bpf").open("wb") as file:
                filter_of(level, machine).export_bpf(file)
