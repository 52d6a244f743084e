"""Attacks on the kernel's rare interfaces, where most of its vulnerabilities are. The filter
refuses these calls before the kernel handles them.
"""

from tests.sandbox.attacks.case import Attack

ATTACKS = [
    Attack(
        name="every other call",
        kind="kernel",
        must_not=(
            "A system call that is not on the list, known or unknown, is looked at by the kernel."
        ),
        layer="seccomp",
        code="""
            table = sys.modules["rlm_integrations.sandbox._syscalls"]
            # Numbers that have rules of their own, which other attacks try.
            ruled = '''open openat mmap mprotect ioctl fcntl socketpair sendto recvfrom pipe2 clone clone3 prctl prlimit64
                sched_getaffinity clock_gettime clock_getres clock_nanosleep tgkill close_range'''.split()
            listed = {table.NUMBERS[name] for name in [*table.PLAIN, *table.FILE_READS, *ruled] if name in table.NUMBERS}
            listed |= {335, 336}  # x86's uretprobe and uprobe: the kernel lets them past every filter, and ends who is not being probed
            numbers = [number for number in [*range(600), 1 << 20, (1 << 30) - 1] if number not in listed]
            reach(*[(number, -1, -1, -1, -1, -1, -1) for number in numbers])
        """,
    ),
    Attack(
        name="foreign calls",
        kind="kernel",
        must_not=(
            "A call uses another numbering (x32, or the 32-bit entry), which the filter would "
            "misread."
        ),
        layer="seccomp",
        ends=("lost",),
        says=r"ended by itself[^$]*by (int 0x80|x32|none)",
        keeps=False,
        code="""
            import mmap, platform
            if platform.machine() != "x86_64":
                llm_query(print("by none"))
                os._exit(0)  # there is one numbering only
            try:
                code = mmap.mmap(-1, 4096, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC)
                breach("code of its own")
            except PermissionError:
                pass
            # int 0x80; ret, if the C library happens to hold it: the kernel would take it for a
            # 32-bit program's call.
            start = ctypes.cast(libc.getpid, ctypes.c_void_p).value & ~0xFFF
            place = ctypes.string_at(start, 1 << 17).find(bytes.fromhex("cd80c3"))
            if place >= 0:
                llm_query(print("by int 0x80"))
                breach(ctypes.CFUNCTYPE(ctypes.c_long)(start + place)())
            llm_query(print("by x32"))
            breach(syscall(0x40000000 | 39))
        """,
    ),
    Attack(
        name="others' memory",
        kind="kernel",
        must_not="The memory or the descriptors of another process are read or changed.",
        layer="seccomp",
        works=True,
        code="""
            buffer = ctypes.create_string_buffer(16)
            vector = struct.pack("QQ", ctypes.addressof(buffer), 16)
            reach(
                ("process_vm_readv", os.getpid(), vector, 1, vector, 1, 0),
                ("process_vm_readv", os.getppid(), vector, 1, vector, 1, 0),
                ("process_vm_writev", os.getpid(), vector, 1, vector, 1, 0),
                ("ptrace", 1, -1, 0, 0),
                ("ptrace", 16, -1, 0, 0),
                ("process_madvise", -1, vector, 1, 0, 0),
                ("pidfd_getfd", -1, 0, 0),
            )
        """,
    ),
    Attack(
        name="namespaces",
        kind="kernel",
        must_not="The process gets a namespace in which it has capabilities.",
        layer="seccomp",
        works=True,
        code=(
            "reach(('unshare', 0), ('unshare', 0x10000000), ('unshare', 0x40000000), ('setns', "
            "-1, 0))"
        ),
    ),
    Attack(
        name="mounts",
        kind="kernel",
        must_not="The mount tree is changed or inspected with the mount calls.",
        layer="seccomp",
        works=True,
        code="""
            reach(
                ("mount", b"none", b"/", b"tmpfs", 0, None),
                ("umount2", b"/", 0),
                ("pivot_root", b"/", b"/"),
                ("chroot", b"/"),
                ("fsopen", None, 0),
                ("open_tree", -1, b"x", 0),
                ("move_mount", -1, b"", -1, b"", 0),
                ("mount_setattr", -1, b"", 0, None, 0),
            )
        """,
    ),
    Attack(
        name="io_uring",
        kind="kernel",
        must_not="System calls are made through io_uring, which bypasses filters.",
        layer="seccomp",
        works=True,
        code=(
            "reach(('io_uring_setup', 0, None), ('io_uring_enter', -1, 0, 0, 0, None, 0), "
            "('io_uring_register', -1, 0, None, 0))"
        ),
    ),
    Attack(
        name="programs in the kernel",
        kind="kernel",
        must_not="A program, a tracer or a page fault handler is loaded into the kernel.",
        layer="seccomp",
        works=True,
        code=(
            "reach(('bpf', 0, None, 0), ('perf_event_open', None, 0, -1, -1, -1), "
            "('userfaultfd', 0), ('userfaultfd', 1))"
        ),
    ),
    Attack(
        name="keys",
        kind="kernel",
        must_not="The user's keyring is read or changed.",
        layer="seccomp",
        works=True,
        code=(
            "reach(('keyctl', -1), ('keyctl', 0, -4, 0), ('add_key', None, None, None, 0, 0), "
            "('request_key', None, None, None, 0))"
        ),
    ),
    Attack(
        name="code of its own",
        kind="kernel",
        must_not=(
            "Memory becomes executable, so that code other than Python's and its libraries' runs."
        ),
        layer="seccomp",
        works=True,
        code="""
            import mmap
            page = mmap.mmap(-1, 4096)
            address = ctypes.addressof(ctypes.c_char.from_buffer(page))
            attempt(
                lambda: mmap.mmap(-1, 4096, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC),
                lambda: syscall("mprotect", address, 4096, 5),
                lambda: syscall("pkey_mprotect", address, 4096, 5, -1),
                lambda: syscall("personality", 0x0400000),
            )
        """,
    ),
    Attack(
        name="files without a name",
        kind="kernel",
        must_not="A file in memory is created, which could be executed or exceed every limit.",
        layer="seccomp",
        works=True,
        code="attempt(lambda: os.memfd_create('x'), lambda: syscall('memfd_secret', 0))",
    ),
    Attack(
        name="its own chains",
        kind="kernel",
        must_not=(
            "Code reads, replaces or extends its confinement: filters, Landlock, socket filters."
        ),
        layer="seccomp",
        works=True,
        code="""
            program = struct.pack("HxxxxxxQ", 1, 0)
            reach(
                ("seccomp", 2, 0, struct.pack("I", 0)),
                ("seccomp", 1, 8, program),
                ("prctl", 21, 0, 0, 0, 0),
                ("prctl", 22, 2, program, 0, 0),
                ("prctl", 24, 0, 0, 0, 0),
                ("prctl", 35, 0, 0, 0, 0),
                ("landlock_create_ruleset", None, 0, 1),
                ("landlock_restrict_self", -1, 0),
                ("setsockopt", protocol_socket(), 1, 26, program, 16),
                ("setsockopt", protocol_socket(), 1, 50, struct.pack("i", -1), 4),
            )
        """,
    ),
    Attack(
        name="channels between processes",
        kind="kernel",
        must_not=(
            "Shared memory, queues, moved pages, watches or watch queues connect the session "
            "with others."
        ),
        layer="seccomp",
        works=True,
        code="""
            reach(
                ("shmget", 0x5EC, 1, 0), ("semget", 0x5EC, 1, 0), ("msgget", 0x5EC, 0), ("mq_open", b"x", 0, 0, None),
                ("splice", -1, None, -1, None, 1, 0), ("tee", -1, -1, 1, 0), ("vmsplice", -1, None, 0, 0), ("sendfile", -1, -1, None, 1),
                ("copy_file_range", -1, None, -1, None, 1, 0), ("inotify_init1", -1), ("fanotify_init", -1, 0),
                ("pipe2", ctypes.create_string_buffer(8), 0x80), ("remap_file_pages", 0, 0, 0, 0, 0),
            )
        """,
    ),
]
