# SPDX-License-Identifier: GPL-2.0
"""The initramfs of a guest: busybox, a build's modules, and the files of one run."""

import os
import re
import shlex
import shutil
import stat
import subprocess

TOOLS = os.path.dirname(os.path.dirname(os.path.realpath(__file__)))


class Archive:
    """What gen_init_cpio, of the kernel's build, makes an archive of: all is root's, and of no date."""

    def __init__(self, build, path):
        self.tool, self.path, self.stage = f"{build}/usr/gen_init_cpio", path, f"{path}.files"
        self.lines, self.dirs, self.staged = [], set(), 0
        os.makedirs(self.stage)

    def __enter__(self):
        return self

    def __exit__(self, *error):
        shutil.rmtree(self.stage)

    def add(self, kind, name, *rest):
        if re.search(r"\s", name):
            raise OSError(f"a name with a blank: '{name}'")
        if name and name not in self.dirs:
            self.dir(os.path.dirname(name))
            self.lines.append(" ".join((kind, f"/{name}", *rest)))

    def dir(self, name):
        self.add("dir", name, "755", "0", "0")
        self.dirs.add(name)

    def stage_path(self):
        self.staged += 1
        return f"{self.stage}/{self.staged}"

    def file(self, name, content):
        path = self.stage_path()
        with open(path, "wb") as f:
            f.write(content)
        self.add("file", name, path, "644", "0", "0")

    def link(self, name, target):
        self.add("slink", name, target, "777", "0", "0")

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
            # The tool takes neither blanks nor dollars in the path of a file
            link = self.stage_path()
            os.symlink(os.path.abspath(path), link)
            self.add("file", name, link, f"{stat.S_IMODE(os.stat(path).st_mode):o}", "0", "0")

    def make(self):
        listed = f"{self.stage}/list"
        with open(listed, "w", encoding="utf-8", errors="surrogateescape") as f:
            f.writelines(line + "\n" for line in self.lines)
        subprocess.run([self.tool, "-t", "0", "-o", self.path, listed], check=True, stdout=subprocess.DEVNULL)


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


def write_base(build, path, busybox, mods, functions):
    with Archive(build, path) as archive:
        for name in ("bin", "dev", "etc", "lib", "proc", "root", "run", "sys", "tmp", "usr", "work"):
            archive.dir(name)
        archive.add("nod", "dev/console", "600", "0", "0", "c", "5", "1")
        archive.copy("bin/busybox", busybox)
        for name in subprocess.run([busybox, "--list"], check=True, capture_output=True).stdout.decode().split():
            if name != "busybox":
                archive.link(f"bin/{name}", "busybox")
        for name in ("sbin", "usr/bin", "usr/sbin"):
            archive.link(name, "/bin")
        archive.file("etc/passwd", b"root:x:0:0:root:/root:/bin/sh\n")
        archive.file("etc/group", b"root:x:0:\n")
        archive.copy("init", f"{TOOLS}/guest/init")
        if functions:
            archive.copy("kcsan_functions", functions)
        if mods and os.path.isdir(f"{mods}/lib/modules"):
            for release in os.listdir(f"{mods}/lib/modules"):
                for entry in sorted(os.listdir(f"{mods}/lib/modules/{release}")):
                    if entry not in ("build", "source"):
                        archive.copy(f"lib/modules/{release}/{entry}", f"{mods}/lib/modules/{release}/{entry}")
        archive.make()


def base(build, cache, busybox):
    """Path of the part that is the same for all runs of a build, made if it is out of date."""
    mods = install_modules(build)
    functions = f"{build}/kcsan-functions" if os.path.exists(f"{build}/kcsan-functions") else None
    parts = [os.path.realpath(busybox), f"{TOOLS}/guest/init", f"{TOOLS}/guest/image.py"]
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
    write_base(build, f"{path}.{os.getpid()}", busybox, mods, functions)
    os.replace(f"{path}.{os.getpid()}", path)
    with open(f"{path}.key", "w", encoding="utf-8") as f:
        f.write(key)
    return path


def write(build, path, base_path, files, command, env):
    """The whole image of one run: the base, then the command and its files in /work."""
    with Archive(build, f"{path}.run") as archive:
        for name in files:
            archive.copy(f"work/{os.path.basename(os.path.normpath(name))}", name)
        exports = "".join(f"export {k}={shlex.quote(v)}\n" for k, v in env.items())
        archive.file(".guest/env", exports.encode())
        archive.file(".guest/command", f"exec {shlex.join(command)}\n".encode("utf-8", "surrogateescape"))
        archive.make()
    with open(path, "wb") as out:
        for part in (base_path, f"{path}.run"):
            with open(part, "rb") as f:
                shutil.copyfileobj(f, out, 1 << 20)
            # The next archive begins at a multiple of four
            out.write(b"\0" * (-out.tell() % 4))
    os.unlink(f"{path}.run")
