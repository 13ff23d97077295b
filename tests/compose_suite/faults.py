"""What is done to the parts: killed, cut off from everybody, or cut off from one other part, by refusing or by silence."""

from .engine import docker, run


def kill(container):
    """As if the process had crashed. After `docker kill` the engine would restart nothing."""
    run("kill", "-9", str(container.pid))


class Disconnected:
    """A container without a network. On its way back it needs its alias, which `network connect` alone forgets."""

    def __init__(self, project, service):
        self.network = f"{project.name}_default"
        self.service = service
        self.container = project.container(service).id

    def begin(self):
        docker("network", "disconnect", self.network, self.container)

    def end(self):
        docker("network", "connect", "--alias", self.service, self.network, self.container)


class Cut:
    """Two parts that do not reach each other, by rules inside the network of the one that connects."""

    REJECT = ("-p", "tcp", "-j", "REJECT", "--reject-with", "tcp-reset")
    DROP = ("-j", "DROP")

    def __init__(self, container, other, rule):
        self.container = container
        address = other.address()
        self.rules = [("OUTPUT", "-d", address, *rule), ("INPUT", "-s", address, *rule)]

    def begin(self):
        for chain, *rule in self.rules:
            self.iptables("-I", chain, *rule)

    def end(self):
        for chain, *rule in self.rules:
            self.iptables("-D", chain, *rule)

    def iptables(self, *arguments):
        run("nsenter", "--target", str(self.container.pid), "--net", "iptables", "-w", "10", *arguments)
