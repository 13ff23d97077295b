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


def all_of_them(suite):
    suite.report.section("outages under load")
    products = [plenty(suite, number) for number in range(4)]

    with Customers(suite.shop, products) as customers:
        for service in SERVICES:
            killed(suite, customers, service)
        for service in SERVICES:
            disconnected(suite, customers, service)
        for (process, server), way in pairs_of(pairs_of(PROCESSES, SERVERS), ("rejecting", "dropping")):
            cut(suite, customers, process, server, way)
        lost = customers.lost()

    suite.report.check(f"none of {len(customers.created)} orders is lost", customers.created and not lost, lost)
    print(f"     {len(customers.accepted)} payments were accepted; {customers.refused} requests failed meanwhile")
    checks.everything_is_healthy(suite, "after all of them")


def memory(suite):
    """The worker does not keep the 8 MB of each connection that it has lost. It shows at the first one, while it is idle."""
    suite.report.section("memory")
    worker = suite.project.container("worker")
    before = own_memory(worker)

    kill(suite.project.container("rabbitmq"))
    suite.report.eventually("RabbitMQ is killed: an order is settled again", lambda: suite.shop.settles(1))
    checks.has_all_parts(suite, "worker", "RabbitMQ is killed")
    grown = own_memory(worker) - before
    suite.report.check(
        "the worker's memory has not grown by a connection", grown < 8, f"{before:.0f} MB and {grown:.0f} more"
    )


def own_memory(container):
    """What its first process alone holds, in MB."""
    return int(container.process_status()["RssAnon"].split()[0]) / 1024


def plenty(suite, number):
    """A product that is never short, so that every accepted order of it has to become PAID."""
    made = suite.shop.request("POST", "/products", {"name": f"Plenty {number}", "price": 100, "stock": 1_000_000})
    return made.body["id"]


def killed(suite, customers, service):
    what = f"{service} is killed"
    container = suite.project.container(service)
    before = container.pid

    kill(container)
    suite.report.eventually(f"{what}: the engine starts it again", lambda: container.pid not in (0, before))
    recovers(suite, customers, what)


def disconnected(suite, customers, service):
    what = f"{service} is disconnected"
    restarts = restart_counts(suite)
    outage = Disconnected(suite.project, service)

    outage.begin()
    if service in SERVERS:
        for process in PROCESSES:
            checks.notices(suite, process, DEPENDENCY[service], what)
    else:
        container = suite.project.container(service)
        unwell = lambda: container.execute("/usr/local/bin/shop", "health", check=False).returncode != 0
        suite.report.eventually(f"{what}: it knows that it cannot work", unwell)
    time.sleep(LASTS)

    outage.end()
    recovers(suite, customers, what)
    suite.report.equal(f"{what}: nothing had to be restarted", restart_counts(suite), restarts)


def cut(suite, customers, process, server, way):
    what = f"{process} and {server} are cut off from each other, {way}"
    restarts = restart_counts(suite)
    rule = Cut.REJECT if way == "rejecting" else Cut.DROP
    outage = Cut(suite.project.container(process), suite.project.container(server), rule)

    outage.begin()
    checks.notices(suite, process, DEPENDENCY[server], what)
    time.sleep(LASTS)

    outage.end()
    recovers(suite, customers, what)
    suite.report.equal(f"{what}: nothing had to be restarted", restart_counts(suite), restarts)


def recovers(suite, customers, what):
    first = customers.products[0]
    suite.report.eventually(f"{what}: an order is settled again", lambda: suite.shop.settles(first))
    checks.both_have_all_parts(suite, what)

    unsettled = customers.unsettled()
    suite.report.check(
        f"{what}: every accepted order is PAID", not unsettled, f"{len(unsettled)}: {sorted(unsettled)[:5]}"
    )
    odd = customers.odd_answers()
    suite.report.check(f"{what}: no answer but 503 was out of order", not odd, odd[:5])
    suite.ledger_is_clean(what)


def restart_counts(suite):
    return {service: suite.project.container(service).restarts for service in SERVICES}


def more_workers(suite):
    """`--scale worker=3`: three of them, and each settles."""
    suite.report.section("more workers")
    suite.project.compose("up", "-d", "--scale", "worker=3")
    settled = lambda: suite.worker_metrics("shop_batch_size_count", batch="settle")
    suite.report.equal("three workers run", len(suite.project.containers("worker")), 3)

    before = settled()
    products = [plenty(suite, 9)]
    with Customers(suite.shop, products) as customers:
        all_settle = lambda: all(now > then for now, then in zip(settled(), before, strict=True))
        suite.report.eventually("each of them settles", all_settle, seen=lambda: f"{before}, {settled()}")
    suite.report.check("every accepted order is PAID", customers.accepted and not customers.unsettled())
    suite.ledger_is_clean("three workers")
