"""The programs of the test: found or installed, started, and ended with all of their children."""

import collections
import contextlib
import glob
import json
import os
import re
import shutil
import signal
import subprocess
import threading
import time

from .check import LIMIT, expect

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
APT = "apt-get install -y --no-install-recommends chromium chromium-driver"


def find_program(*names):
    folders = [*os.environ.get("PATH", os.defpath).split(os.pathsep), *glob.glob("/usr/lib/chromium*")]
    return next((found for name in names if (found := shutil.which(name, path=os.pathsep.join(folders)))), None)


def find_chromium():
    return find_program("chromium", "chromium-browser", "google-chrome"), find_program("chromedriver")


def install_chromium():
    """Installs Debian's packages if that needs no password."""
    sudo = [] if os.geteuid() == 0 else ["sudo", "-n"]
    refused = f"Chromium and chromedriver are missing; install them with: sudo {APT}"
    expect(shutil.which("apt-get") and (not sudo or shutil.which("sudo")), refused)
    for command in ("apt-get update", APT):
        done = subprocess.run([*sudo, "env", "DEBIAN_FRONTEND=noninteractive", *command.split()],
                              stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, check=False)
        expect(done.returncode == 0, refused)


def find_shop(named):
    built = [os.path.join(ROOT, "target", kind, "shop") for kind in ("release", "debug")]
    shop = next((path for path in ([named] if named else built) if os.access(path, os.X_OK)), None)
    expect(shop, f"{named} cannot be run" if named else "there is no binary yet: cargo build --release")
    return os.path.abspath(shop)


def start(command, folder, lines_of, find, started, **more):
    """Starts a program with the variables `more` alone; returns what `find` finds in one of its lines."""
    env = {"PATH": os.environ.get("PATH", os.defpath), "HOME": folder, "TMPDIR": folder, "LANG": "C.UTF-8", **more}
    streams = {"stdin": subprocess.DEVNULL, "stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    child = subprocess.Popen(command, cwd=folder, env=env, start_new_session=True, text=True,
                             **{**streams, lines_of: subprocess.PIPE})
    started.append(child)

    timer = threading.Timer(LIMIT, child.kill)
    timer.start()
    lines, pipe = [], getattr(child, lines_of)
    found = next((found for line in pipe if lines.append(line) or (found := find(line))), None)
    timer.cancel()

    expect(found, f"{command[0]} did not start; its output:\n{''.join(lines[-20:])}")
    threading.Thread(target=collections.deque, args=(pipe, 0), daemon=True).start()  # a full pipe would block it
    return found


def served_address(line):
    try:
        event = json.loads(line)
    except ValueError:
        return None
    return event.get("address") if event.get("message") == "serving" else None


def driver_port(line):
    found = re.search(r"started successfully on port (\d+)", line)
    return found and found[1]


def descendants(folder):
    """Yields the processes whose HOME is the folder, the children of Chromium included."""
    for entry in glob.glob("/proc/[0-9]*/environ"):
        try:
            with open(entry, "rb") as environ:
                if f"HOME={folder}".encode() in environ.read().split(b"\0"):
                    yield int(entry.split("/")[2])
        except OSError:
            continue  # it has ended, or belongs to another user


def end_all(started, folder):
    for kind in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(kind, signal.SIG_IGN)

    for child in reversed(started):
        child.terminate()
        try:
            child.wait(10)
        except subprocess.TimeoutExpired:
            child.kill()
            child.wait()

    end = time.monotonic() + LIMIT
    while os.path.exists(folder) and time.monotonic() < end:  # a process that is ending may still write
        for pid in descendants(folder):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        shutil.rmtree(folder, ignore_errors=True)
