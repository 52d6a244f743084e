"""The fork server: no code of the user runs in it, nothing of the user stays open in it, and its
failures are clear errors.
"""

import os
import signal
import socket
import subprocess
import sys
import venv
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from rlm_integrations._concurrency import runtime
from rlm_integrations.corpus import Corpus
from rlm_integrations.errors import SandboxError, SandboxUnavailableError
from rlm_integrations.records import Limits
from rlm_integrations.sandbox import forkserver
from rlm_integrations.sandbox._child_process import ChildProcess
from rlm_integrations.sandbox.base import ExecutionResult, Opening, Sandbox
from rlm_integrations.sandbox.forkserver import ForkServer
from rlm_integrations.sandbox.process import ProcessSandbox
from tests._processes import children_of
from tests._script import run_script
from tests.sandbox.wrappers import IDENTITIES, World, identity

TOKEN = "TOKEN-" + "0123456789abcdef"


@pytest.fixture(autouse=True)
def servers_of_a_test_end_with_it() -> Iterator[None]:
    before = set(runtime._shared)
    yield
    for key in set(runtime._shared) - before:
        if key[0] == "fork server":
            server = runtime._shared[key]
            runtime.forget(key, server)
            server.close()


async def run(sandbox: Sandbox, code: str) -> ExecutionResult:
    """The result of this code in a new session."""
    with Corpus.build("DOCUMENT") as corpus:
        session = await sandbox.open(Opening(corpus, [], no_gate, Limits()))
        try:
            return await session.execute(code, 1)
        finally:
            await session.close()


async def no_gate(*_: Any) -> Any:
    raise AssertionError("nothing is to be called")


@pytest.fixture
def listener() -> Iterator[socket.socket]:
    with socket.create_server(("127.0.0.1", 0)) as made:
        made.setblocking(False)
        yield made


@pytest.fixture
def python(tmp_path: Path, listener: socket.socket) -> str:
    """An interpreter of an environment whose packages open a connection and store a token when they
    are imported.
    """
    tmp_path.chmod(0o755)
    folder = tmp_path / "environment"
    venv.create(folder, symlinks=True)
    (packages,) = folder.glob("lib/python*/site-packages")
    opens = f"import socket\nTOKEN = {TOKEN!r}\nCONNECTION = socket.create_connection({listener.getsockname()!r})\n"
    for name in ("sitecustomize", "usercustomize", "opener", "of_a_line"):
        (packages / f"{name}.py").write_text(opens)
    (packages / "line.pth").write_text("import of_a_line\n")
    return str(folder / "bin" / "python")


def connections(listener: socket.socket) -> int:
    """The number of connections made."""
    count = 0
    while True:
        try:
            listener.accept()[0].close()
        except BlockingIOError:
            return count
        count += 1


LOOK = f"""
import gc, os, sys
token = "-".join(["TOKEN", "{TOKEN[6:]}"])
names = {{"sitecustomize", "usercustomize", "of_a_line"}} & sys.modules.keys()
tokens = [text for each in gc.get_objects() for text in gc.get_referents(each) if type(text) is str and text == token and text is not token]
opened = []
for descriptor in range(3, 1024):
    try:
        os.fstat(descriptor)
    except OSError:
        continue
    opened.append(descriptor)
print(sorted(names), len(tokens), len(opened))
"""


@pytest.mark.parametrize("name", IDENTITIES)
async def test_the_users_site_files_do_not_run(
    python: str, listener: socket.socket, name: str
) -> None:
    """No server runs a sitecustomize or a .pth file, which could open a connection and store a
    token.
    """
    subprocess.run([python, "-c", "pass"], check=True)
    assert connections(listener) == 2
    with World(user=identity(name).user, python=python).sandbox() as sandbox:
        result = await run(sandbox, LOOK)
    assert result.stdout == "[] 0 1\n", result.error  # the protocol's own socket
    assert connections(listener) == 0


async def test_connections_of_a_preloaded_package_are_closed(
    python: str, listener: socket.socket
) -> None:
    """A preloaded package is imported from its environment, and the connection that it opens is
    closed in every session.
    """
    result = await run(
        ProcessSandbox(python=python, preload=["opener"]),
        "import opener\n" + LOOK + "\nopener.CONNECTION.send(context.encode())",
    )
    assert connections(listener) == 1
    assert result.stdout.endswith(" 1\n"), result.error
    assert result.error is not None
    assert result.error.type in {"OSError", "PermissionError"}


async def test_builtins_of_site_exist() -> None:
    """`exit`, `help` and similar builtins exist although `site` has not run."""
    result = await run(
        ProcessSandbox(),
        "print(callable(help), callable(quit), len(str(copyright)) > 0)\nexit()\nprint('on')",
    )
    assert (result.status, result.stdout) == ("ok", "True True True\n")


