"""Definitions for every attack: system calls by number, and hand-written frames on the socket,
which is found by introspection.
"""

import platform

_MACHINES = {
    "x86_64": """
        ptrace 101 process_vm_readv 310 process_vm_writev 311 kcmp 312 process_madvise 440 pidfd_open 434 pidfd_getfd 438
        pidfd_send_signal 424 kill 62 tkill 200 tgkill 234 rt_sigqueueinfo 129 rt_tgsigqueueinfo 297 execve 59 execveat 322
        clone 56 clone3 435 setuid 105 setresuid 117 setresgid 119 setgroups 116 setpriority 141 getpriority 140
        sched_setaffinity 203 sched_getaffinity 204 sched_setscheduler 144 prlimit64 302 unshare 272 setns 308 mount 165
        umount2 166 pivot_root 155 chroot 161 fsopen 430 open_tree 428 move_mount 429 mount_setattr 442 io_uring_setup 425
        io_uring_enter 426 io_uring_register 427 bpf 321 perf_event_open 298 userfaultfd 323 keyctl 250 add_key 248
        request_key 249 memfd_create 319 memfd_secret 447 mprotect 10 pkey_mprotect 329 remap_file_pages 216 personality 135
        seccomp 317 landlock_create_ruleset 444 landlock_add_rule 445 landlock_restrict_self 446 capset 126 prctl 157
        setsockopt 54 getsockopt 55 shmget 29 semget 64 msgget 68 mq_open 240 splice 275 tee 276 vmsplice 278 sendfile 40
        copy_file_range 326 inotify_init1 294 fanotify_init 300 signalfd4 289 timerfd_create 283 timer_create 222 pipe2 293
        openat2 437 name_to_handle_at 303 open_by_handle_at 304 connect 42 bind 49 listen 50 accept4 288 sendto 44 sendmsg 46
        recvmsg 47 recvfrom 45 statx 332 newfstatat 262 close_range 436
    """,
    "aarch64": """
        ptrace 117 process_vm_readv 270 process_vm_writev 271 kcmp 272 process_madvise 440 pidfd_open 434 pidfd_getfd 438
        pidfd_send_signal 424 kill 129 tkill 130 tgkill 131 rt_sigqueueinfo 138 rt_tgsigqueueinfo 240 execve 221 execveat 281
        clone 220 clone3 435 setuid 146 setresuid 147 setresgid 149 setgroups 159 setpriority 140 getpriority 141
        sched_setaffinity 122 sched_getaffinity 123 sched_setscheduler 119 prlimit64 261 unshare 97 setns 268 mount 40 umount2 39
        pivot_root 41 chroot 51 fsopen 430 open_tree 428 move_mount 429 mount_setattr 442 io_uring_setup 425 io_uring_enter 426
        io_uring_register 427 bpf 280 perf_event_open 241 userfaultfd 282 keyctl 219 add_key 217 request_key 218 memfd_create 279
        memfd_secret 447 mprotect 226 pkey_mprotect 288 remap_file_pages 234 personality 92 seccomp 277
        landlock_create_ruleset 444 landlock_add_rule 445 landlock_restrict_self 446 capset 91 prctl 167 setsockopt 208
        getsockopt 209 shmget 194 semget 190 msgget 186 mq_open 180 splice 76 tee 77 vmsplice 75 sendfile 71 copy_file_range 285
        inotify_init1 26 fanotify_init 262 signalfd4 74 timerfd_create 85 timer_create 107 pipe2 59 openat2 437
        name_to_handle_at 264 open_by_handle_at 265 connect 203 bind 200 listen 201 accept4 242 sendto 206 sendmsg 211 recvmsg 212
        recvfrom 207 statx 291 newfstatat 79 close_range 436
    """,
}
_words = _MACHINES.get(platform.machine(), "").split()
NUMBERS = dict(zip(_words[::2], map(int, _words[1::2]), strict=True))

CODE = (
    f"NUMBERS = {NUMBERS!r}"
    r'''
import ctypes, errno, functools, gc, json, os, struct, sys, time

libc = ctypes.CDLL(None, use_errno=True)

def breach(what=""):
    print("BREACH", what)

def syscall(name, *args):
    """A system call by name or number; what it refuses raises OSError."""
    numbers = [NUMBERS.get(name, name), *args]
    result = libc.syscall(*[ctypes.c_long(each) if isinstance(each, int) else each for each in numbers])
    if result < 0:
        raise OSError(ctypes.get_errno(), f"{name}: {os.strerror(ctypes.get_errno())}")
    return result

def attempt(*calls):
    """Functions of which each must be refused: what any of them brings about is a breach."""
    for call in calls:
        try:
            result = call()
        except OSError as error:
            last = error
        else:
            breach(repr(result)[:80])
    raise PermissionError(f"all refused, the last with {last!r}")

def open_each(folder, names):
    """Open files of a folder, each of which must be refused."""
    attempt(*[lambda name=name: os.open(f"{folder}/{name}", os.O_RDONLY) for name in names.split()])

def reach(*calls):
    """System calls with arguments that the kernel itself would refuse, or not mind: none may get so far that it looks at them."""
    for name, *args in calls:
        try:
            syscall(name, *args)
        except OSError as error:
            if error.errno not in (errno.EPERM, errno.EACCES):
                breach(repr(error))
        else:
            breach(name)
    raise PermissionError("none was reached")

@functools.cache
def protocol_socket():
    """The descriptor over which this process speaks with its host."""
    return next(each._file for each in gc.get_objects() if type(each).__name__ == "ChildChannel")

def write(data):
    data, socket = memoryview(data), protocol_socket()
    while data:
        data = data[os.write(socket, data) :]

def raw(header, *blobs):
    """A frame made by hand: its header as JSON, or as bytes that need be none."""
    header = header if isinstance(header, bytes) else json.dumps(header).encode()
    body = struct.pack(">I", len(header)) + header + b"".join(blobs)
    write(struct.pack(">I", len(body)) + body)

def nested(levels, last=0):
    """Parts that refer to each other, each adding ninety lists, so that the last holds more than any frame could."""
    raw({"op": "part", "part": 1, "items": []})
    for number in range(2, levels // 90 + 2):
        raw(b'{"op":"part","part":%d,"items":%s{"$l":%d}%s}' % (number, b"[" * 90, number - 1, b"]" * 90))
    return {"$l": number}

def more_threads(most):
    """Start so many threads past what counts those of Python code, or as many as can be."""
    thread, attributes = ctypes.c_ulong(), ctypes.create_string_buffer(256)
    libc.pthread_attr_init(attributes)
    libc.pthread_attr_setstacksize(attributes, ctypes.c_size_t(64 << 10))
    return sum(not libc.pthread_create(ctypes.byref(thread), attributes, libc.sleep, ctypes.c_void_p(1000)) for _ in range(most))

DONE = {"op": "done", "block": 1, "error": None, "final": None, "locals": {}, "elapsed": 0, "dropped": 0, "interrupted": False}
CALL = {"op": "call", "block": 1, "call": 1000, "function": "llm_query", "args": ["forged"], "kwargs": {}}
'''
)
