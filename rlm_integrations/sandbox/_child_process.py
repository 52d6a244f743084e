"""The host's handle on a session's process."""

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

_MAX_EXIT_SECONDS = 2.0  # how long a killed process may take to disappear
INSTEAD = "or choose sandbox='inprocess', which gives model code the whole of this process"


class ChildProcess:
    """A child of the fork server, identified by its pidfd. Thread-safe."""

    def __init__(self) -> None:
        self.layers: Mapping[str, str] = {}
        self._lock = threading.Lock()
        self._pidfd = -1
        self._state = -1  # /proc/self/stat of the child process
        self._pid = 0
        self._killed = False
        self._passing = False  # whether `begin` failed for a temporary reason
        self._host = os.getpid()

    def adopt(self, pidfd: int, pid: int) -> None:
        """Take ownership of a newly forked process."""
        with self._lock:
            self._pidfd, self._pid = pidfd, pid
        if self._killed:
            self.kill()

    def begin(self, connection: socket.socket, message: dict[str, Any], context: Corpus) -> None:
        """Send the session's first message and files, and wait until the child reports that it is
        sealed.

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
                # A server that was just killed looks the same
                self._passing = layer.startswith("parent_death")
                raise SandboxUnavailableError(
                    "the sandbox 'process' cannot protect this machine from model code here: "
                    f"{layer}. Run where the kernel offers it, {INSTEAD}"
                )
            case _:
                raise SandboxError(
                    f"the sandbox's process did not start: {str(reply.get('error'))[:500]}"
                )

    def _take_state(self, connection: socket.socket) -> bytes:
        """Receive the descriptor that the process sends. If it sends a message instead, return that
        message's first byte.
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
            return  # it has ended; the socket will report that
        except OSError as error:
            raise SandboxError(
                f"no signal can be sent to the sandbox's process on this machine ({error})"
            ) from error

    def may_start_anew(self, error: BaseException) -> bool:
        """Whether `begin` failed for a reason that may not affect a new process."""
        return isinstance(error, SandboxError) and self._passing and not self._killed

    def signal(self, number: int) -> None:
        """Send a signal; does nothing if the process has ended."""
        with self._lock:
            if self._pidfd >= 0 and self._host == os.getpid():
                with contextlib.suppress(OSError):  # `adopt` checked that signals can be sent
                    signal.pidfd_send_signal(self._pidfd, number)

    def kill(self) -> None:
        """End the process at once, which ends any wait on its socket."""
        self._killed = True
        self.signal(signal.SIGKILL)

    def cpu_seconds(self) -> float:
        """The CPU time that the process has used so far, in seconds."""
        try:
            # The id of the process's CPU-time clock, computed as clock_getcpuclockid does
            return time.clock_gettime((~self._pid << 3) | 2)
        except OSError:
            return 0.0

    def threads(self) -> int:
        """The number of the process's threads."""
        with self._lock:
            if self._state < 0:
                return 0
            try:
                return int(os.pread(self._state, 4096, 0).rpartition(b") ")[2].split()[17])
            except ProcessLookupError:  # it has ended
                return 0

    def release(self) -> None:
        """Kill the process, wait until it has ended, and close its descriptor.

        Safe to call twice.
        """
        if self._host != os.getpid():
            return  # in a fork of the host, the process belongs to the parent
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
