# SPDX-License-Identifier: GPL-2.0
"""The initramfs of a guest: busybox, a build's modules, and the files of one run."""

import os
import shlex
import shutil
import stat
import subprocess

TOOLS = os.path.dirname(os.path.realpath(__file__))


class Cpio:
    """Writes an archive in the kernel's own format; all is root's, and of no date."""

    def __init__(self, out):
        self.out = out
        self.ino = 0
        self.dirs = set()

    def _pad(self, to=4):
        self.out.write(b"\0" * (-self.out.tell() % to))

    def _add(self, name, mode, content=b"", rdev=(0, 0)):
        raw = name.encode() + b"\0"
        self.ino += 1
        fields = (self.ino, mode, 0, 0, 1, 0, len(content), 0, 0, *rdev, len(raw), 0)
        self.out.write(b"070701" + "".join(f"{f:08x}" for f in fields).encode() + raw)
        self._pad()
        self.out.write(content)
        self._pad()

    def dir(self, name, mode=0o755):
        if name and name not in self.dirs:
            self.dir(os.path.dirname(name))
            self.dirs.add(name)
            self._add(name, stat.S_IFDIR | mode)

    def file(self, name, content, mode=0o644):
        self.dir(os.path.dirname(name))
        self._add(name, stat.S_IFREG | mode, content)

    def link(self, name, target):
        self.dir(os.path.dirname(name))
        self._add(name, stat.S_IFLNK | 0o777, target.encode())

    def node(self, name, major, minor):
        self.dir(os.path.dirname(name))
        self._add(name, stat.S_IFCHR | 0o600, rdev=(major, minor))

    def copy(self, name, path):
        """The file, link or whole folder PATH as NAME."""
        if os.path.isdir(path):
            self.dir(name)
            for entry in sorted(os.listdir(path)):
                source = os.path.join(path, entry)
                if os.path.islink(source):
                    self.link(f"{name}/{entry}", os.readlink(source))
                else:
                    self.copy(f"{name}/{entry}", source)
        elif os.path.isfile(path):
            with open(path, "rb") as f:
                self.file(name, f.read(), stat.S_IMODE(os.stat(path).st_mode))

    def end(self):
        self._add("TRAILER!!!", 0)
        self._pad(512)


def install_modules(build):
    """BUILD's modules below BUILD/mods; `build` has put them there in its own builds."""
    mods, order = f"{build}/mods", f"{build}/modules.order"
    stamp = f"{mods}/.installed"
    if not os.path.exists(order):
        return None
    if not os.path.exists(stamp) or os.stat(stamp).st_mtime < os.stat(order).st_mtime:
        subprocess.run(["make", "-s", "-C", build, "modules_install", f"INSTALL_MOD_PATH={mods}",
                        "INSTALL_MOD_STRIP=1"], check=True, stdout=subprocess.DEVNULL)
        with open(stamp, "w", encoding="ascii"):
            pass
    return mods


def write_base(out, busybox, mods, functions):
    cpio = Cpio(out)
    for name in ("bin", "dev", "etc", "lib", "proc", "root", "run", "sys", "tmp", "usr", "work"):
        cpio.dir(name)
    cpio.node("dev/console", 5, 1)
    cpio.copy("bin/busybox", busybox)
    for name in subprocess.run([busybox, "--list"], check=True, capture_output=True).stdout.decode().split():
        if name != "busybox":
            cpio.link(f"bin/{name}", "busybox")
    for name in ("sbin", "usr/bin", "usr/sbin"):
        cpio.link(name, "/bin")
    cpio.file("etc/passwd", b"root:x:0:0:root:/root:/bin/sh\n")
    cpio.file("etc/group", b"root:x:0:\n")
    with open(f"{TOOLS}/guest_init", "rb") as f:
        cpio.file("init", f.read(), 0o755)
    if functions:
        cpio.copy("kcsan_functions", functions)
    if mods and os.path.isdir(f"{mods}/lib/modules"):
        for release in os.listdir(f"{mods}/lib/modules"):
            for entry in sorted(os.listdir(f"{mods}/lib/modules/{release}")):
                if entry not in ("build", "source"):
                    cpio.copy(f"lib/modules/{release}/{entry}", f"{mods}/lib/modules/{release}/{entry}")
    cpio.end()


def base(build, cache, busybox):
    """Path of the part that is the same for all runs of a build, made if it is out of date."""
    mods = install_modules(build)
    functions = f"{build}/kcsan-functions" if os.path.exists(f"{build}/kcsan-functions") else None
    parts = [os.path.realpath(busybox), f"{TOOLS}/guest_init", f"{TOOLS}/guest_image.py"]
    parts += [f"{mods}/.installed"] if mods else []
    parts += [functions] if functions else []
    key = "\n".join(f"{p} {os.stat(p).st_mtime_ns} {os.stat(p).st_size}" for p in parts)
    path = os.path.join(cache, "guest-base.cpio")
    try:
        with open(f"{path}.key", encoding="utf-8") as f:
            if f.read() == key and os.path.exists(path):
                return path
    except FileNotFoundError:
        pass
    with open(f"{path}.{os.getpid()}", "wb") as f:
        write_base(f, busybox, mods, functions)
    os.replace(f"{path}.{os.getpid()}", path)
    with open(f"{path}.key", "w", encoding="utf-8") as f:
        f.write(key)
    return path


def write(path, base_path, files, command, env):
    """The whole image of one run: the base, then the command and its files in /work."""
    with open(path, "wb") as out:
        with open(base_path, "rb") as f:
            shutil.copyfileobj(f, out, 1 << 20)
        cpio = Cpio(out)
        for name in files:
            cpio.copy(f"work/{os.path.basename(os.path.normpath(name))}", name)
        exports = "".join(f"export {k}={shlex.quote(v)}\n" for k, v in env.items())
        cpio.file(".guest/env", exports.encode())
        cpio.file(".guest/command", f"exec {shlex.join(command)}\n".encode("utf-8", "surrogateescape"))
        cpio.end()
