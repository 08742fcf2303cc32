"""TCP ports that are ours from now on: no other process is given them, though nothing listens yet."""

import socket
from dataclasses import dataclass

HOST = "127.0.0.1"


class PortInUse(Exception):
    """Somebody listens there already; the message names the port and the setting it came from."""


@dataclass(frozen=True)
class Port:
    """Keeps a socket bound and never listens on it, so that the port is neither handed out nor used for an outgoing
    connection, while a child that sets SO_REUSEADDR or SO_REUSEPORT (all of ours) may listen, and may do so again.
    """

    number: int
    holder: socket.socket

    def release(self) -> None:
        self.holder.close()


def reserve(number: int = 0, setting: str = "port") -> Port:
    """Reserve port `number`, or any free one for 0. Raises PortInUse."""
    holder = socket.socket()
    holder.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        holder.bind((HOST, number))
    except OSError as error:
        holder.close()
        raise PortInUse(f"port {number} ({setting}) is in use: {error.strerror}") from error
    # only after bind: with it, a gateway of somebody else that listens there would not be noticed
    holder.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    return Port(holder.getsockname()[1], holder)
