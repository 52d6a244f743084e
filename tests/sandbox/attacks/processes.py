"""Attacks that start, become or control processes."""

from tests.sandbox.attacks.case import Attack

ATTACKS = [
    Attack(
        name="fork",
        kind="processes",
        must_not="The session gets a second process.",
        layer="seccomp",
        works=True,
        code="""
            pid = os.fork()
            if pid == 0:
                os._exit(0)
            os.waitpid(pid, 0)
            breach("forked")
        """,
    ),
    Attack(
        name="raw clone",
        kind="processes",
        must_not="A process is made by the bare system call, past Python and the C library.",
        layer="seccomp",
        works=True,
        code="""
            pid = syscall("clone", 17, 0, 0, 0, 0)
            if pid == 0:
                os._exit(0)
            os.waitpid(pid, 0)
            breach("cloned")
        """,
    ),
    Attack(
        name="clone3",
        kind="processes",
        must_not="A process is created with the newer call, whose flags a filter cannot read.",
        layer="seccomp",
        says="Function not implemented",
        code="""
            arguments = struct.pack("11Q", 0, 0, 0, 0, 17, 0, 0, 0, 0, 0, 0)
            pid = syscall("clone3", arguments, len(arguments))
            if pid == 0:
                os._exit(0)
            breach("cloned")
        """,
    ),
    Attack(
        name="thread with more than a thread's flags",
        kind="processes",
        must_not="A thread gets its own namespaces, tracer, pidfd or descriptor table.",
        layer="seccomp",
        code="""
            thread = 0x10000 | 0x100 | 0x400 | 0x800
            namespaces = [0x10000000, 0x20000000, 0x40000000, 0x08000000, 0x04000000, 0x02000000, 0x00020000]
            more = [0x1000, 0x2000, 0x4000, 0x8000, 0x800000, 0x80000000]
            fewer = [thread & ~bit for bit in (0x10000, 0x100, 0x400, 0x800)]
            flags = [thread | extra for extra in namespaces + more] + fewer
            attempt(*[lambda each=each: syscall("clone", each, 0, 0, 0, 0) for each in flags])
        """,
    ),
    Attack(
        name="posix_spawn",
        kind="processes",
        must_not="A program is started.",
        layer="seccomp",
        works=True,
        code="""
            pid = os.posix_spawn("/bin/sh", ["sh", "-c", "exit 0"], {})
            os.waitpid(pid, 0)
            breach("spawned")
        """,
    ),
    Attack(
        name="subprocess",
        kind="processes",
        must_not="A command is run.",
        layer="seccomp",
        works=True,
        code=(
            "import subprocess\nbreach(subprocess.run(['/bin/sh', '-c', 'echo run'], "
            "capture_output=True).stdout)"
        ),
    ),
    Attack(
        name="system",
        kind="processes",
        must_not="A shell is started by the C library.",
        layer="seccomp",
        works=True,
        code="""
            if os.system("exit 0") == 0:
                breach("a shell ran")
            raise PermissionError("no shell")
        """,
    ),
    Attack(
        name="exec",
        kind="processes",
        must_not="The process becomes another program, outside Python's control.",
        layer="seccomp",
        works=True,
        # Programs that do not exist: if exec is allowed it fails with that error, and this process
        # continues.
        code=(
            "reach(('execve', b'/nowhere/program', None, None), ('execveat', -1, b'program', "
            "None, None, 0))"
        ),
    ),
    Attack(
        name="another user",
        kind="processes",
        must_not="The process becomes another user or joins another group.",
        layer="seccomp",
        works=True,
        code=(
            "reach(('setresuid', -1, -1, -1), ('setresgid', -1, -1, -1), ('setuid', 0), "
            "('setgroups', 0, None), ('capset', None, None))"
        ),
    ),
    Attack(
        name="scheduling",
        kind="processes",
        must_not="The process changes its own scheduling, or that of others.",
        layer="seccomp",
        works=True,
        code="""
            reach(
                ("setpriority", 0, 0, 0),
                ("sched_setscheduler", 0, 0, struct.pack("i", 0)),
                ("sched_setaffinity", 0, 8, bytes(8)),
                ("sched_setaffinity", os.getppid(), 8, bytes(8)),
            )
        """,
    ),
    Attack(
        name="raising limits",
        kind="processes",
        must_not="A limit is raised again, or taken off another process.",
        layer="seccomp",
        says="not allowed to raise|PermissionError|Operation not permitted",
        works=True,
        code="""
            import resource
            for what in (resource.RLIMIT_AS, resource.RLIMIT_FSIZE, resource.RLIMIT_NOFILE):
                hard = resource.getrlimit(what)[1]
                try:
                    resource.prlimit(os.getppid(), what)
                    breach("the parent's limits")
                except OSError:
                    pass
                resource.setrlimit(what, (hard, hard))
                breach(what)
        """,
    ),
    Attack(
        name="looking at others",
        kind="processes",
        must_not=(
            "The session lists other processes and their resources with calls that need no file."
        ),
        layer="seccomp",
        works=True,
        code="""
            attempt(
                lambda: time.clock_gettime((~os.getppid() << 3) | 2),
                lambda: time.clock_getres((~HOST << 3) | 2),
                lambda: os.sched_getaffinity(os.getppid()),
                lambda: syscall("prlimit64", os.getppid(), 7, None, ctypes.create_string_buffer(16)),
                lambda: syscall("pidfd_open", os.getppid(), 0),
                lambda: syscall("getpriority", 0, HOST),
                lambda: syscall("kcmp", os.getpid(), os.getppid(), 0, 0, 0),
            )
        """,
    ),
]
