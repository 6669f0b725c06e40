# SPDX-License-Identifier: GPL-2.0
"""The virtual machine of a guest: QEMU's arguments, its run, the output on the way."""

import os
import re
import shlex
import subprocess
import time

QEMU = "qemu-system-x86_64"
PORTS = ("ctl", "out", "err", "files")
SPM = 0x120000000  # reserved: 512 MiB from here on, in the memory above 4 GiB


def low_memory(mem):
    """MiB below 4 GiB, so that the reserved ranges lie above; None if there is too little."""
    return min(3, mem // 1024 - 1) * 1024 if mem >= 2048 else None


def kernel_parameters(args, folder):
    params = ["console=ttyS0", "panic=-1", "reboot=t", "oops=panic", "tsc=reliable", "printk.devkmsg=on"]
    params += [f"panic_on_warn={0 if args.allow else 1}"]
    if low_memory(args.mem):
        params += [f"memmap=512M${SPM:#x}"]
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
        cmd += ["-accel", "tcg,thread=multi", "-cpu", "max"]
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
    """Start it, stream, wait: (status of COMMAND or None, started, timed out)."""
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
    deadline = None if args.tty else time.monotonic() + args.timeout
    late = ended = False
    try:
        while not ended:
            ended = qemu.poll() is not None
            for stream in streams:
                stream.pump()
            if not ended:
                time.sleep(0.02)
            if not ended and deadline and time.monotonic() > deadline:
                late = True
                break
    finally:
        if qemu.poll() is None:
            qemu.kill()
            qemu.wait()
    with open(f"{run}/ctl", encoding="ascii", errors="replace") as f:
        control = f.read()
    status = re.search(r"^exit (\d+)$", control, re.M)
    return int(status[1]) if status else None, "started" in control, late
