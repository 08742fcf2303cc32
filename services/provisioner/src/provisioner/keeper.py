"""A machine of the launcher `local`: a process that keeps one engine, and ends with it.

A script of its own: `keeper.py FOLDER LIFELINE STOP_SECONDS COMMAND…`, run without site-packages. Whoever holds the
lock on FOLDER/lock is the machine, so it is there as long as the kernel says so; it ends its engine when FOLDER/stop
appears, when nobody holds LIFELINE any more ("-" for none), or when the folder is gone. Nothing ever signals a process
by a number that was read from a file: the keeper signals its own child, and nobody signals the keeper.

It returns once the machine is there or cannot be (exit code 1), leaving it behind as a process of its own.
"""

import ctypes
import fcntl
import os
import signal
import subprocess
import sys
import time

EVERY = 0.05  # seconds
PR_SET_PDEATHSIG = 1


def main() -> int:
    folder, lifeline, stop_seconds, *command = sys.argv[1:]
    reader, writer = os.pipe()
    if os.fork():
        os.close(writer)
        return 0 if os.read(reader, 1) else 1
    os.close(reader)
    os.setsid()
    lock = os.open(os.path.join(folder, "lock"), os.O_RDWR | os.O_CREAT, 0o600)
    if not _take(lock):  # the machine is there already
        os.write(writer, b"1")
        os._exit(0)
    if os.path.exists(os.path.join(folder, "stop")):
        os._exit(1)
    os.write(writer, b"1")
    os.close(writer)
    log = os.open(os.path.join(folder, "log"), os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    os.dup2(log, 1)
    os.dup2(log, 2)
    code = keep(folder, lifeline, float(stop_seconds), command)
    if os.path.isdir(folder):
        with open(os.path.join(folder, "exit"), "w") as file:
            file.write(str(code))
    os._exit(0)


def keep(folder: str, lifeline: str, stop_seconds: float, command: list[str]) -> int:
    """Returns how the engine ended."""
    try:
        engine = subprocess.Popen(command, stdin=subprocess.DEVNULL, preexec_fn=_die_with_us)  # noqa: S603  no threads here
    except OSError as error:
        os.write(2, f"{command[0]} cannot be run: {error}\n".encode())
        return 127
    while engine.poll() is None:
        if not os.path.isdir(folder) or os.path.exists(os.path.join(folder, "stop")) or not _held(lifeline):
            engine.terminate()
            try:
                engine.wait(stop_seconds)
            except subprocess.TimeoutExpired:
                engine.kill()
            return engine.wait()
        time.sleep(EVERY)
    return engine.returncode


def _take(lock: int) -> bool:
    """Who looks whether the machine is there holds a shared lock for an instant: that is no machine."""
    for _ in range(20):
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            time.sleep(EVERY / 5)
        else:
            return True
    return False


def _held(lifeline: str) -> bool:
    if lifeline == "-":
        return True
    try:
        descriptor = os.open(lifeline, os.O_RDONLY)
    except FileNotFoundError:
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(descriptor)
    return False


def _die_with_us() -> None:
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)


if __name__ == "__main__":
    sys.exit(main())