async def test_paths_of_the_user_are_hidden() -> None:
    """The folders of this package and of the interpreter are not visible in `sys`, in modules or in
    code objects.
    """
    package = str(Path(forkserver.__file__).parents[1])
    code = f"""
        import gc, sys, types
        hidden = [{package[:-1]!r} + {package[-1]!r}, {sys.executable[:-1]!r} + {sys.executable[-1]!r}]
        seen = [repr(each) for each in vars(sys).values() if not isinstance(each, (dict, types.FunctionType))]
        seen += [repr(list(sys.path_importer_cache))]
        for module in list(sys.modules.values()):
            seen += [repr(vars(module).get(name)) for name in ("__file__", "__path__", "__spec__", "__cached__")]
        seen += [each.__code__.co_filename for each in gc.get_objects() if isinstance(each, types.FunctionType)]
        print(sorted({{text[:200] for text in seen for path in hidden if path in text}}))
    """
    result = await run(ProcessSandbox(), code)
    assert result.stdout == "[]\n", result.error


async def test_sessions_use_utc() -> None:
    """Sessions use UTC, whatever the machine's time zone."""
    code = "import time, datetime\nprint(time.tzname, time.localtime().tm_gmtoff, datetime.datetime.now().astimezone().utcoffset())"
    assert (await run(ProcessSandbox(), code)).stdout == "('UTC', 'UTC') 0 0:00:00\n"


async def test_threads_are_counted_where_the_process_cannot_be_looked_up() -> None:
    """The thread count is read through a descriptor that the process has sent, not through /proc,
    which may hide the process or reuse its number.
    """
    with Corpus.build("x") as corpus:
        session = await ProcessSandbox().open(Opening(corpus, [], no_gate, Limits()))
        session.child._pid = os.getpid()
        await session.execute(
            "import threading\nfor _ in range(20): threading.Thread(target=threading.Event().wait, daemon=True).start()",
            1,
        )
        assert session.child.threads() == 22
        await session.close()
        assert session.child.threads() == 0


# Requirements of the interpreter.


def wrapped(folder: Path, script: str) -> str:
    file = folder / "python"
    file.write_text(f"#!/bin/sh\n{script}\n")
    file.chmod(0o755)
    return str(file)


async def test_an_interpreter_that_needs_a_path_for_its_libraries_gets_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The server inherits LD_LIBRARY_PATH, which such an interpreter needs, and no other
    variable.
    """
    monkeypatch.setenv("LD_LIBRARY_PATH", "/of/the/user")
    monkeypatch.setenv("SECRET", "secret")
    python = wrapped(
        tmp_path,
        f'[ "$LD_LIBRARY_PATH" = /of/the/user ] && [ -z "$SECRET" ] && exec {sys.executable} "$@"',
    )
    assert (
        await run(ProcessSandbox(python=python), "import os\nprint(dict(os.environ))")
    ).stdout == "{}\n"


async def test_an_interpreter_that_needs_pythonhome_gets_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The server inherits PYTHONHOME."""
    python = wrapped(tmp_path, f'[ -n "$PYTHONHOME" ] && exec {sys.executable} "$@"')
    monkeypatch.setenv("PYTHONHOME", sys.base_prefix)
    monkeypatch.setattr(sys, "executable", python)
    assert (await run(ProcessSandbox(), "print(6 * 7)")).stdout == "42\n"


# Failures of the start.


async def test_an_interpreter_that_never_becomes_ready_is_killed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A program that is not Python and does not exit is killed, and the error says what to do."""
    monkeypatch.setattr(forkserver, "_START_SECONDS", 0.05)
    before = children_of(os.getpid())
    with pytest.raises(
        SandboxError,
        match=r"did not start within .* is '.*python' an interpreter of Python\?.*ProcessSandbox\(python=",
    ):
        await run(ProcessSandbox(python=wrapped(tmp_path, "exec sleep 1000")), "1")
    assert children_of(os.getpid()) == before


async def test_a_program_that_is_not_python_is_a_clear_error() -> None:
    """A program that exits without output is an error that says so."""
    with pytest.raises(SandboxError, match="did not start: it wrote nothing"):
        await run(ProcessSandbox(python="/bin/true"), "1")


@pytest.mark.parametrize("executable", [None, ""])
async def test_an_unknown_interpreter_is_a_clear_error(
    monkeypatch: pytest.MonkeyPatch, executable: str | None
) -> None:
    """A program that embeds Python has no sys.executable, which is an error with a remedy."""
    monkeypatch.setattr(sys, "executable", executable)
    with pytest.raises(SandboxError, match=r"sys.executable is empty.*name one"):
        await run(ProcessSandbox(), "1")


@pytest.mark.parametrize("victim", ["child", "server"])
async def test_a_process_that_is_killed_while_it_starts_is_started_again(
    monkeypatch: pytest.MonkeyPatch, victim: str
) -> None:
    """If the server or the child is killed while a session starts, the start is repeated once; this
    is not reported as a missing layer.
    """
    begin, fork, begun = ChildProcess.begin, ForkServer.fork, []

    def killed_child(child: ChildProcess, *args: Any) -> None:
        begun.append(child)
        if len(begun) == 1:
            os.kill(child._pid, signal.SIGKILL)
        begin(child, *args)

    def killed_server(server: ForkServer) -> Any:
        begun.append(server)
        forked = fork(server)
        if len(begun) == 1:
            server._process.kill()
            server._process.wait()
        return forked

    if victim == "child":
        monkeypatch.setattr(ChildProcess, "begin", killed_child)
    else:
        monkeypatch.setattr(ForkServer, "fork", killed_server)
    assert (await run(ProcessSandbox(), "print(6 * 7)")).stdout == "42\n"
    assert len(begun) >= 2


async def test_a_process_that_is_killed_twice_while_it_starts_is_an_error(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The start is repeated only once; then the error says what happened."""
    begin, begun = ChildProcess.begin, []

    def killed(child: ChildProcess, *args: Any) -> None:
        begun.append(child)
        os.kill(child._pid, signal.SIGKILL)
        begin(child, *args)

    monkeypatch.setattr(ChildProcess, "begin", killed)
    with pytest.raises(SandboxError, match="ended while it was starting") as raised:
        await run(ProcessSandbox(), "1")
    assert not isinstance(raised.value, SandboxUnavailableError)
    assert len(begun) == 2


