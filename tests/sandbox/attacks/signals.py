"""Attacks with signals: on other processes, and on the signals that end this process."""

from tests.sandbox.attacks.case import SHORT, Attack

ATTACKS = [
    Attack(
        name="kill",
        kind="signals",
        must_not=(
            "A signal reaches the host, the server, another session, or all reachable processes."
        ),
        layer="seccomp",
        works=True,
        code=(
            "attempt(*[lambda pid=pid: os.kill(pid, 0) for pid in (HOST, os.getppid(), "
            "NEIGHBOUR, 0, -1)])"
        ),
    ),
    Attack(
        name="kill a group",
        kind="signals",
        must_not="A signal reaches a group of processes.",
        layer="seccomp",
        works=True,
        code="attempt(lambda: os.killpg(0, 0), lambda: os.killpg(os.getpgid(os.getppid()), 0))",
    ),
    Attack(
        name="kill a thread",
        kind="signals",
        must_not="A signal reaches a thread of another process.",
        layer="seccomp",
        works=True,
        code="""
            parent = os.getppid()
            reach(("tkill", parent, 0), ("tgkill", parent, parent, 0), ("tgkill", HOST, HOST, 0), ("tkill", os.getpid(), 0))
        """,
    ),
    Attack(
        name="queued signals",
        kind="signals",
        must_not="A signal with data reaches another process.",
        layer="seccomp",
        works=True,
        code="""
            parent, data = os.getppid(), struct.pack("iii", 0, 0, -1) + bytes(116)
            reach(("rt_sigqueueinfo", parent, 0, data), ("rt_tgsigqueueinfo", parent, parent, 0, data))
        """,
    ),
    Attack(
        name="by descriptor",
        kind="signals",
        must_not="A signal is sent through a process's descriptor.",
        layer="seccomp",
        works=True,
        code=(
            "attempt(lambda: os.pidfd_open(os.getppid()), lambda: syscall('pidfd_send_signal', "
            "-1, 0, None, 0))"
        ),
    ),
    Attack(
        name="owner of a socket",
        kind="signals",
        must_not="The kernel is configured to signal another process when data arrive on a socket.",
        layer="seccomp",
        works=True,
        code="""
            import fcntl, socket
            one, two = socket.socketpair()
            owner = struct.pack("i", os.getppid())
            attempt(
                lambda: fcntl.fcntl(one, fcntl.F_SETOWN, os.getppid()),
                lambda: fcntl.fcntl(one, 15, struct.pack("ii", 1, os.getppid())),
                lambda: fcntl.fcntl(one, 10, 9),
                lambda: fcntl.ioctl(one, 0x8901, owner),
                lambda: fcntl.ioctl(one, 0x8902, owner),
                lambda: fcntl.ioctl(one, 0x5452, struct.pack("i", 1)),
            )
        """,
    ),
    Attack(
        name="timers",
        kind="signals",
        must_not="A kernel timer is created that signals any thread.",
        layer="seccomp",
        works=True,
        code="""
            timer = ctypes.create_string_buffer(8)
            reach(("timer_create", 1, None, timer), ("timerfd_create", 1, 0), ("signalfd4", -1, bytes(8), 8, 0))
        """,
    ),
    Attack(
        name="outliving the server",
        kind="signals",
        must_not="The process survives its server, adopts others, or allows a tracer.",
        layer="seccomp",
        works=True,
        code=(
            "reach(('prctl', 1, 0, 0, 0, 0), ('prctl', 36, 0, 0, 0, 0), ('prctl', 4, 1, 0, 0, "
            "0), ('prctl', 0x59616D61, -1, 0, 0, 0))"
        ),
    ),
    Attack(
        name="ignoring the interrupt",
        kind="signals",
        must_not="Code continues to compute after its time limit.",
        layer="watch",
        limits=SHORT,
        ends=("lost",),
        says="did not end within 0.2 s",
        code="import signal\nsignal.signal(signal.SIGINT, signal.SIG_IGN)\nwhile True: pass",
    ),
    Attack(
        name="blocking and catching",
        kind="signals",
        must_not="Code continues to compute after its time limit.",
        layer="watch",
        limits=SHORT,
        ends=("lost",),
        says="did not end within 0.2 s",
        code="""
            import signal
            signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
            def compute(outer):
                while True:
                    try:
                        while not outer:
                            pass
                        compute(outer - 1)
                    except BaseException:
                        continue
            compute(4)  # an interrupt between two tries is caught further out
        """,
    ),
    Attack(
        name="stopping itself",
        kind="signals",
        must_not="A process that stands still holds its host for ever.",
        layer="watch",
        limits=SHORT,
        ends=("lost",),
        says="did not end within 0.2 s",
        code="import signal\nsignal.raise_signal(signal.SIGSTOP)",
    ),
    Attack(
        name="killing itself",
        kind="signals",
        must_not=(
            "The death of a session raises an exception in the host, or is not reported as a "
            "lost session."
        ),
        layer="own process",
        ends=("lost",),
        says="its process ended by itself",
        code="import signal\nsignal.raise_signal(signal.SIGKILL)",
    ),
]
