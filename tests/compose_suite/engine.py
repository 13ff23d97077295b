"""Docker and Compose on the command line, and the containers of one project."""

import json
import os
import subprocess


class Failed(Exception):
    """A command that must succeed did not."""


def run(*command, check=True, timeout=120, environment=None, folder=None):
    """Runs a command without a terminal and gives its result, with what it printed as text."""
    result = subprocess.run(
        command, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=timeout, env=environment, cwd=folder
    )
    if check and result.returncode != 0:
        words = " ".join(command)
        raise Failed(f"{words}: exit code {result.returncode}\n{result.stdout[-3000:]}{result.stderr[-3000:]}")
    return result


def docker(*arguments, **options):
    return run("docker", *arguments, **options)


def find_compose():
    """The words of the Compose command: of COMPOSE, else `docker compose`, else `docker-compose`."""
    if os.environ.get("COMPOSE"):
        return os.environ["COMPOSE"].split()
    for command in (["docker", "compose"], ["docker-compose"]):
        try:
            if run(*command, "version", check=False).returncode == 0:
                return command
        except FileNotFoundError:
            pass
    raise Failed("neither `docker compose` nor `docker-compose` is there")


class Project:
    """One project of Compose: its containers by the name of their service."""

    def __init__(self, folder, name, environment):
        self.folder = folder
        self.name = name
        self.command = find_compose()
        self.environment = {**os.environ, **environment, "COMPOSE_PROJECT_NAME": name}

    def version(self):
        return run(*self.command, "version").stdout.strip().splitlines()[0]

    def compose(self, *arguments, check=True, timeout=300):
        command = [*self.command, *arguments]
        return run(*command, check=check, timeout=timeout, environment=self.environment, folder=self.folder)

    def containers(self, service=None, all_states=False):
        """Ids of the containers, oldest first."""
        filters = [f"label=com.docker.compose.project={self.name}"]
        if service:
            filters.append(f"label=com.docker.compose.service={service}")
        words = [word for condition in filters for word in ("--filter", condition)]
        listed = docker("ps", "-q", "--no-trunc", *(["-a"] if all_states else []), *words)
        return listed.stdout.split()[::-1]

    def all_of(self, service):
        return [Container(identity) for identity in self.containers(service)]

    def container(self, service):
        """The oldest one, also if it has ended."""
        found = self.containers(service, all_states=True)
        if not found:
            raise Failed(f"no container of {service}")
        return Container(found[0])


class Container:
    def __init__(self, identity):
        self.id = identity

    def inspect(self):
        return json.loads(docker("inspect", self.id).stdout)[0]

    @property
    def pid(self):
        return self.inspect()["State"]["Pid"]

    @property
    def health(self):
        return self.inspect()["State"].get("Health", {}).get("Status", "none")

    @property
    def restarts(self):
        return self.inspect()["RestartCount"]

    def process_status(self):
        """/proc/PID/status of its first process."""
        with open(f"/proc/{self.pid}/status", encoding="utf-8") as lines:
            pairs = (line.split(":", 1) for line in lines)
            return {name: value.strip() for name, value in pairs}

    def ended_well(self):
        state = self.inspect()["State"]
        return (state["Status"], state["ExitCode"]) == ("exited", 0)

    def address(self):
        """Its address on the project's network, which the host reaches too; empty while it is disconnected."""
        networks = self.inspect()["NetworkSettings"]["Networks"]
        return next((network["IPAddress"] for network in networks.values()), "")

    def execute(self, *command, check=True):
        return docker("exec", self.id, *command, check=check, timeout=60)
