"""The fork server: a clean interpreter that forks one child per session, and the host's handle on
it.

The host never forks its own process, because its memory holds API keys. It starts one server per
process with an empty environment. The server loads what children need and then forks a child for
each request on its socket; while there is none, it loads more of the standard library. A request is
one atomic message with the child's end of the session's socket; the answer (a pidfd) is sent on
that same socket, so that no reply can reach the wrong session.
"""

import gc
import os
import select
import signal
import socket
import struct
import sys
import threading
import types
from collections.abc import Iterable, Sequence
from importlib import import_module
from typing import Any

_PID = struct.Struct(">i")
# How long to wait for a server to report that it is ready
_START_SECONDS = 60.0
READY, MISSING, FORKED, REFUSED = b"R", b"M", b"P", b"E"

# Modules that model code imports, and those that these import later. If no file can be opened, only
# these are available; where files can be read, they make later sessions faster. A child can load no
# extension module, because it may not map executable memory: all that these need are in FIRST.
FIRST = """
abc array ast asyncio base64 binascii bisect builtins bz2 calendar cmath code codecs collections
collections.abc concurrent.futures concurrent.futures.thread contextlib contextvars copy csv ctypes
dataclasses datetime decimal enum errno fnmatch fractions functools gc getpass glob graphlib gzip
hashlib heapq hmac importlib inspect io itertools json keyword linecache locale logging lzma math
mmap numbers operator os pathlib pickle platform queue random re reprlib secrets select selectors
shutil signal sqlite3 stat statistics string stringprep struct sys tempfile textwrap threading time
token tokenize traceback types typing unicodedata uuid warnings weakref xml.etree.ElementTree zlib
zoneinfo encodings.ascii encodings.latin_1 encodings.utf_8
""".split()
LATER = """
argparse cmd colorsys configparser difflib dis email.message email.parser email.policy email.utils
html html.entities html.parser ipaddress mimetypes pkgutil pprint sched shlex timeit tomllib
unittest.mock urllib.parse xml.dom.minidom zipfile _strptime _pydecimal encodings.idna
encodings.utf_8_sig encodings.utf_16 encodings.utf_16_le encodings.utf_16_be encodings.utf_32
encodings.utf_32_le encodings.utf_32_be encodings.cp1252 encodings.cp437 encodings.unicode_escape
encodings.raw_unicode_escape encodings.punycode encodings.hex_codec encodings.rot_13 encodings.mbcs
""".split()


def _load(names: Iterable[str]) -> None:
    for name in names:
        try:
            import_module(name)
        except ImportError:  # some builds of Python lack modules such as bz2 and sqlite3
            continue


def _load_while_idle(requests: socket.socket, names: list[str]) -> None:
    """Import modules, and remove them from the list, until a request waits or none is left."""
    if not names:
        return
    while names and not select.select([requests], [], [], 0)[0]:
        _load([names.pop(0)])
    if not names:
        gc.unfreeze()
        _freeze()


def _freeze() -> None:
    """Have garbage collection in children not touch what is loaded: it would copy every page."""
    gc.collect()
    gc.freeze()


def _preload(extra: Sequence[str], folders: Sequence[str]) -> list[str]:
    """Import what every child needs, and the extra packages; return the folders and files of these.

    The interpreter runs without `site`, so that no code of the user has run in it: no
    sitecustomize, no .pth file. The other work of `site` is done here. Where packages are installed
    is known only after the library is loaded.
    """
    import site

    _load(FIRST)
    site.setquit()
    site.setcopyright()
    site.sethelper()
    if extra:
        venv = os.path.dirname(os.path.dirname(sys.executable))
        prefixes = [venv] if os.path.exists(os.path.join(venv, "pyvenv.cfg")) else []
        sys.path += [*folders, *site.getsitepackages([*prefixes, sys.prefix, sys.exec_prefix])]
    paths: list[str] = []
    for name in extra:
        module = import_module(name)
        paths += list(getattr(module, "__path__", None) or [module.__file__ or ""])
    return [path for path in paths if path]


def _standard_library() -> list[str]:
    """The files and folders of the standard library, without installed packages."""
    import sysconfig

    # Not /etc/localtime: sessions use UTC on every machine
    found = ["/usr/share/zoneinfo", "/dev/null", "/dev/urandom"]
    for folder in {sysconfig.get_path("stdlib"), sysconfig.get_path("platstdlib")}:
        found += [
            os.path.join(folder, name)
            for name in os.listdir(folder)
            if name not in {"site-packages", "dist-packages"}
        ]
    return found


