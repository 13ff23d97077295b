"""What every check works on: the report, the project of Compose, and the shop in it."""

from dataclasses import dataclass

from .engine import Project
from .report import Report
from .shop import Shop, metric, ready

# The services that stay up, and those that end by themselves.
SERVERS = ("postgres", "redis", "rabbitmq")
PROCESSES = ("api", "worker")
SERVICES = (*SERVERS, *PROCESSES)
ONE_SHOTS = ("migrate", "seed")
UP = {"ready": True, "database": "up", "queue": "up", "cache": "up"}
# What /readyz calls each server.
DEPENDENCY = {"postgres": "database", "rabbitmq": "queue", "redis": "cache"}


@dataclass(frozen=True)
class Fixture:
    report: Report
    project: Project
    shop: Shop

    def health(self, service):
        """What the API or the worker says of its parts; the host asks the worker at the address of its container."""
        if service == "api":
            return self.shop.health()
        return ready(management(self.project.container(service)))

    def worker_metrics(self, name, **labels):
        """The metric of each worker."""
        addresses = [management(container) for container in self.project.all_of("worker")]
        return [metric(address, name, **labels) for address in addresses]

    def verify(self):
        """`shop verify` as the documentation writes it. No order may have waited for longer than a minute."""
        command = ("exec", "-T", "api", "/usr/local/bin/shop", "verify", "--max-age", "1m")
        return self.project.compose(*command, check=False)

    def ledger_is_clean(self, after):
        verified = self.verify()
        self.report.check(f"{after}: the ledger is clean", verified.returncode == 0, verified.stdout + verified.stderr)


def management(container):
    return f"http://{container.address()}:8081"
