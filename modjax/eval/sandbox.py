"""The process in which one program runs: `modjax.eval.execution` starts this file as a script, with its own Python.

It reads its job from standard input, gives up what the program must not have, runs it, and tells how it went on the
pipe whose number is its argument: a line of what holds the program, and, once all of it has run, the job's token. It
imports nothing of modjax.

    limits      setrlimit: seconds of the processor, address space, size of a file, open files, no core file
    root        capset: no capabilities are left, and no_new_privs: none can be had again
    files       Landlock: only the working directory can be written, only Python and the system's libraries read
    the rest    a seccomp filter: calls of processes, signals, sockets, rights of files and others fail with EPERM

Both filters stay until the process ends, and hold its threads too.
"""

import contextlib
import ctypes
import json
import os
import platform
import resource
import signal
import sys
import types

# System calls with their numbers on x86-64 (asm/unistd_64.h) and on 64-bit ARM (asm-generic/unistd.h), without some.
MACHINES = {"x86_64": (0, 0xC000003E), "aarch64": (1, 0xC00000B7)}  # column, AUDIT_ARCH
DENIED = """
    fork 57 -; vfork 58 -; execve 59 221; execveat 322 281; unshare 272 97; setns 308 268
    kill 62 129; tkill 200 130; tgkill 234 131; rt_sigqueueinfo 129 138; rt_tgsigqueueinfo 297 240
    pidfd_send_signal 424 424; pidfd_open 434 434; pidfd_getfd 438 438
    ptrace 101 117; process_vm_readv 310 270; process_vm_writev 311 271; kcmp 312 272
    sched_setaffinity 203 122; sched_setscheduler 144 119; sched_setparam 142 118; sched_setattr 314 274
    setpriority 141 140; ioprio_set 251 30; migrate_pages 256 238; move_pages 279 239
    socket 41 198; io_uring_setup 425 425
    shmget 29 194; semget 64 190; msgget 68 186; mq_open 240 180; memfd_create 319 279; memfd_secret 447 447
    add_key 248 217; request_key 249 218; keyctl 250 219; bpf 321 280; perf_event_open 298 241; userfaultfd 323 282
    mount 165 40; umount2 166 39; pivot_root 155 41; chroot 161 51; open_tree 428 428; move_mount 429 429
    chmod 90 -; fchmod 91 52; fchmodat 268 53; fchmodat2 452 452
    chown 92 -; lchown 94 -; fchown 93 55; fchownat 260 54
    utime 132 -; utimes 235 -; futimesat 261 -; utimensat 280 88
    setxattr 188 5; lsetxattr 189 6; fsetxattr 190 7; removexattr 197 14; lremovexattr 198 15; fremovexattr 199 16
    setxattrat 463 463; removexattrat 466 466
"""
UNKNOWN = "clone3 435 435; openat2 437 437"  # fail with ENOSYS: libraries then use the older calls, which are filtered
WRITING = """
    creat 85 -; truncate 76 45; unlink 87 -; unlinkat 263 35; rmdir 84 -; mkdir 83 -; mkdirat 258 34
    rename 82 -; renameat 264 38; renameat2 316 276; link 86 -; linkat 265 37; symlink 88 -; symlinkat 266 36
    mknod 133 -; mknodat 259 33
"""  # denied where there is no Landlock, as is opening a file to write
CLONE, PRLIMIT, FCNTL, OPEN, OPENAT = (56, 220), (302, 261), (72, 25), (2, None), (257, 56)
CLONE_THREAD, SET_OWNER, EPERM, ENOSYS = 0x10000, (8, 15), 1, 38  # an owner of a pipe is sent signals
EQUAL, AT_LEAST, COMMON_BIT = 0x15, 0x35, 0x45  # comparisons of the filter
WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND

