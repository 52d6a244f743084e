"""The host's handle on the process of a session."""

import contextlib
import errno
import os
import select
import signal
import socket
import threading
import time
from collections.abc import Mapping
from typing import Any

from rlm_integrations.corpus import Corpus
from rlm_integrations.errors import ContextError, SandboxError, SandboxUnavailableError
from rlm_integrations.sandbox._context_message import describe_context
from rlm_integrations.sandbox.decoder import Decoder
from rlm_integrations.sandbox.encoder import Encoder
from rlm_integrations.sandbox.wire import LENGTH, WireError

_MAX_EXIT_SECONDS = 2.0  # that a killed process may take to be gone
INSTEAD = "or choose sandbox='inprocess', which gives model code the whole of this process"


class ChildProcess:
    """A child of the fork server, by its pidfd. Safe to use from several threads."""

    def __init__(self) -> None:
        self.layers: Mapping[str, str] = {}
        self._lock = threading.Lock()
        self._pidfd = -1
        self._state = -1  # the process's own /proc/self/stat
        self._pid = 0
        self._killed = False
        self._passing = False  # whether `begin` failed by what may not happen again
        self._host = os.getpid()

    def adopt(self, pidfd: int, pid: int) -> None:
        """Take over a process that was just forked."""
        with self._lock:
            self._pidfd, self._pid = pidfd, pid
        if self._killed:
            self.kill()

    def begin(self, connection: socket.socket, message: dict[str, Any], context: Corpus) -> None:
        """Send what a session begins with, and wait until the child says that it is sealed.

        Blocks.
        """
        self._passing = False
        self._check_signals()
        try:
            described = describe_context(context)
            Encoder().encode({**message, **described.fields}, connection.sendall)
            for descriptor in described.handover.files():
                socket.send_fds(connection, [b"F"], [descriptor])
            reply = _read_message(connection, self._take_state(connection))
        except WireError as error:
            raise SandboxError(
                f"the sandbox's process broke the protocol while it was starting ({error})"
            ) from error
        except ContextError:  # the document's file has changed
            raise
        except ValueError as error:
            raise SandboxError(
                f"the document's metadata cannot cross into the sandbox: {error}"
            ) from error
        except OSError as error:
            self._passing = error.errno != errno.EMFILE
            raise SandboxError(
                f"the sandbox's process ended while it was starting ({error})"
            ) from error
        match reply:
            case {"op": "ready", "layers": dict() as layers}:
                self.layers = {str(name): str(state) for name, state in layers.items()}
            case {"op": "refused", "layer": str() as layer}:
                # So it looks, too, where the server was killed just now
                self._passing = layer.startswith("parent_death")
                raise SandboxUnavailableError(
                    f"the sandbox 'process' cannot protect this machine from model code here: {layer}. "
                    f"Run where the kernel offers it, {INSTEAD}"
                )
            case _:
                raise SandboxError(
                    f"the sandbox's process did not start: {str(reply.get('error'))[:500]}"
                )

    def _take_state(self, connection: socket.socket) -> bytes:
        """Take the descriptor that the process hands over; where it has something else to say
        instead, the first byte of that.
        """
        first, descriptors, _, _ = socket.recv_fds(connection, 1, 1)
        if first == b"T" and not descriptors:
            raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))
        with self._lock:
            self._state = descriptors[0] if descriptors else -1
        return b"" if descriptors else first

    def _check_signals(self) -> None:
        try:
            signal.pidfd_send_signal(self._pidfd, 0)
        except ProcessLookupError:
            return  # it has ended, which its socket will tell
        except OSError as error:
            raise SandboxError(
                f"no signal can be sent to the sandbox's process on this machine ({error})"
            ) from error

    def may_start_anew(self, error: BaseException) -> bool:
        """Whether `begin` failed in a way that another process may be spared."""
        return isinstance(error, SandboxError) and self._passing and not self._killed

    def signal(self, number: int) -> None:
        """Send a signal; does nothing if the process is gone."""
        with self._lock:
            if self._pidfd >= 0 and self._host == os.getpid():
                with contextlib.suppress(OSError):  # that signals can be sent was seen at the start
                    signal.pidfd_send_signal(self._pidfd, number)

    def kill(self) -> None:
        """End the process at once; a wait for its socket then ends."""
        self._killed = True
        self.signal(signal.SIGKILL)

    def cpu_seconds(self) -> float:
        """The processor time that the process has used so far."""
        try:
            # The clock of a process's processor time, as clock_getcpuclockid makes it
            return time.clock_gettime((~self._pid << 3) | 2)
        except OSError:
            return 0.0

    def threads(self) -> int:
        """How many threads the process has."""
        with self._lock:
            if self._state < 0:
                return 0
            try:
                return int(os.pread(self._state, 4096, 0).rpartition(b") ")[2].split()[17])
            except ProcessLookupError:  # it has ended
                return 0

    def release(self) -> None:
        """Kill the process, wait until it is gone, and give back its descriptor.

        Safe to call twice.
        """
        if self._host != os.getpid():
            return  # a fork of the host: the process is not ours to end
        self._killed = True
        self.discard()

    def discard(self) -> None:
        """`release`, after which another process may be adopted."""
        self.signal(signal.SIGKILL)
        with self._lock:
            pidfd, self._pidfd = self._pidfd, -1
            state, self._state = self._state, -1
        if state >= 0:
            os.close(state)
        if pidfd >= 0:
            gone = select.poll()
            gone.register(pidfd, select.POLLIN)
            gone.poll(_MAX_EXIT_SECONDS * 1000)
            os.close(pidfd)


def _read_message(connection: socket.socket, first: bytes) -> dict[str, Any]:
    decoder = Decoder(1 << 20)
    while True:
        length = decoder.check_length(
            LENGTH.unpack(first + _read(connection, LENGTH.size - len(first)))[0]
        )
        first = b""
        message = decoder.decode(_read(connection, length))
        if message is not None:
            return message


def _read(connection: socket.socket, length: int) -> bytes:
    data = b""
    while len(data) < length:
        piece = connection.recv(length - len(data))
        if not piece:
            raise ConnectionResetError("it hung up")
        data += piece
    return data
