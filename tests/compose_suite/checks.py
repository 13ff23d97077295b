"""The shop as Compose starts it: what is up, what its containers may do, and one order to each of its ends."""

from functools import partial

from .engine import Container, docker
from .fixture import ONE_SHOTS, PROCESSES, SERVICES, UP

# The user of the image, by number.
NOBODY = "65532"
PASSWORD = "nobody-knows-it"


def starts(on):
    """`up` as it is written, from nothing, until each part is healthy."""
    on.report.section("up")
    read = on.project.compose("config", "--quiet", check=False)
    on.report.equal("docker-compose.yml is read without a warning", (read.returncode, read.stderr), (0, ""))

    # The first `up` also builds the image, if it is not there.
    on.project.compose("up", "-d", timeout=3600)
    on.report.eventually("products are answered", lambda: on.shop.get("/products").status == 200)
    everything_is_healthy(on, "started")
    for service in ONE_SHOTS:
        on.report.check(f"{service} has ended with 0", on.project.container(service).ended_well())
    both_have_all_parts(on, "started")
    on.report.equal("Swagger UI is there", on.shop.get("/docs").status, 200)


def everything_is_healthy(on, after):
    unhealthy = lambda: [service for service in SERVICES if on.project.container(service).health != "healthy"]
    on.report.eventually(f"{after}: every container is healthy", lambda: not unhealthy(), seen=unhealthy)


def both_have_all_parts(on, after):
    for service in PROCESSES:
        has_all_parts(on, service, after)


def has_all_parts(on, service, after):
    health = partial(on.health, service)
    on.report.eventually(f"{after}: {service} has all of its parts", lambda: health() == UP, seen=health)


def notices(on, service, dependency, what):
    """That an outage is one for this process, and that it says so."""
    health = partial(on.health, service)
    on.report.eventually(f"{what}: {service} notices", lambda: health().get(dependency) == "down", seen=health)


def containers(on):
    """What the containers may not do, and how much their logs may hold."""
    on.report.section("containers")
    for service in PROCESSES:
        container = on.project.container(service)
        status = container.process_status()
        on.report.equal(f"{service} is not root", status["Uid"].split(), [NOBODY] * 4)
        rights = {status[name] for name in ("CapEff", "CapPrm", "CapBnd", "CapAmb")}
        on.report.equal(f"{service} has no capability", rights, {"0" * 16})
        on.report.equal(f"{service} can gain no rights", status["NoNewPrivs"], "1")
        options = root_options(container.pid)
        on.report.check(f"the root of {service} is read-only", "ro" in options, options)

    inspected = [Container(identity).inspect() for identity in on.project.containers(all_states=True)]
    unlimited = [
        container["Name"]
        for container in inspected
        if not {"max-size", "max-file"} <= set(container["HostConfig"]["LogConfig"]["Config"])
    ]
    on.report.check("every container's log has a limit", inspected and not unlimited, unlimited)


def root_options(pid):
    """The options with which the root of the process is mounted."""
    with open(f"/proc/{pid}/mountinfo", encoding="utf-8") as lines:
        return next(fields[5].split(",") for fields in map(str.split, lines) if fields[4] == "/")


def walk(on):
    """One order to PAID and one to FAILED. Gives the first as it is answered from then on."""
    on.report.section("an order")
    products = on.shop.get("/products").body["items"]
    on.report.equal("the demo catalogue is there", len(products), 50)

    order = on.shop.order((3, 2), (5, 1))
    on.report.equal("an order is made", (order.status, order.body.get("status")), (201, "PENDING"))
    order_id = order.body["order_id"]
    on.report.equal("it is read", on.shop.get(f"/orders/{order_id}").body.get("status"), "PENDING")
    on.report.equal("its payment is accepted", on.shop.pay(order_id).status, 202)
    becomes(on, "PAID", "it", order_id)

    left = on.shop.get("/products/7").body["stock"]
    last, late = (on.shop.order((7, quantity)).body["order_id"] for quantity in (left, 1))
    for name, order, status in (("the order of the last units", last, "PAID"), ("one that comes late", late, "FAILED")):
        on.report.check(f"{name} is accepted", on.shop.pay(order).status in (200, 202))
        becomes(on, status, name, order)
    failed = on.shop.get(f"/orders/{late}").body
    on.report.equal("the stock was short", failed.get("failure", {}).get("reason"), "insufficient_stock")
    on.report.equal("it cannot be paid any more", on.shop.pay(late).status, 409)
    on.ledger_is_clean("both are settled")
    return on.shop.get(f"/orders/{order_id}").body


def becomes(on, status, name, order_id):
    order = lambda: on.shop.settled(order_id).body
    on.report.eventually(f"{name} becomes {status}", lambda: order().get("status") == status, seen=order)


def cache(on):
    """Redis is used: pages are kept there, and found there once the process has forgotten its own."""
    on.report.section("the cache")
    redis = on.project.container("redis")
    keys = lambda: redis.execute("redis-cli", "keys", "shop:*").stdout.split()
    page_is_kept = lambda: on.shop.get("/products").status == 200 and any("page" in key for key in keys())
    on.report.eventually("Redis holds pages", page_is_kept, seen=keys)
    is_found_in_redis(on, "the shop reads")


def is_found_in_redis(on, when):
    hits = lambda: on.shop.metric("shop_cache_hits_total", tier="shared")
    before = hits()
    rises = lambda: on.shop.get("/products").status == 200 and hits() > before
    on.report.eventually(f"{when}: pages are found in Redis", rises, seen=lambda: f"{hits()} hits")


def refusing_cache(on):
    """A Redis that runs and refuses everybody is noticed, does no harm, and is used again as soon as it may be."""
    on.report.section("a cache that refuses")
    redis = on.project.container("redis")
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
            notices(on, service, "cache", way)
        on.report.equal(f"{way}: products are answered", on.shop.get("/products").status, 200)
        on.report.equal(f"{way}: carts are not", on.shop.request("POST", "/carts").status, 503)
        on.report.eventually(f"{way}: an order is settled", lambda: on.shop.settles(1))
        # Not only for a moment: a command that takes too long looks like a refusal.
        for service in PROCESSES:
            on.report.equal(f"{way}: {service} still says so", on.health(service).get("cache"), "down")

        redis.execute(*allow)
        both_have_all_parts(on, f"{way}, then everything")
        is_found_in_redis(on, f"{way}, then everything")


def stops_and_starts(on, order):
    """`down` and `up` keep what is stored. Both roles end by themselves when they are asked to."""
    on.report.section("down and up")
    for service in PROCESSES:
        container = on.project.container(service)
        docker("stop", container.id)
        on.report.check(f"{service} ends by itself, with 0", container.ended_well(), container.inspect()["State"])

    on.project.compose("down")
    on.report.equal("down: no container is left", on.project.containers(all_states=True), [])

    on.project.compose("up", "-d")
    on.report.eventually("up: an order is settled", lambda: on.shop.settles(1))
    on.report.equal("the order of before is as it was", on.shop.get(f"/orders/{order['order_id']}").body, order)
    everything_is_healthy(on, "up again")
    on.ledger_is_clean("up again")


def leaves_nothing(on):
    """`down --volumes` deletes everything that is stored."""
    on.project.compose("down", "--volumes", "--remove-orphans")
    volumes = docker("volume", "ls", "-q", "--filter", f"label=com.docker.compose.project={on.project.name}")
    on.report.equal("down --volumes: nothing is left", volumes.stdout, "")
