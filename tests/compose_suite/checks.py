"""The shop as Compose starts it: what is up, what its containers may do, and one order to each of its ends."""

from functools import partial

from .engine import Container, docker
from .fixture import ONE_SHOTS, PROCESSES, SERVICES, UP

# The user of the image, by number.
NOBODY = "65532"
PASSWORD = "nobody-knows-it"


def starts(suite):
    """`up` as it is written, from nothing, until each part is healthy."""
    suite.report.section("up")
    read = suite.project.compose("config", "--quiet", check=False)
    suite.report.equal("docker-compose.yml is read without a warning", (read.returncode, read.stderr), (0, ""))

    # The first `up` also builds the image, if it is not there.
    suite.project.compose("up", "-d", timeout=3600)
    suite.report.eventually("products are answered", lambda: suite.shop.get("/products").status == 200)
    everything_is_healthy(suite, "started")
    for service in ONE_SHOTS:
        suite.report.check(f"{service} has ended with 0", suite.project.container(service).ended_well())
    both_have_all_parts(suite, "started")
    suite.report.equal("Swagger UI is there", suite.shop.get("/docs").status, 200)


def everything_is_healthy(suite, after):
    unhealthy = lambda: [service for service in SERVICES if suite.project.container(service).health != "healthy"]
    suite.report.eventually(f"{after}: every container is healthy", lambda: not unhealthy(), seen=unhealthy)


def both_have_all_parts(suite, after):
    for service in PROCESSES:
        has_all_parts(suite, service, after)


def has_all_parts(suite, service, after):
    health = partial(suite.health, service)
    suite.report.eventually(f"{after}: {service} has all of its parts", lambda: health() == UP, seen=health)


def notices(suite, service, dependency, what):
    """That an outage is one for this process, and that it says so."""
    health = partial(suite.health, service)
    suite.report.eventually(f"{what}: {service} notices", lambda: health().get(dependency) == "down", seen=health)


def containers(suite):
    """What the containers may not do, and how much their logs may hold."""
    suite.report.section("containers")
    for service in PROCESSES:
        container = suite.project.container(service)
        status = container.process_status()
        suite.report.equal(f"{service} is not root", status["Uid"].split(), [NOBODY] * 4)
        rights = {status[name] for name in ("CapEff", "CapPrm", "CapBnd", "CapAmb")}
        suite.report.equal(f"{service} has no capability", rights, {"0" * 16})
        suite.report.equal(f"{service} can gain no rights", status["NoNewPrivs"], "1")
        options = root_options(container.pid)
        suite.report.check(f"the root of {service} is read-only", "ro" in options, options)

    inspected = [Container(identity).inspect() for identity in suite.project.containers(all_states=True)]
    unlimited = [
        container["Name"]
        for container in inspected
        if not {"max-size", "max-file"} <= set(container["HostConfig"]["LogConfig"]["Config"])
    ]
    suite.report.check("every container's log has a limit", inspected and not unlimited, unlimited)


def root_options(pid):
    """The options with which the root of the process is mounted."""
    with open(f"/proc/{pid}/mountinfo", encoding="utf-8") as lines:
        return next(fields[5].split(",") for fields in map(str.split, lines) if fields[4] == "/")


def walk(suite):
    """One order to PAID and one to FAILED. Gives the first as it is answered from then on."""
    suite.report.section("an order")
    products = suite.shop.get("/products").body["items"]
    suite.report.equal("the demo catalogue is there", len(products), 50)

    order = suite.shop.order((3, 2), (5, 1))
    suite.report.equal("an order is made", (order.status, order.body.get("status")), (201, "PENDING"))
    order_id = order.body["order_id"]
    suite.report.equal("it is read", suite.shop.get(f"/orders/{order_id}").body.get("status"), "PENDING")
    suite.report.equal("its payment is accepted", suite.shop.pay(order_id).status, 202)
    becomes(suite, "PAID", "it", order_id)

    left = suite.shop.get("/products/7").body["stock"]
    last, late = (suite.shop.order((7, quantity)).body["order_id"] for quantity in (left, 1))
    for name, order, status in (("the order of the last units", last, "PAID"), ("one that comes late", late, "FAILED")):
        suite.report.check(f"{name} is accepted", suite.shop.pay(order).status in (200, 202))
        becomes(suite, status, name, order)
    failed = suite.shop.get(f"/orders/{late}").body
    suite.report.equal("the stock was short", failed.get("failure", {}).get("reason"), "insufficient_stock")
    suite.report.equal("it cannot be paid any more", suite.shop.pay(late).status, 409)
    suite.ledger_is_clean("both are settled")
    return suite.shop.get(f"/orders/{order_id}").body


