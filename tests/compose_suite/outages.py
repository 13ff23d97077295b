"""Every part is killed, cut off from all others, and cut off from each that it talks to, while customers order. Each outage
must be noticed, end by itself, lose no order that was accepted, and leave the ledger clean."""

import time
from itertools import product as pairs_of

from . import checks
from .faults import Cut, Disconnected, kill
from .fixture import DEPENDENCY, PROCESSES, SERVERS, SERVICES
from .shop import Customers

# How long an outage lasts after it was noticed, in seconds.
LASTS = 5


def all_of_them(on):
    on.report.section("outages under load")
    products = [plenty(on, number) for number in range(4)]

    with Customers(on.shop, products) as customers:
        for service in SERVICES:
            killed(on, customers, service)
        for service in SERVICES:
            disconnected(on, customers, service)
        for (process, server), way in pairs_of(pairs_of(PROCESSES, SERVERS), ("rejecting", "dropping")):
            cut(on, customers, process, server, way)
        lost = customers.lost()

    on.report.check(f"none of {len(customers.created)} orders is lost", customers.created and not lost, lost)
    print(f"     {len(customers.accepted)} payments were accepted; {customers.refused} requests failed meanwhile")
    checks.everything_is_healthy(on, "after all of them")


def memory(on):
    """The worker does not keep the 8 MB of each connection that it has lost. It shows at the first one, while it is idle."""
    on.report.section("memory")
    worker = on.project.container("worker")
    before = own_memory(worker)

    kill(on.project.container("rabbitmq"))
    on.report.eventually("RabbitMQ is killed: an order is settled again", lambda: on.shop.settles(1))
    checks.has_all_parts(on, "worker", "RabbitMQ is killed")
    grown = own_memory(worker) - before
    on.report.check(
        "the worker's memory has not grown by a connection", grown < 8, f"{before:.0f} MB and {grown:.0f} more"
    )


def own_memory(container):
    """What its first process alone holds, in MB."""
    return int(container.process_status()["RssAnon"].split()[0]) / 1024


def plenty(on, number):
    """A product that is never short, so that every accepted order of it has to become PAID."""
    made = on.shop.request("POST", "/products", {"name": f"Plenty {number}", "price": 100, "stock": 1_000_000})
    return made.body["id"]


def killed(on, customers, service):
    what = f"{service} is killed"
    container = on.project.container(service)
    before = container.pid

    kill(container)
    on.report.eventually(f"{what}: the engine starts it again", lambda: container.pid not in (0, before))
    recovers(on, customers, what)


def disconnected(on, customers, service):
    what = f"{service} is disconnected"
    restarts = restart_counts(on)
    outage = Disconnected(on.project, service)

    outage.begin()
    if service in SERVERS:
        for process in PROCESSES:
            checks.notices(on, process, DEPENDENCY[service], what)
    else:
        container = on.project.container(service)
        unwell = lambda: container.execute("/usr/local/bin/shop", "health", check=False).returncode != 0
        on.report.eventually(f"{what}: it knows that it cannot work", unwell)
    time.sleep(LASTS)

    outage.end()
    recovers(on, customers, what)
    on.report.equal(f"{what}: nothing had to be restarted", restart_counts(on), restarts)


def cut(on, customers, process, server, way):
    what = f"{process} and {server} are cut off from each other, {way}"
    restarts = restart_counts(on)
    rule = Cut.REJECT if way == "rejecting" else Cut.DROP
    outage = Cut(on.project.container(process), on.project.container(server), rule)

    outage.begin()
    checks.notices(on, process, DEPENDENCY[server], what)
    time.sleep(LASTS)

    outage.end()
    recovers(on, customers, what)
    on.report.equal(f"{what}: nothing had to be restarted", restart_counts(on), restarts)


def recovers(on, customers, what):
    first = customers.products[0]
    on.report.eventually(f"{what}: an order is settled again", lambda: on.shop.settles(first))
    checks.both_have_all_parts(on, what)

    unsettled = customers.unsettled()
    on.report.check(
        f"{what}: every accepted order is PAID", not unsettled, f"{len(unsettled)}: {sorted(unsettled)[:5]}"
    )
    odd = customers.odd_answers()
    on.report.check(f"{what}: no answer but 503 was out of order", not odd, odd[:5])
    on.ledger_is_clean(what)


def restart_counts(on):
    return {service: on.project.container(service).restarts for service in SERVICES}


def more_workers(on):
    """`--scale worker=3`: three of them, and each settles."""
    on.report.section("more workers")
    on.project.compose("up", "-d", "--scale", "worker=3")
    settled = lambda: on.worker_metrics("shop_batch_size_count", batch="settle")
    on.report.equal("three workers run", len(on.project.containers("worker")), 3)

    before = settled()
    products = [plenty(on, 9)]
    with Customers(on.shop, products) as customers:
        all_settle = lambda: all(now > then for now, then in zip(settled(), before, strict=True))
        on.report.eventually("each of them settles", all_settle, seen=lambda: f"{before}, {settled()}")
    on.report.check("every accepted order is PAID", customers.accepted and not customers.unsettled())
    on.ledger_is_clean("three workers")
