"""Attacks that read, change or leave files. With Landlock the standard library can be read; without
it, no file can be opened.
"""

from tests.sandbox.attacks.case import Attack

ATTACKS = [
    Attack(
        name="read",
        kind="files",
        must_not="A file of the machine is read.",
        layer="landlock",
        works=True,
        code="breach(open('/etc/passwd').read()[:20])",
    ),
    Attack(
        name="read, spelt otherwise",
        kind="files",
        must_not="The same file is read through another path or another call.",
        layer="landlock",
        works=True,
        code="""
            import io, pathlib
            how = struct.pack("QQQ", 0, 0, 0)
            attempt(
                lambda: os.open("etc/passwd", os.O_RDONLY),
                lambda: os.open("//dev/../etc/passwd", os.O_RDONLY | os.O_NOFOLLOW),
                lambda: os.open("/proc/self/root/etc/passwd", os.O_RDONLY),
                lambda: os.open("passwd", os.O_RDONLY, dir_fd=os.open("/etc", os.O_DIRECTORY)),
                lambda: os.open("etc", os.O_RDONLY, dir_fd=os.open("/", os.O_PATH)),
                lambda: io.FileIO("/etc/passwd").read(1),
                lambda: pathlib.Path("/etc/passwd").read_bytes(),
                lambda: io.open_code("/etc/passwd").read(1),
                lambda: syscall("openat2", -100, b"/etc/passwd", how, len(how)),
            )
        """,
    ),
    Attack(
        name="list",
        kind="files",
        must_not="A folder is listed.",
        layer="landlock",
        works=True,
        code="""
            import glob
            for found in (glob.glob("/*"), glob.glob(SCRATCH + "/*")):
                if found:
                    breach(found)
            attempt(lambda: os.listdir("/"), lambda: next(os.scandir("/etc")), lambda: os.listdir("/proc/self/fd"))
        """,
    ),
    Attack(
        name="handles",
        kind="files",
        must_not="A file is opened without reading it, for later use.",
        layer="seccomp",
        works=True,
        code="""
            handle = struct.pack("Ii", 128, 0) + bytes(128)
            reach(("name_to_handle_at", -100, b"/", handle, bytes(4), 0), ("open_by_handle_at", -100, handle, 0))
        """,
    ),
    Attack(
        name="bare handles",
        kind="files",
        must_not="A folder is opened with O_PATH, which Landlock does not check.",
        layer="seccomp",
        works=True,
        code=(
            "attempt(lambda: os.open('/', os.O_PATH), lambda: os.open('/', os.O_PATH | "
            "os.O_DIRECTORY | os.O_CLOEXEC))"
        ),
    ),
    Attack(
        name="create",
        kind="files",
        must_not="A file is created.",
        layer="seccomp",
        works=True,
        code="""
            import tempfile
            attempt(
                lambda: open(SCRATCH + "/new", "w"),
                lambda: os.open(SCRATCH + "/newer", os.O_CREAT | os.O_RDONLY, 0o600),
                lambda: os.open(SCRATCH, os.O_TMPFILE | os.O_RDWR, 0o600),
                lambda: tempfile.NamedTemporaryFile(dir=SCRATCH),
                lambda: os.mkdir(SCRATCH + "/folder"),
                lambda: os.mkfifo(SCRATCH + "/fifo"),
                lambda: os.symlink("/etc/passwd", SCRATCH + "/link"),
            )
        """,
    ),
    Attack(
        name="change",
        kind="files",
        must_not="A file is written to or truncated.",
        layer="seccomp",
        works=True,
        code="""
            attempt(
                lambda: open(VICTIM, "a").write("more"),
                lambda: open(VICTIM, "r+").write("other"),
                lambda: os.truncate(VICTIM, 1),
                lambda: os.open(VICTIM, os.O_RDONLY | os.O_TRUNC),
            )
        """,
    ),
    Attack(
        name="remove",
        kind="files",
        must_not="A file is removed, renamed or linked.",
        layer="seccomp",
        works=True,
        code="""
            attempt(
                lambda: os.link(VICTIM, SCRATCH + "/second"),
                lambda: os.rename(VICTIM, SCRATCH + "/moved"),
                lambda: os.unlink(VICTIM),
                lambda: os.rmdir(SCRATCH),
            )
        """,
    ),
    Attack(
        name="permissions",
        kind="files",
        must_not="Permissions, owner, times or attributes of a file are changed.",
        layer="seccomp",
        works=True,
        code="""
            attempt(
                lambda: os.chmod(VICTIM, 0o777),
                lambda: os.chown(VICTIM, -1, -1),
                lambda: os.utime(VICTIM, (1, 1)),
                lambda: os.setxattr(VICTIM, "user.mark", b"1"),
            )
        """,
    ),
    Attack(
        name="elsewhere",
        kind="files",
        must_not="The process changes its folder or its root.",
        layer="seccomp",
        works=True,
        code="attempt(lambda: os.chdir(SCRATCH), lambda: os.fchdir(0), lambda: os.chroot(SCRATCH))",
    ),
    Attack(
        name="database and module",
        kind="files",
        must_not=(
            "A library opens a database, or imports a module from a folder that the user may "
            "write to."
        ),
        layer="landlock",
        says="ModuleNotFoundError: No module named 'planted'",
        works=True,
        code="""
            import sqlite3
            try:
                sqlite3.connect(SCRATCH + "/data.db").execute("create table t (x)")
                breach("a database")
            except sqlite3.OperationalError:
                pass
            sys.path.append(SCRATCH)
            import planted
        """,
    ),
    Attack(
        name="devices",
        kind="files",
        must_not="A device is opened, or the null device for writing.",
        layer="landlock",
        works=True,
        code="""
            names = "zero full mem kmsg tty shm fuse userfaultfd ptmx".split()
            attempt(*[lambda name=name: os.open(f"/dev/{name}", 0) for name in names], lambda: os.open("/dev/null", os.O_WRONLY))
        """,
    ),
]
