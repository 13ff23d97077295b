"""The images that Dockerfile and docker-compose.yml name. One that cannot be pulled gets a stand-in of Debian's packages,
which bears its name while the checks run and keeps one of its own afterwards, so that a later run need not build it."""

import os
import re
import shutil
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path

from .engine import Failed, docker, run

STAND_INS = Path(__file__).parent / "stand_in"
PULL_TIMEOUT = 300
BOOTSTRAP_TIMEOUT = 900


@dataclass(frozen=True)
class StandIn:
    """A root of Debian's `packages`, on which the Dockerfile in `folder` stands."""

    folder: str
    suite: str
    packages: tuple
    variant: str = "minbase"


# By the beginning of the image's name.
KNOWN = {
    "postgres:": StandIn("postgres", "trixie", ("postgresql-17",)),
    "redis:": StandIn("redis", "bookworm", ("redis-server",)),
    "rabbitmq:": StandIn("rabbitmq", "trixie", ("rabbitmq-server",)),
    "rust:": StandIn("rust", "bookworm", ("ca-certificates", "gcc", "libc6-dev")),
    "gcr.io/distroless/cc-debian12:": StandIn(
        "distroless",
        "bookworm",
        ("base-files", "ca-certificates", "libc6", "libgcc-s1", "netbase", "tzdata"),
        "extract",
    ),
}


def named_by(project_folder):
    """(base images of the Dockerfile, images of the services that start without a profile)."""
    dockerfile = (project_folder / "Dockerfile").read_text()
    compose = (project_folder / "docker-compose.yml").read_text()
    bases = re.findall(r"^FROM (\S+)", dockerfile, re.MULTILINE)
    services = re.findall(r"^    image: (\S+:\S+)$", compose, re.MULTILINE)
    return bases, [name for name in services if not name.startswith(("prom/", "grafana/"))]


class Images:
    """Provides images, and takes the names back from stand-ins at the end."""

    def __init__(self, say, always_stand_in=False):
        self.say = say
        self.always_stand_in = always_stand_in
        self.borrowed = []

    def provide(self, name):
        stand_in = f"shop-stand-in/{name}"
        # A run that was killed may have left the name with the stand-in.
        is_real = identity(name) not in (None, identity(stand_in))
        if self.always_stand_in and is_real:
            raise Failed(f"the image {name} is there; remove it to check with a stand-in")
        if not self.always_stand_in and (is_real or pull(name)):
            return

        if not identity(stand_in):
            self.say(f"{name} cannot be pulled; a stand-in is built of Debian's packages")
            build_stand_in(name, stand_in)
        docker("tag", stand_in, name)
        self.borrowed.append(name)

    def give_back(self):
        for name in self.borrowed:
            docker("rmi", "--no-prune", name, check=False)


def identity(name):
    """The id of the image with this name, if there is one."""
    inspected = docker("image", "inspect", "-f", "{{.Id}}", name, check=False)
    return inspected.stdout.strip() if inspected.returncode == 0 else None


def pull(name):
    try:
        return docker("pull", "-q", name, check=False, timeout=PULL_TIMEOUT).returncode == 0
    except subprocess.TimeoutExpired:
        return False


def build_stand_in(name, tag):
    known = next((known for beginning, known in KNOWN.items() if name.startswith(beginning)), None)
    if known is None:
        raise Failed(f"{name} cannot be pulled, and there is no stand-in for it")
    if not shutil.which("mmdebstrap"):
        raise Failed(f"{name} cannot be pulled, and a stand-in needs mmdebstrap: apt-get install mmdebstrap")

    with tempfile.TemporaryDirectory(prefix="shop-stand-in-") as folder:
        shutil.copytree(STAND_INS / known.folder, folder, dirs_exist_ok=True)
        bootstrap(known, Path(folder))
        build(tag, folder)


def bootstrap(known, folder):
    """Writes root.tar into the folder."""
    prepare = folder / "prepare"
    command = [
        "mmdebstrap",
        f"--variant={known.variant}",
        f"--include={','.join(known.packages)}",
        "--dpkgopt=path-exclude=/usr/share/man/*",
        "--dpkgopt=path-exclude=/usr/share/doc/*",
        "--dpkgopt=path-exclude=/usr/share/locale/*",
        *([f"--customize-hook={prepare}"] if prepare.exists() else []),
        known.suite,
        str(folder / "root.tar"),
        *mirror(),
    ]
    # Into a file and in a session of its own: when it fails, it hangs up its whole process group.
    with open(folder / "log", "w+") as log:
        done = subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
            timeout=BOOTSTRAP_TIMEOUT,
        )
        log.seek(0)
        if done.returncode != 0:
            raise Failed("mmdebstrap: " + log.read()[-3000:])


def mirror():
    """The mirror of Debian that this machine uses, if it uses one; else mmdebstrap takes its own."""
    if not shutil.which("apt-get"):
        return []
    listed = run("apt-get", "indextargets", "--format", "$(REPO_URI)", "Created-By: Packages", check=False)
    found = [line for line in listed.stdout.splitlines() if re.search(r"/debian/?$", line)]
    return found[:1]


def build(tag, folder, *arguments):
    """With BuildKit where the engine's command has it, else with the older builder."""
    buildkit = docker("buildx", "version", check=False).returncode == 0
    environment = {**os.environ, "DOCKER_BUILDKIT": "1" if buildkit else "0"}
    docker("build", "-q", "-t", tag, *arguments, str(folder), timeout=3600, environment=environment)


def build_shop_from(binary, project_folder):
    """The image `shop` around an executable that was built for Debian 12: the last stage of the Dockerfile as it stands."""
    dockerfile = (project_folder / "Dockerfile").read_text()
    last_stage = dockerfile[dockerfile.rindex("\nFROM ") :]

    with tempfile.TemporaryDirectory(prefix="shop-image-") as folder:
        shutil.copytree(project_folder / "config", f"{folder}/config")
        os.makedirs(f"{folder}/out/data")
        shutil.copy(binary, f"{folder}/out/shop")
        Path(folder, "Dockerfile").write_text(f"FROM scratch AS build\nCOPY out /out\n{last_stage}")
        build("shop", folder)
