"""System call numbers, and which of them the sandbox's child may use.

The numbers are the kernel's, per architecture.
"""

import platform

_MACHINES: dict[str, tuple[int, dict[str, int]]] = {
    "x86_64": (
        0xC000003E,
        {
            "read": 0, "write": 1, "open": 2, "close": 3, "stat": 4, "fstat": 5, "lstat": 6,
            "poll": 7, "lseek": 8, "mmap": 9, "mprotect": 10, "munmap": 11, "brk": 12,
            "rt_sigaction": 13, "rt_sigprocmask": 14, "rt_sigreturn": 15, "ioctl": 16,
            "pread64": 17, "readv": 19, "writev": 20, "access": 21, "pipe": 22, "select": 23,
            "sched_yield": 24, "mremap": 25, "madvise": 28, "dup": 32, "dup2": 33, "nanosleep": 35,
            "getitimer": 36, "alarm": 37, "setitimer": 38, "getpid": 39, "socket": 41, "sendto": 44,
            "recvfrom": 45, "socketpair": 53, "clone": 56, "execve": 59, "exit": 60, "kill": 62,
            "fcntl": 72, "getcwd": 79, "gettimeofday": 96, "getrusage": 98, "sysinfo": 99,
            "times": 100, "getuid": 102, "getgid": 104, "geteuid": 107, "getegid": 108,
            "getppid": 110, "capget": 125, "capset": 126, "sigaltstack": 131, "prctl": 157,
            "gettid": 186, "time": 201, "futex": 202, "sched_getaffinity": 204, "getdents64": 217,
            "restart_syscall": 219, "clock_gettime": 228, "clock_getres": 229,
            "clock_nanosleep": 230, "exit_group": 231, "epoll_wait": 232, "epoll_ctl": 233,
            "tgkill": 234, "openat": 257, "newfstatat": 262, "unshare": 272, "faccessat": 269,
            "pselect6": 270, "ppoll": 271, "set_robust_list": 273, "epoll_pwait": 281,
            "eventfd2": 290, "epoll_create1": 291, "dup3": 292, "pipe2": 293, "prlimit64": 302,
            "seccomp": 317, "getrandom": 318, "membarrier": 324, "statx": 332, "rseq": 334,
            "clone3": 435, "close_range": 436, "faccessat2": 439, "epoll_pwait2": 441,
            "landlock_create_ruleset": 444, "landlock_add_rule": 445, "landlock_restrict_self": 446,
        },
    ),
    "aarch64": (
        0xC00000B7,
        {
            "getcwd": 17, "eventfd2": 19, "epoll_create1": 20, "epoll_ctl": 21, "epoll_pwait": 22,
            "dup": 23, "dup3": 24, "fcntl": 25, "ioctl": 29, "faccessat": 48, "openat": 56,
            "close": 57, "pipe2": 59, "getdents64": 61, "lseek": 62, "read": 63, "write": 64,
            "readv": 65, "writev": 66, "pread64": 67, "pselect6": 72, "ppoll": 73, "newfstatat": 79,
            "fstat": 80, "capget": 90, "capset": 91, "exit": 93, "exit_group": 94, "unshare": 97,
            "futex": 98, "set_robust_list": 99, "nanosleep": 101, "getitimer": 102,
            "setitimer": 103, "clock_gettime": 113, "clock_getres": 114, "clock_nanosleep": 115,
            "sched_getaffinity": 123, "sched_yield": 124, "restart_syscall": 128, "kill": 129,
            "tgkill": 131, "sigaltstack": 132, "rt_sigaction": 134, "rt_sigprocmask": 135,
            "rt_sigreturn": 139, "times": 153, "getrusage": 165, "prctl": 167, "gettimeofday": 169,
            "getpid": 172, "getppid": 173, "getuid": 174, "geteuid": 175, "getgid": 176,
            "getegid": 177, "gettid": 178, "sysinfo": 179, "socket": 198, "socketpair": 199,
            "sendto": 206, "recvfrom": 207, "brk": 214, "munmap": 215, "mremap": 216, "clone": 220,
            "execve": 221, "mmap": 222, "mprotect": 226, "madvise": 233, "prlimit64": 261,
            "seccomp": 277, "getrandom": 278, "membarrier": 283, "statx": 291, "rseq": 293,
            "clone3": 435, "close_range": 436, "faccessat2": 439, "epoll_pwait2": 441,
            "landlock_create_ruleset": 444, "landlock_add_rule": 445, "landlock_restrict_self": 446,
        },
    ),
}  # fmt: skip

AUDIT_ARCH, NUMBERS = _MACHINES.get(platform.machine(), (0, {}))

# Allowed with any arguments: none of these takes a path, a process or an address outside. Other
# calls have separate rules.
PLAIN = (
    "read write close fstat poll lseek munmap brk rt_sigaction rt_sigprocmask rt_sigreturn "
    "pread64 readv writev pipe select sched_yield mremap madvise dup dup2 nanosleep getitimer "
    "alarm setitimer getpid exit getcwd gettimeofday getrusage sysinfo times getuid getgid "
    "geteuid getegid getppid sigaltstack gettid time futex restart_syscall exit_group epoll_wait "
    "epoll_ctl pselect6 ppoll set_robust_list epoll_pwait eventfd2 epoll_create1 dup3 getrandom "
    "membarrier rseq epoll_pwait2"
).split()

# Allowed only if Landlock restricts which files can be read. Landlock does not restrict metadata.
# Without Landlock these are refused too, although newer C libraries implement fstat() with
# newfstatat or statx: a flag of those calls allows any path.
FILE_READS = "stat lstat newfstatat statx access getdents64 faccessat faccessat2".split()
