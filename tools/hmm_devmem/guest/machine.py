# SPDX-License-Identifier: GPL-2.0
"""The virtual machine of a guest: QEMU's arguments, its run, the output on the way."""

import ctypes
import mmap
import os
import platform
import re
import shlex
import subprocess
import time

QEMU = "qemu-system-x86_64"
PORTS = ("ctl", "out", "err", "files")
BOOT_TIMEOUT = 600  # generous: machines are busy
SPM = 0x120000000  # reserved: 512 MiB from here on, in the memory above 4 GiB


def low_memory(mem):
    """MiB below 4 GiB, so that the reserved ranges lie above; None if there is too little."""
    return min(3, mem // 1024 - 1) * 1024 if mem >= 2048 else None


def host_tsc_khz():
    """How fast the counter runs that QEMU's emulation of a TSC hands out; None if that is not known."""
    if platform.machine() != "x86_64":
        return None
    # rdtsc; shl $32, %rdx; or %rdx, %rax; ret
    try:
        code = mmap.mmap(-1, mmap.PAGESIZE, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC)
    except OSError:
        return None
    code.write(b"\x0f\x31\x48\xc1\xe2\x20\x48\x09\xd0\xc3")
    rdtsc = ctypes.CFUNCTYPE(ctypes.c_uint64)(ctypes.addressof(ctypes.c_char.from_buffer(code)))

    def sample():
        """Both clocks at the same moment: of many readings, the one that took the shortest time."""
        readings = []
        for _ in range(100):
            before, count, after = time.monotonic_ns(), rdtsc(), time.monotonic_ns()
            readings.append((after - before, before, count))
        return min(readings)[1:]

    ns, count = sample()
    time.sleep(0.1)
    later_ns, later_count = sample()
    return (later_count - count) * 1000000 // (later_ns - ns)


def kernel_parameters(args, folder):
    params = ["console=ttyS0", "panic=-1", "reboot=t", "oops=panic", "tsc=reliable", "printk.devkmsg=on"]
    # A host with little time to spare lets interrupts of the emulated timer be late
    params += ["no_timer_check"]
    # It can be busy for longer than the kernel thinks that a CPU or a task needs
    params += ["rcupdate.rcu_cpu_stall_timeout=300", "sysctl.kernel.hung_task_timeout_secs=1800"]
    params += [f"panic_on_warn={0 if args.allow else 1}"]
    if low_memory(args.mem):
        params += [f"memmap=512M${SPM:#x}"]
    # Where the host has little time to spare, a guest that measures its TSC itself can be wrong by a
    # factor of 50, and then its clock and all its timeouts run 50 times too fast
    if not args.icount and (khz := host_tsc_khz()):
        params += [f"tsc_early_khz={khz}"]
    if args.icount:
        params += ["nokaslr", "norandmaps", "randomize_kstack_offset=off"]
    if os.path.exists(f"{folder}/.cmdline"):
        with open(f"{folder}/.cmdline", encoding="utf-8") as f:
            params += f.read().split()
    return " ".join(params + args.append)


def unix_socket(name, path):
    path = path.replace(",", ",,")
    return f"socket,id={name},path={path},server=on,wait=off"


def qemu_command(args, run, params):
    low = low_memory(args.mem)
    machine = f"pc,max-ram-below-4g={low}M" if low else "pc"
    cmd = [QEMU, "-M", machine, "-m", str(args.mem), "-nodefaults", "-no-user-config", "-display", "none",
           "-no-reboot", "-kernel", f"{run}/bzImage", "-initrd", f"{run}/initrd", "-append", params]
    cmd += ["-smp", str(args.cpus or (1 if args.icount else 2))]
    if args.icount:
        cmd += ["-accel", "tcg,thread=single", "-icount", "shift=0,sleep=off", "-cpu", "max,-erms,-fsrm",
                "-seed", "1", "-rtc", "base=2026-01-01T00:00:00,clock=vm"]
    else:
        cmd += ["-accel", "tcg,thread=" + ("single" if args.one_thread else "multi"), "-cpu", "max"]
    if any(os.path.exists(f"{d}/qboot.rom") for d in ("/usr/share/qemu", "/usr/share/qemu-firmware")):
        cmd += ["-bios", "qboot.rom"]
    cmd += ["-chardev", f"file,id=console,path={run}/console.log", "-serial", "chardev:console"]
    if args.tty:
        cmd += ["-chardev", "stdio,id=tty,signal=off", "-serial", "chardev:tty"]
    # Without ioeventfd what was written has arrived when the guest goes on
    cmd += ["-device", "virtio-serial-pci,id=ports,ioeventfd=off"]
    for nr, name in enumerate(PORTS, 1):
        cmd += ["-chardev", f"file,id={name},path={run}/{name}",
                "-device", f"virtserialport,bus=ports.0,chardev={name},nr={nr},name=hmm_devmem.{name}"]
    if args.channel:
        cmd += ["-chardev", unix_socket("channel", args.channel),
                "-device", "virtserialport,bus=ports.0,chardev=channel,name=hmm_devmem.channel"]
    if args.monitor:
        cmd += ["-chardev", unix_socket("monitor", args.monitor), "-mon", "chardev=monitor,mode=control"]
    return cmd + args.qemu_args


class Stream:
    """Copies what is added to a file to a descriptor."""

    def __init__(self, path, fd):
        # pylint: disable=consider-using-with
        self.file, self.fd = open(path, "rb"), fd

    def pump(self):
        while data := self.file.read(1 << 16):
            while data:
                data = data[os.write(self.fd, data):]


def run_qemu(args, run, cmd):
    """Start it, stream, wait: (status of COMMAND or None, started, the limit it was killed at or 0,
    status of QEMU). The time of COMMAND is counted from when it starts."""
    for name in (*PORTS, "console.log"):
        with open(f"{run}/{name}", "wb"):
            pass
    with open(f"{run}/qemu.log", "wb") as log:
        log.write((shlex.join(cmd) + "\n").encode())
        log.flush()
        # pylint: disable=consider-using-with
        qemu = subprocess.Popen(cmd, stdin=None if args.tty else subprocess.DEVNULL,
                                stdout=None if args.tty else log, stderr=log,
                                start_new_session=not args.tty)
    streams = [Stream(f"{run}/out", 1), Stream(f"{run}/err", 2)]
    limit, begun = BOOT_TIMEOUT, time.monotonic()
    started = ended = False
    late = 0
    try:
        while not ended:
            ended = qemu.poll() is not None
            for stream in streams:
                stream.pump()
            if not ended:
                time.sleep(0.02)
            if not started and os.path.getsize(f"{run}/ctl"):
                started, limit, begun = True, args.timeout, time.monotonic()
            if not ended and not args.tty and time.monotonic() > begun + limit:
                late = limit
                break
    finally:
        if qemu.poll() is None:
            qemu.kill()
            qemu.wait()
    with open(f"{run}/ctl", encoding="ascii", errors="replace") as f:
        control = f.read()
    status = re.search(r"^exit (\d+)$", control, re.M)
    return int(status[1]) if status else None, "started" in control, late, qemu.returncode