def becomes(suite, status, name, order_id):
    order = lambda: suite.shop.settled(order_id).body
    suite.report.eventually(f"{name} becomes {status}", lambda: order().get("status") == status, seen=order)


def cache(suite):
    """Redis is used: pages are kept there, and found there once the process has forgotten its own."""
    suite.report.section("the cache")
    redis = suite.project.container("redis")
    keys = lambda: redis.execute("redis-cli", "keys", "shop:*").stdout.split()
    page_is_kept = lambda: suite.shop.get("/products").status == 200 and any("page" in key for key in keys())
    suite.report.eventually("Redis holds pages", page_is_kept, seen=keys)
    is_found_in_redis(suite, "the shop reads")


def is_found_in_redis(suite, when):
    hits = lambda: suite.shop.metric("shop_cache_hits_total", tier="shared")
    before = hits()
    rises = lambda: suite.shop.get("/products").status == 200 and hits() > before
    suite.report.eventually(f"{when}: pages are found in Redis", rises, seen=lambda: f"{hits()} hits")


def refusing_cache(suite):
    """A Redis that runs and refuses everybody is noticed, does no harm, and is used again as soon as it may be."""
    suite.report.section("a cache that refuses")
    redis = suite.project.container("redis")
    client = ("redis-cli", "--no-auth-warning", "-a", PASSWORD)
    ways = {
        # Connections that were let in stay so, and are ended.
        "a password is asked for": (
            [("redis-cli", "config", "set", "requirepass", PASSWORD), (*client, "client", "kill", "type", "normal")],
            (*client, "config", "set", "requirepass", ""),
        ),
        "PING alone is allowed": (
            [("redis-cli", "acl", "setuser", "default", "-@all", "+ping", "+acl")],
            ("redis-cli", "acl", "setuser", "default", "+@all"),
        ),
    }
    for way, (refuse, allow) in ways.items():
        for command in refuse:
            redis.execute(*command)
        for service in PROCESSES:
            notices(suite, service, "cache", way)
        suite.report.equal(f"{way}: products are answered", suite.shop.get("/products").status, 200)
        suite.report.equal(f"{way}: carts are not", suite.shop.request("POST", "/carts").status, 503)
        suite.report.eventually(f"{way}: an order is settled", lambda: suite.shop.settles(1))
        # Not only for a moment: a command that takes too long looks like a refusal.
        for service in PROCESSES:
            suite.report.equal(f"{way}: {service} still says so", suite.health(service).get("cache"), "down")

        redis.execute(*allow)
        both_have_all_parts(suite, f"{way}, then everything")
        is_found_in_redis(suite, f"{way}, then everything")


def stops_and_starts(suite, order):
    """`down` and `up` keep what is stored. Both roles end by themselves when they are asked to."""
    suite.report.section("down and up")
    for service in PROCESSES:
        container = suite.project.container(service)
        docker("stop", container.id)
        suite.report.check(f"{service} ends by itself, with 0", container.ended_well(), container.inspect()["State"])

    suite.project.compose("down")
    suite.report.equal("down: no container is left", suite.project.containers(all_states=True), [])

    suite.project.compose("up", "-d")
    suite.report.eventually("up: an order is settled", lambda: suite.shop.settles(1))
    suite.report.equal("the order of before is as it was", suite.shop.get(f"/orders/{order['order_id']}").body, order)
    everything_is_healthy(suite, "up again")
    suite.ledger_is_clean("up again")


def leaves_nothing(suite):
    """`down --volumes` deletes everything that is stored."""
    suite.project.compose("down", "--volumes", "--remove-orphans")
    volumes = docker("volume", "ls", "-q", "--filter", f"label=com.docker.compose.project={suite.project.name}")
    suite.report.equal("down --volumes: nothing is left", volumes.stdout, "")