def _hide_paths(package: str) -> None:
    """Hide the user's folders from model code: those of the interpreter and of this package. The
    folder of the standard library stays visible.
    """
    from . import describe

    rename: Any = vars(import_module("_imp"))["_fix_co_filename"]  # as the import system sets it
    sys.executable = ""
    sys.orig_argv[:] = sys.argv[:] = ["repl"]
    if hasattr(sys, "_base_executable"):
        sys._base_executable = ""  # noqa: SLF001 - holds the same path
    for key in [key for key in sys.path_importer_cache if key.startswith(package)]:
        del sys.path_importer_cache[key]
    name = __name__.partition(".")[0]
    for module in [module for key, module in sys.modules.items() if key.partition(".")[0] == name]:
        for field in ("__cached__", "__spec__", "__loader__"):
            vars(module).pop(field, None)
        module.__file__ = name + (getattr(module, "__file__", None) or "").removeprefix(package)
        if hasattr(module, "__path__"):
            module.__path__ = []
    for each in gc.get_objects():
        code = getattr(each, "__code__", None) if type(each) is types.FunctionType else None
        if code is not None and code.co_filename.startswith(package):
            rename(code, name + code.co_filename.removeprefix(package))
    describe.hide_paths(name + os.sep + "sandbox")


def serve(descriptor: int, package: str, folders: Sequence[str], extra: Sequence[str]) -> None:
    """Run the server process until its host closes the socket or ends."""
    gc.disable()  # nothing that is loaded here becomes garbage
    from . import child, harden

    requests = socket.socket(fileno=descriptor)
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # children are reaped by the kernel
    # A host that waits for signals blocks them, and children inherit the mask
    signal.pthread_sigmask(signal.SIG_SETMASK, [])
    readable = [*_standard_library(), *_preload(extra, folders)]
    library = set(readable)
    sys.path[:] = [
        path
        for path in sys.path
        if path.endswith(("lib-dynload", ".zip")) or path + "/os.py" in library
    ]
    try:
        plan = harden.Plan.make(readable)
    except harden.LayerMissingError as error:
        requests.sendall(MISSING + str(error.args[1]).encode())
        os._exit(1)
    later = list(LATER)
    if plan.ruleset is None:  # children cannot open the files of modules
        _load(later)
        later.clear()
    _hide_paths(package)
    _freeze()
    gc.enable()
    null = os.open(os.devnull, os.O_RDWR)
    for standard in (0, 1, 2):
        os.dup2(null, standard)
    os.close(null)
    requests.sendall(READY)
    own = os.getpid()
    while True:
        _load_while_idle(requests, later)
        _, descriptors, _, _ = socket.recv_fds(requests, 16, 1)
        if not descriptors:
            os._exit(0)  # the host has ended; the parent-death signal ends the children
        session = socket.socket(fileno=descriptors[0])
        try:
            pid = os.fork()
        except OSError as error:
            _send(session, REFUSED + _PID.pack(error.errno or 0), [])
            session.close()
            continue
        if pid == 0:
            requests.close()
            child.main(session, plan, own)  # never returns
        try:
            process = os.pidfd_open(pid)
            _send(session, FORKED + _PID.pack(pid), [process])
            os.close(process)
        except OSError as error:
            _send(session, REFUSED + _PID.pack(error.errno or 0), [])
        session.close()


def _send(session: socket.socket, message: bytes, descriptors: list[int]) -> None:
    """Answer on the session's socket. Errors are ignored: the host may have given up meanwhile."""
    try:
        socket.send_fds(session, [message], descriptors)
    except OSError:
        return


# The child's interpreter loads this package's modules without the package's __init__, which is for
# the host only.
_BOOT = """
import sys, types
package, descriptor, folders, extra = sys.argv[1], int(sys.argv[2]), sys.argv[3], sys.argv[4:]
for name, path in (
    ("rlm_integrations", package), ("rlm_integrations.sandbox", package + "/sandbox")
):
    module = sys.modules[name] = types.ModuleType(name)
    module.__path__ = [path]
from rlm_integrations.sandbox import forkserver
del name, path, module
forkserver.serve(
    descriptor, globals().pop("package"), [each for each in folders.split(":") if each], extra
)
"""


def _environment(python: str) -> dict[str, str]:
    """The server's environment: only the host's variables that the interpreter needs to find its
    libraries.
    """
    environment = {
        "PYTHONHASHSEED": "0",  # sets have the same order when a run is replayed
        "MALLOC_ARENA_MAX": "2",
        "LC_ALL": "C.UTF-8",
        "TZ": "UTC",
    }
    needed = ["LD_LIBRARY_PATH", *(["PYTHONHOME"] if python == sys.executable else [])]
    return environment | {name: os.environ[name] for name in needed if name in os.environ}


