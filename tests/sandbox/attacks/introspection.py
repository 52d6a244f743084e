"""Attacks that inspect the process: for secrets, for other sessions, for ways to remove the
layers.
"""

from tests.sandbox.attacks.case import Attack

ATTACKS = [
    Attack(
        name="environment",
        kind="introspection",
        must_not="The host's environment, which has keys, is visible.",
        layer="clean server",
        ends=("ok",),
        says="nothing",
        code=r"""
            import re
            found = [f"{key}={value}".encode() for key, value in os.environ.items()]
            block = ctypes.POINTER(ctypes.c_char_p).in_dll(libc, "environ")
            place = 0
            while block and block[place]:
                found.append(block[place])
                place += 1
            libc.getenv.restype = ctypes.c_char_p
            found.append(libc.getenv(b"ATTACKED_SECRET") or b"")
            print(re.findall(rb"SECRET\S*", b" ".join(found)) and breach("secret") or "nothing")
        """,
    ),
    Attack(
        name="objects in memory",
        kind="introspection",
        must_not=(
            "A secret of the host or the text of another session is an object of this interpreter."
        ),
        layer="clean server",
        ends=("ok",),
        says="nothing",
        code=r"""
            import re
            pattern = re.compile("SECRE" + "T-[0-9a-f]{16}")
            def texts():
                seen, rest = set(), [gc.get_objects(), list(sys.modules.values()), sys.orig_argv, list(sys._current_frames().values())]
                while rest:
                    each = rest.pop()
                    if isinstance(each, str):
                        yield each
                    elif id(each) not in seen:
                        seen.add(id(each))
                        rest.extend(gc.get_referents(each) if not isinstance(each, (int, float, bytes)) else [])
            print(any(pattern.search(text) for text in texts()) and breach("secret") or "nothing")
        """,
    ),
    Attack(
        name="the server's files in /proc",
        kind="introspection",
        must_not="The memory, the descriptors or the environment of the server are read.",
        layer="landlock",
        works=True,
        code="""
            parent = os.getppid()
            open_each(f"/proc/{parent}", "environ mem maps fd cmdline root")
        """,
    ),
    Attack(
        name="the host's files in /proc",
        kind="introspection",
        must_not=(
            "The memory, the descriptors, the environment or the command line of the host are read."
        ),
        layer="landlock",
        works=True,
        code='open_each(f"/proc/{HOST}", "environ mem maps fd cmdline task")',
    ),
    Attack(
        name="another session's files in /proc",
        kind="introspection",
        must_not="The memory or the state of another session is read.",
        layer="landlock",
        works=True,
        code='open_each(f"/proc/{NEIGHBOUR}", "mem maps status fd stack")',
    ),
    Attack(
        name="its own files in /proc",
        kind="introspection",
        must_not="The process reads or changes its own read-only memory through a file.",
        layer="landlock",
        works=True,
        code='open_each("/proc/self", "mem maps environ fd status exe cwd")',
    ),
    Attack(
        name="descriptors that are open",
        kind="introspection",
        must_not="A descriptor of the server, the host or another session was left open.",
        layer="clean server",
        ends=("ok",),
        says=r"^\[0, 1, 2\] \[b'', b'', b''\]$",
        code="""
            found = []
            for descriptor in set(range(1024)) - {protocol_socket()}:
                try:
                    os.get_inheritable(descriptor)
                    found.append(descriptor)
                except OSError:
                    continue
            print(found, [os.read(descriptor, 1) for descriptor in found])
        """,
    ),
    Attack(
        name="the server's own code",
        kind="introspection",
        must_not=(
            "The package's code that starts servers and seals children can start or undo something."
        ),
        layer="seccomp",
        code="""
            import resource
            forkserver, harden = (sys.modules["rlm_integrations.sandbox." + name] for name in ("forkserver", "harden"))
            plan = harden.Plan(None, "", ())
            before = resource.getrlimit(resource.RLIMIT_AS)
            try:
                plan.seal(parent=os.getppid(), memory=1 << 40, keep=(0, 1, 2, protocol_socket()))
                breach("sealed anew")
            except OSError:
                pass
            if resource.getrlimit(resource.RLIMIT_AS) != before:
                breach("other limits")
            forkserver.ForkServer(sys.executable)
            breach("another server")
        """,
    ),
    Attack(
        name="frames",
        kind="introspection",
        must_not=(
            "Objects in the frames of the package's code (plan, channel, opening) restore a "
            "dropped permission."
        ),
        layer="seccomp",
        code="""
            frame, found = sys._getframe(), {}
            while frame:
                found.update(frame.f_locals)
                frame = frame.f_back
            attempt(
                lambda: os.fstat(found["plan"].ruleset if found["plan"].ruleset is not None else -1),
                lambda: found["session"].shutdown(2),
                lambda: found["session"].getpeername(),
                lambda: found["session"].dup().connect("/"),
                lambda: found["session"].recvmsg(1, 1024),
            )
        """,
    ),
    Attack(
        name="patched modules",
        kind="introspection",
        must_not="One session's changes of the library reach another.",
        layer="own process",
        ends=("ok", "error", "lost"),
        says="",
        keeps=False,
        code="""
            import builtins, importlib
            json.dumps = os.write = time.time = builtins.len = None
            for module in list(sys.modules.values()):
                for name in ("loads", "open", "getpid", "fork", "execute", "send"):
                    if hasattr(module, name):
                        setattr(module, name, lambda *args, **kwargs: breach("patched"))
        """,
    ),
    Attack(
        name="patched interpreter",
        kind="introspection",
        must_not="One session's changes of the interpreter's own objects reach another.",
        layer="own process",
        ends=("ok", "error", "lost"),
        says="",
        keeps=False,
        code="""
            for number in (6, 7, 42, 0):
                ctypes.memset(id(number) + 24, 3, 1)
            ctypes.memset(id(int) + 64, 0, 64)
            int("42")
        """,
    ),
    Attack(
        name="installed packages",
        kind="introspection",
        must_not="Installed packages, and files next to them, are read.",
        layer="landlock",
        says="ModuleNotFoundError|PermissionError",
        code="""
            for folder in SITE:
                try:
                    breach(os.listdir(folder)[:1])
                except PermissionError:
                    sys.path.append(folder)
            import pytest
            breach("imported")
        """,
    ),
]