async def test_a_machine_without_pidfd_signals_is_a_clear_error(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """If the kernel refuses pidfd_send_signal, no session starts, because it could not be ended."""

    def refused(*_: Any) -> None:
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(signal, "pidfd_send_signal", refused)
    with pytest.raises(SandboxError, match="no signal can be sent"):
        await run(ProcessSandbox(), "1")


OPEN = """
import asyncio, sys, threading
from rlm_integrations.corpus import Corpus
from rlm_integrations.errors import SandboxError
from rlm_integrations.records import Limits
from rlm_integrations.sandbox.base import Opening
from rlm_integrations.sandbox.process import ProcessSandbox

async def gate(*_): pass

async def main():
    with Corpus.build("x") as corpus:
        try:
            await ProcessSandbox().open(Opening(corpus, [], gate, Limits()))
        except SandboxError as error:
            print("refused:", error)
"""


def test_a_machine_without_free_threads_is_a_clear_error() -> None:
    """If no thread can be started, the error says so."""
    done = run_script(OPEN + "threading.stack_size(1 << 46)\nasyncio.run(main())\n")
    assert (done.stdout, done.stderr) == (
        "refused: the sandbox needs a thread to start in, and none can be started: can't start new thread\n",
        "",
    )


def test_opening_after_the_main_thread_ended_is_a_clear_error() -> None:
    """After the main thread has ended, Python starts no pool threads: opening a session is a clear
    error and does not hang.
    """
    code = "def late():\n    threading.main_thread().join()\n    asyncio.run(main())\nthreading.Thread(target=late).start()\n"
    done = run_script(OPEN + code)
    assert done.stdout.startswith(
        "refused: the sandbox needs a thread to start in, and none can be started: cannot schedule new futures"
    )


def test_a_limit_on_file_sizes_is_a_clear_error() -> None:
    """`ulimit -f` also limits files in memory: a document that is too large is a clear error."""
    code = """
import resource, signal
from rlm_integrations.corpus import Corpus
from rlm_integrations.errors import ContextError

signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
try:
    Corpus.build("x" * 1_000_000)
except ContextError as error:
    print(error)
"""
    done = run_script(code)
    assert "cannot be put into memory that a sandbox can read (File too large)" in done.stdout
    assert done.stderr == ""


# Before the first session.


async def test_a_prepared_server_is_the_one_that_sessions_use(tmp_path: Path) -> None:
    """`prepare` starts a server, once, and the first session uses it."""
    starts = tmp_path / "starts"
    sandbox = ProcessSandbox(
        python=wrapped(tmp_path, f'echo started >> {starts}; exec {sys.executable} "$@"')
    )
    sandbox.prepare()
    sandbox.prepare()
    assert (await run(sandbox, "print(6 * 7)")).stdout == "42\n"
    sandbox.prepare()
    assert starts.read_text() == "started\n"


async def test_a_server_that_cannot_be_prepared_is_an_error_of_the_session() -> None:
    """`prepare` does not raise; the session that needs the server does."""
    sandbox = ProcessSandbox(python="/bin/true")
    sandbox.prepare()
    with pytest.raises(SandboxError, match="did not start: it wrote nothing"):
        await run(sandbox, "1")


def test_what_is_loaded_later_needs_no_extension_module() -> None:
    """A child cannot load extension modules: those of all listed modules are loaded before the
    first child is forked.
    """
    code = """
import sys
from rlm_integrations.sandbox import forkserver

def extensions():
    files = {name: getattr(module, "__file__", None) or "" for name, module in sys.modules.items()}
    return {name for name, file in files.items() if file.endswith(".so")}

forkserver._load(forkserver.FIRST)
before = extensions()
forkserver._load(forkserver.LATER)
print(sorted(extensions() - before), "html.parser" in sys.modules)
"""
    assert run_script(code).stdout == "[] True\n"
