"""The shop as its customers and its operator see it: over HTTP."""

import json
import threading
import time
import urllib.error
import urllib.request
from dataclasses import dataclass, field
from http.client import HTTPException

TIMEOUT = 20
# How many customers order at once, and how long each rests between two orders, in seconds.
CUSTOMERS = 4
REST = 0.05


@dataclass
class Answer:
    """`status` is None if none came: the connection was refused, lost, or timed out."""

    status: int | None
    body: dict = field(default_factory=dict)
    headers: dict = field(default_factory=dict)


class Shop:
    def __init__(self, base, management):
        self.base = base
        self.management = management

    def request(self, method, path, body=None, headers=None):
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(self.base + path, data=data, method=method, headers=headers or {})
        if data:
            request.add_header("content-type", "application/json")
        return ask(request)

    def get(self, path, **headers):
        return self.request("GET", path, headers=headers)

    def order(self, *lines):
        items = [{"product_id": product, "quantity": quantity} for product, quantity in lines]
        return self.request("POST", "/orders", {"user_id": 1, "items": items})

    def pay(self, order_id, wait=None):
        headers = {"prefer": f"wait={wait}"} if wait else {}
        return self.request("POST", f"/orders/{order_id}/pay", headers=headers)

    def settled(self, order_id, wait=10):
        """The order, as soon as it is PAID or FAILED, or as it is after the wait."""
        return self.request("GET", f"/orders/{order_id}", headers={"prefer": f"wait={wait}"})

    def settles(self, product):
        """Whether an order is taken, paid and settled now."""
        order = self.order((product, 1))
        return order.status == 201 and self.pay(order.body["order_id"], wait=5).status == 200

    def health(self):
        return ready(self.management)

    def metric(self, name, **labels):
        return metric(self.management, name, **labels)


def ask(request):
    try:
        with urllib.request.urlopen(request, timeout=TIMEOUT) as response:
            return Answer(response.status, read(response), dict(response.headers))
    except urllib.error.HTTPError as error:
        return Answer(error.code, read(error), dict(error.headers))
    except (OSError, HTTPException):
        return Answer(None)


def read(response):
    text = response.read()
    kind = response.headers.get("content-type", "")
    return json.loads(text) if "json" in kind and text else {"text": text.decode(errors="replace")}


def ready(management):
    """What /readyz at this address says of the parts; empty if it does not answer."""
    try:
        return ask(urllib.request.Request(f"{management}/readyz")).body
    except ValueError:
        return {}


def metric(management, name, **labels):
    """The sum over all series with these labels."""
    text = ask(urllib.request.Request(f"{management}/metrics")).body.get("text", "")
    wanted = [f'{label}="{value}"' for label, value in labels.items()]
    total = 0.0
    for line in text.splitlines():
        series, _, value = line.rpartition(" ")
        if series.split("{")[0] == name and all(label in series for label in wanted):
            total += float(value)
    return total


class Customers:
    """Customers who order and pay without pause, and remember what they were promised."""

    def __init__(self, shop, products):
        self.shop = shop
        self.products = products
        self.ending = threading.Event()
        self.lock = threading.Lock()
        self.created = set()
        self.accepted = set()
        self.settled = set()
        self.refused = 0
        self.odd = []
        self.threads = [threading.Thread(target=self.buy, args=(number,), daemon=True) for number in range(CUSTOMERS)]

    def __enter__(self):
        for thread in self.threads:
            thread.start()
        return self

    def __exit__(self, *_):
        self.ending.set()
        for thread in self.threads:
            thread.join()

    def buy(self, number):
        try:
            self.order_and_pay(number)
        except Exception as error:
            with self.lock:
                self.odd.append(("a customer went away", repr(error)))

    def order_and_pay(self, number):
        turn = number
        while not self.ending.is_set():
            turn += 1
            product = self.products[turn % len(self.products)]
            order = self.answered(self.shop.order((product, 1)), {201})
            if order:
                order_id = order.body["order_id"]
                self.remember(self.created, order_id)
                if self.answered(self.shop.pay(order_id), {200, 202}):
                    self.remember(self.accepted, order_id)
            self.answered(self.shop.get(f"/products/{product}"), {200})
            self.ending.wait(REST)

    def answered(self, answer, wanted):
        """The answer if it is as wanted. While parts are away, none or a 503 is no fault; any other is."""
        if answer.status in wanted:
            return answer
        with self.lock:
            if answer.status in (None, 503):
                self.refused += 1
            else:
                self.odd.append((answer.status, answer.body))
        return None

    def remember(self, orders, order_id):
        with self.lock:
            orders.add(order_id)

    def unsettled(self, seconds=90):
        """Those accepted by now that are not PAID within the time: lost, stuck, or FAILED although there is stock."""
        with self.lock:
            waiting = self.accepted - self.settled
        deadline = time.monotonic() + seconds
        while waiting:
            paid = {
                order_id for order_id in waiting if self.shop.get(f"/orders/{order_id}").body.get("status") == "PAID"
            }
            waiting -= paid
            self.settled |= paid
            if time.monotonic() >= deadline:
                break
            if waiting:
                time.sleep(0.5)
        return waiting

    def lost(self):
        """Orders that were answered with 201 and are not there."""
        with self.lock:
            created = set(self.created) - self.settled
        return {order_id for order_id in created if self.shop.get(f"/orders/{order_id}").status != 200}

    def odd_answers(self):
        """Those since the last call."""
        with self.lock:
            odd, self.odd = self.odd, []
        return odd