LIBRARIES = ("/usr/lib", "/usr/lib64", "/usr/local/lib", "/lib", "/lib64", "/usr/share/zoneinfo")
DEVICES = ("/dev/null", "/dev/zero", "/dev/urandom", "/dev/random", "/etc/localtime", "/etc/ld.so.cache")
READ_FILE, WRITE_FILE, READ_FOLDER = 0x4 | 0x1, 0x2, 0x8  # rights of Landlock; reading with executing
LANDLOCK_BITS = {1: 13, 2: 14, 3: 15, 4: 15}  # by version; from the fifth on 16 rights

libc = ctypes.CDLL(None, use_errno=True)


def main() -> None:
    told = os.fdopen(int(sys.argv[1]), "w", buffering=1)
    job = json.loads(sys.stdin.buffer.read())
    try:
        isolation = hold(job)
    except OSError as error:
        told.write(f"{error}\n")
        return
    told.write(json.dumps(isolation) + "\n")
    execute(job.pop("program"))
    told.write(job["token"] + "\n")
    with contextlib.suppress(Exception):  # the program may have closed or replaced it
        sys.stdout.flush()
    os._exit(0)  # threads of the program and its atexit functions are not waited for


def execute(text: str) -> None:
    """Runs a program as the module "program"; what it raises ends this process as it ends any other."""
    module = types.ModuleType("program")
    sys.modules["program"] = module
    exec(compile(text, "program", "exec"), module.__dict__)


def hold(job: dict) -> dict[str, str]:
    """Gives up all that the program must not have. Raises OSError where the kernel refuses."""
    for limit, value in (
        (resource.RLIMIT_CPU, (job["seconds"], job["seconds"] + 1)),
        (resource.RLIMIT_AS, (job["memory"],) * 2),
        (resource.RLIMIT_FSIZE, (job["output"],) * 2),
        (resource.RLIMIT_NOFILE, (64, 64)),
        (resource.RLIMIT_CORE, (0, 0)),
    ):
        soft, hard = value
        most = resource.getrlimit(limit)[1]
        if most != resource.RLIM_INFINITY:
            soft, hard = min(soft, most), min(hard, most)
        resource.setrlimit(limit, (soft, hard))
    checked(libc.prctl(1, signal.SIGKILL, 0, 0, 0), "PR_SET_PDEATHSIG")  # it ends with the process that started it
    drop_capabilities()
    landlocked = restrict_files()
    filter_calls(landlocked)
    files = "own folder only (Landlock)" if landlocked else "none can be changed, any can be read (no Landlock)"
    return {"processes": "none (seccomp)", "network": "none (seccomp)", "files": files}


def drop_capabilities() -> None:
    """Leaves no capabilities, which root has, and no way to any."""
    checked(libc.prctl(38, 1, 0, 0, 0), "no_new_privs")
    header, none = (ctypes.c_uint32 * 2)(0x20080522, 0), (ctypes.c_uint32 * 6)()
    checked(libc.capset(header, none), "capset")


def restrict_files() -> bool:
    """Restricts files by Landlock; False where the kernel has none."""
    version = libc.syscall(444, None, ctypes.c_size_t(0), 1)
    if version < 1:
        return False
    rights = (1 << LANDLOCK_BITS.get(version, 16)) - 1
    ruleset = checked(libc.syscall(444, ctypes.byref(ctypes.c_uint64(rights)), ctypes.c_size_t(8), 0), "Landlock")
    readable = {*LIBRARIES, sys.prefix, sys.base_prefix, sys.exec_prefix, sys.base_exec_prefix}
    allowed = [(path, READ_FILE | READ_FOLDER) for path in sorted(readable)]
    allowed += [(path, READ_FILE | WRITE_FILE) for path in DEVICES] + [(os.getcwd(), rights)]
    for path, granted in allowed:
        if os.path.exists(path):
            allow(ruleset, path, granted & rights)
    checked(libc.syscall(446, ruleset, 0), "Landlock")
    os.close(ruleset)
    return True


