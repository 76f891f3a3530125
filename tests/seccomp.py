"""
Run a command with some system calls refused: `seccomp.py ERRNO NAME[,NAME...] CMD...`.

A real filter of the kernel (seccomp(2), classic BPF), as container runtimes and old kernels have
it; inherited by everything the command starts.

"clone_pidfd" is clone(2) with CLONE_PIDFD, which is refused with EINVAL whatever ERRNO is, as by
qemu and gVisor.
"""

from __future__ import annotations

import ctypes
import errno
import os
import platform
import struct
import sys

PR_SET_SECCOMP = 22
PR_SET_NO_NEW_PRIVS = 38
SECCOMP_MODE_FILTER = 2

# Audit architecture and system call numbers; those above 402 are the same everywhere.
ARCHITECTURES = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}
CALLS = {
    "clone": {"x86_64": 56, "aarch64": 220}[platform.machine()],
    "memfd_create": {"x86_64": 319, "aarch64": 279}[platform.machine()],
    "pidfd_send_signal": 424,
    "pidfd_open": 434,
    "clone3": 435,
    "close_range": 436,
    "epoll_pwait2": 441,
}

CLONE = {"x86_64": 56, "aarch64": 220}[platform.machine()]
CLONE_PIDFD = 0x1000

LOAD, JUMP_IF_EQUAL, JUMP_IF_SET, RETURN = 0x20, 0x15, 0x45, 0x06
ALLOW, FAIL_WITH = 0x7FFF0000, 0x00050000
OFFSET_OF_NUMBER, OFFSET_OF_ARCHITECTURE, OFFSET_OF_FIRST_ARGUMENT = 0, 4, 16


def install(names: list[str], code: int) -> None:
    program = [
        (LOAD, 0, 0, OFFSET_OF_ARCHITECTURE),
        (JUMP_IF_EQUAL, 1, 0, ARCHITECTURES[platform.machine()]),
        (RETURN, 0, 0, ALLOW),
        (LOAD, 0, 0, OFFSET_OF_NUMBER),
    ]
    for name in names:
        if name == "clone_pidfd":
            program += [
                (JUMP_IF_EQUAL, 0, 4, CLONE),
                (LOAD, 0, 0, OFFSET_OF_FIRST_ARGUMENT),
                (JUMP_IF_SET, 0, 1, CLONE_PIDFD),
                (RETURN, 0, 0, FAIL_WITH | errno.EINVAL),
                (LOAD, 0, 0, OFFSET_OF_NUMBER),
            ]
            continue
        program += [(JUMP_IF_EQUAL, 0, 1, CALLS[name]), (RETURN, 0, 0, FAIL_WITH | code)]
    program.append((RETURN, 0, 0, ALLOW))
    code_buffer = ctypes.create_string_buffer(
        b"".join(struct.pack("HBBI", *instruction) for instruction in program)
    )
    descriptor = ctypes.create_string_buffer(
        struct.pack("HxxxxxxQ", len(program), ctypes.addressof(code_buffer))
    )
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) or libc.prctl(
        PR_SET_SECCOMP, SECCOMP_MODE_FILTER, ctypes.byref(descriptor), 0, 0
    ):
        raise OSError(ctypes.get_errno(), "prctl")


if __name__ == "__main__":
    install(sys.argv[2].split(","), getattr(errno, sys.argv[1]))
    os.execvp(sys.argv[3], sys.argv[3:])