def _unavailable(layer: str) -> Exception:
    from rlm_integrations.errors import SandboxUnavailableError
    from rlm_integrations.sandbox._child_process import INSTEAD

    return SandboxUnavailableError(
        f"the sandbox 'process' cannot protect this machine from model code here: {layer}. "
        f"Run on another machine, {INSTEAD}"
    )


class ServerGoneError(OSError):
    """The server has ended; a new one may be started."""


class ForkServer:
    """The host's handle on its server, usable from any thread.

    Args:
        python: The interpreter to run.
        preload: Packages that model code may import in addition to the standard library.

    Raises:
        OSError: The server did not start; the message ends with its output.
        SandboxUnavailableError: A layer of protection that every child needs is missing.
    """

    def __init__(self, python: str, preload: Sequence[str] = ()) -> None:
        import subprocess

        package = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
        self._closing = threading.Lock()
        log = os.memfd_create("rlm-server-log", os.MFD_CLOEXEC)
        try:
            self._socket, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        except OSError:
            os.close(log)
            raise
        folders = (
            [each for each in sys.path if os.path.isabs(each)]
            if preload and python == sys.executable
            else []
        )
        try:
            self._process = subprocess.Popen(  # noqa: S603 - the caller chose the interpreter
                # Not -I: it would ignore the hash seed.
                [
                    python,
                    "-S",
                    "-s",
                    "-B",
                    "-P",
                    "-c",
                    _BOOT,
                    package,
                    str(theirs.fileno()),
                    ":".join(folders),
                    *preload,
                ],
                pass_fds=[theirs.fileno()],
                env=_environment(python),
                cwd="/",
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=log,
                start_new_session=True,  # Ctrl-C in the host's terminal is for the host only
            )
            theirs.close()
            answer = self._first_answer(python)
            written = os.pread(log, 1 << 16, 0)
        except BaseException:
            self._socket.close()
            raise
        finally:
            theirs.close()
            os.close(log)
        if answer.startswith(MISSING):
            self.close()
            raise _unavailable(answer[1:].decode())
        if answer != READY:
            self.close()
            reason = written.decode("utf-8", "replace").strip().rpartition("\n")[2]
            raise OSError(f"the sandbox's server did not start: {reason or 'it wrote nothing'}")

    def _first_answer(self, python: str) -> bytes:
        self._socket.settimeout(_START_SECONDS)
        try:
            answer = self._socket.recv(1 << 10)
        except TimeoutError as error:
            self._process.kill()
            self._process.wait()
            raise OSError(
                f"the sandbox's server did not start within {_START_SECONDS:g} s: is {python!r} "
                "an interpreter of Python? "
                "Another one can be named, as in ProcessSandbox(python='/usr/bin/python3')"
            ) from error
        self._socket.settimeout(None)
        return answer

    def fork(self) -> tuple[socket.socket, int, int]:
        """Fork a child; return the session's socket, the child's pidfd and its process id.

        Raises:
            ServerGoneError: The server has ended.
            OSError: The machine cannot start another process.
        """
        ours, theirs = socket.socketpair()
        try:
            with theirs:
                socket.send_fds(self._socket, [b"S"], [theirs.fileno()])
            answer, descriptors, _, _ = socket.recv_fds(ours, 1 + _PID.size, 1)
            while 0 < len(answer) < 1 + _PID.size:
                answer += ours.recv(1 + _PID.size - len(answer))
        except (BrokenPipeError, ConnectionError) as error:
            ours.close()
            raise ServerGoneError("the sandbox's server has ended") from error
        except BaseException:
            ours.close()
            raise
        if not descriptors:
            ours.close()
            if not answer:
                raise ServerGoneError("the sandbox's server has ended")
            number = _PID.unpack_from(answer, 1)[0]
            raise OSError(number, f"no further process: {os.strerror(number)}")
        return ours, descriptors[0], _PID.unpack_from(answer, 1)[0]

    def close(self) -> None:
        """End the server and all its children."""
        import subprocess

        with self._closing:
            self._socket.close()
            try:
                self._process.wait(timeout=1)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()

    def abandon(self) -> None:
        """Release the parent's server in a forked process; closing this copy of the socket leaves
        the parent's open.
        """
        self._socket.close()
        # It is a child of the parent process: nothing to wait for here, nothing to warn about
        self._process.returncode = 0