def allow(ruleset: int, path: str, rights: int) -> None:
    """Adds a folder with all below it, or a file, to a ruleset of Landlock."""

    class Beneath(ctypes.Structure):
        _pack_ = 1
        _fields_ = [("rights", ctypes.c_uint64), ("parent", ctypes.c_int32)]

    folder = os.open(path, os.O_PATH | os.O_CLOEXEC)
    checked(libc.syscall(445, ruleset, 1, ctypes.byref(Beneath(rights, folder)), 0), f"Landlock, {path}")
    os.close(folder)


def filter_calls(landlocked: bool) -> None:
    """Installs the filter of system calls."""
    column, architecture = MACHINES[platform.machine()]
    code = [load(4), jump(EQUAL, architecture, 1, 0), give(0x80000000), load(0)]  # another architecture: killed
    code += [jump(AT_LEAST, 0x40000000, 0, 1), refuse(EPERM)] if column == 0 else []  # the x32 calls of x86-64
    for table, error in ((DENIED + ("" if landlocked else WRITING), EPERM), (UNKNOWN, ENOSYS)):
        for number in numbers(table, column):
            code += [jump(EQUAL, number, 0, 1), refuse(error)]
    code += by_argument(CLONE[column], 0, COMMON_BIT, CLONE_THREAD, refused=False)
    code += by_argument(PRLIMIT[column], 0, EQUAL, 0, refused=False)  # limits of this process alone
    for command in SET_OWNER:
        code += by_argument(FCNTL[column], 1, EQUAL, command, refused=True)
    for call, argument in ((OPEN, 1), (OPENAT, 2)) if not landlocked else ():
        if call[column] is not None:
            code += by_argument(call[column], argument, COMMON_BIT, WRITES, refused=True)
    code.append(give(0x7FFF0000))  # all other calls are allowed

    class Program(ctypes.Structure):
        _fields_ = [("length", ctypes.c_ushort), ("code", ctypes.c_void_p)]

    instructions = ctypes.create_string_buffer(b"".join(code))
    program = Program(len(code), ctypes.addressof(instructions))
    checked(libc.prctl(22, 2, ctypes.byref(program), 0, 0), "seccomp")


def by_argument(number: int, argument: int, comparison: int, value: int, refused: bool) -> list[bytes]:
    """Refuses a call where the comparison of one of its arguments with a value is `refused`."""
    skips = (0, 1) if refused else (1, 0)
    compared = [load(16 + 8 * argument), jump(comparison, value, *skips), refuse(EPERM), load(0)]
    return [jump(EQUAL, number, 0, len(compared)), *compared]


def numbers(table: str, column: int) -> list[int]:
    """The numbers of the calls of a table on one machine."""
    calls = [call.split() for line in table.split("\n") for call in line.split(";") if call.strip()]
    return [int(call[1 + column]) for call in calls if call[1 + column] != "-"]


def load(offset: int) -> bytes:
    """An instruction of the filter: loads 32 bits of the call's number (0), machine (4) or arguments (16, 24, ...)."""
    return instruction(0x20, 0, 0, offset)


def jump(comparison: int, value: int, if_true: int, if_false: int) -> bytes:
    """Skips `if_true` or `if_false` instructions as the loaded bits compare with the value."""
    return instruction(comparison, if_true, if_false, value)


def give(action: int) -> bytes:
    """Ends the filter with an action of seccomp."""
    return instruction(0x06, 0, 0, action)


def refuse(error: int) -> bytes:
    """Lets the call fail with an error."""
    return give(0x00050000 | error)


def instruction(operation: int, if_true: int, if_false: int, value: int) -> bytes:
    return operation.to_bytes(2, "little") + bytes([if_true, if_false]) + value.to_bytes(4, "little")


def checked(result: int, what: str) -> int:
    """The result of a call. Raises OSError naming `what` for an error."""
    if result < 0:
        raise OSError(f"{what}: {os.strerror(ctypes.get_errno())}")
    return result


if __name__ == "__main__":
    main()
