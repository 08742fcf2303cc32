"""Becomes another program that the kernel kills when its parent dies: `leash.py SIGNAL PARENT UID COMMAND…`.

A script of its own, run without site-packages (15 ms), because code between fork and exec is not safe in a process with
threads. UID -1 keeps the user. The signal is set after the change of user, which clears it, and survives exec.
"""

import ctypes
import os
import sys

PR_SET_PDEATHSIG = 1


def main() -> None:
    death_signal, parent, uid = (int(text) for text in sys.argv[1:4])
    command = sys.argv[4:]
    if uid >= 0:
        os.setgroups([])
        os.setgid(uid)
        os.setuid(uid)
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, death_signal, 0, 0, 0)
    if os.getppid() != parent:  # it died before the line above
        sys.exit(1)
    os.execv(command[0], command)  # noqa: S606  no shell is the point


if __name__ == "__main__":
    main()
