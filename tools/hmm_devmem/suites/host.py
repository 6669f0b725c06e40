#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0
"""The host's part in the tests of the sample driver.

Runs GUEST with a PCI function the memory of which is the file DIR/vram, and one that
has nothing but ones. Does what COMMAND in the guest asks for, one line each on the
channel, and answers with a number, or a line that says what went wrong:

  find SEED N          how many of the first N pages of the pattern SEED are in the file
  replace SEED NEW N   replaces those by pages of the pattern NEW; how many
  unplug               takes the PCI function away; 0 when it is gone
  plug                 brings it back; 0

Ends with GUEST's status.
"""

import json
import mmap
import os
import shlex
import socket
import struct
import subprocess
import sys
import threading
import time

PAGE = 4096
WORDS = PAGE // 8
SIZE = 32 << 20
# Names of QEMU objects that are the memory of a function have a number behind them
NAME = "vram"
SLOT = "10"
ONES = "ones"
ONES_SLOT = "11"
TIMEOUT = 900


def memory_object(name, path):
    return {"qom-type": "memory-backend-file", "id": name, "mem-path": path, "size": SIZE, "share": True,
            "readonly": os.path.basename(path) == ONES}


class Failed(Exception):
    """What the guest asked for was not done."""


def pattern_page(seed, page):
    """The same bytes as fill() of test.h, in the selftests, makes."""
    first = page * WORDS + 1
    return struct.pack("<512Q", *(((seed << 48) + n * 0x9E3779B97F4A7C15) % (1 << 64)
                                  for n in range(first, first + WORDS)))


class Lines:
    """Lines of text over a UNIX socket, which QEMU makes when it starts."""

    def __init__(self, path):
        deadline = time.monotonic() + TIMEOUT
        while True:
            try:
                self.socket = socket.socket(socket.AF_UNIX)
                self.socket.connect(path)
                break
            except (FileNotFoundError, ConnectionRefusedError):
                self.socket.close()
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.02)
        # For reading only: one for both forgets what it has read ahead when it writes
        self.file = self.socket.makefile("r", encoding="utf-8")

    def read(self):
        return self.file.readline()

    def write(self, line):
        self.socket.sendall(f"{line}\n".encode())


class Monitor:
    """QEMU's monitor."""

    def __init__(self, path):
        self.lines = Lines(path)
        self.events = []
        self.receive()
        self.execute("qmp_capabilities")

    def receive(self):
        line = self.lines.read()
        if not line:
            raise Failed("QEMU is gone")
        return json.loads(line)

    def execute(self, command, **arguments):
        self.lines.write(json.dumps({"execute": command, "arguments": arguments}))
        while True:
            answer = self.receive()
            if "event" in answer:
                self.events.append(answer)
            elif "error" in answer:
                raise Failed(f"{command}: {answer['error']['desc']}")
            else:
                return answer["return"]

    def wait(self, name, device):
        """Until the event has come; others are forgotten."""
        deadline = time.monotonic() + TIMEOUT
        while True:
            while self.events:
                event = self.events.pop(0)
                if event["event"] == name and event["data"].get("device") == device:
                    return
            if time.monotonic() > deadline:
                raise Failed(f"no {name} within {TIMEOUT} s")
            # An answer comes in any case, and brings the events before it
            self.execute("query-status")
            time.sleep(0.02)


class Host:
    """Knows the file and the monitor."""

    def __init__(self, folder):
        self.vram = f"{folder}/vram"
        self.monitor = Monitor(f"{folder}/monitor")
        self.plugged = 0

    def pages(self, seed, count):
        """Where in the file pages of the pattern are: by page of the pattern."""
        wanted = {pattern_page(seed, page): page for page in range(count)}
        found = {}
        with open(self.vram, "rb") as f, mmap.mmap(f.fileno(), 0, access=mmap.ACCESS_READ) as data:
            for at in range(0, len(data), PAGE):
                page = wanted.get(data[at:at + PAGE])
                if page is not None:
                    found[page] = at
        return found

    def find(self, seed, count):
        return len(self.pages(int(seed), int(count)))

    def replace(self, seed, new, count):
        found = self.pages(int(seed), int(count))
        with open(self.vram, "r+b") as f, mmap.mmap(f.fileno(), 0) as data:
            for page, at in found.items():
                data[at:at + PAGE] = pattern_page(int(new), page)
        return len(found)

    def unplug(self):
        self.monitor.events.clear()
        self.monitor.execute("device_del", id=NAME)
        self.monitor.wait("DEVICE_DELETED", NAME)
        self.monitor.execute("object-del", id=f"{NAME}{self.plugged}")
        return 0

    def plug(self):
        # Some versions of QEMU die when ivshmem is given the same object again
        self.plugged += 1
        memory = f"{NAME}{self.plugged}"
        self.monitor.execute("object-add", **memory_object(memory, self.vram))
        self.monitor.execute("device_add", driver="ivshmem-plain", bus="pci.0", addr=SLOT,
                             id=NAME, memdev=memory)
        return 0

    def answer(self, line):
        command, *args = line.split()
        if command not in ("find", "replace", "unplug", "plug"):
            return f"no such command: {command}"
        try:
            return getattr(self, command)(*args)
        except (Failed, OSError, ValueError, TypeError) as e:
            return f"{line.strip()}: {e}"


def serve(folder):
    try:
        host = Host(folder)
        channel = Lines(f"{folder}/channel")
        while line := channel.read():
            reply = host.answer(line)
            channel.write(str(reply))
            if isinstance(reply, str):
                print("host:", reply, file=sys.stderr, flush=True)
    except (Failed, OSError) as e:
        # No answer comes any more: the guest's test fails, or the guest has ended
        print("host: no longer serving:", e, file=sys.stderr, flush=True)


def function(name, slot, path, content):
    """QEMU's arguments for a function that is there from the start."""
    with open(path, "wb") as f:
        for _ in range(SIZE // PAGE):
            f.write(content * PAGE)
    memory = json.dumps(memory_object(f"{name}0", path))
    return ["-object", memory, "-device", f"ivshmem-plain,id={name},memdev={name}0,bus=pci.0,addr={slot}"]


def main():
    if len(sys.argv) < 3 or "--" not in sys.argv[2:]:
        print(f"{__doc__}\nUsage: host.py DIR GUEST [OPTION...] -- COMMAND [ARG...]", file=sys.stderr)
        return 2
    folder, command = sys.argv[1], sys.argv[2:]
    qemu = function(NAME, SLOT, f"{folder}/vram", b"\0") + function(ONES, ONES_SLOT, f"{folder}/ones", b"\377")
    at = command.index("--")
    command[at:at] = ["--monitor", f"{folder}/monitor", "--channel", f"{folder}/channel", "--qemu", shlex.join(qemu)]
    with subprocess.Popen(command) as guest:
        threading.Thread(target=serve, args=[folder], daemon=True).start()
        try:
            return guest.wait()
        except BaseException:
            guest.terminate()
            raise


if __name__ == "__main__":
    sys.exit(main())
