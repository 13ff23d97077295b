"""The promises about the page, and which of them are checked on which server."""

import json
import re
import time
import urllib.parse

from .browser import REMOTE_NAME
from .check import LIMIT, ask, expect
from .docs_page import Docs

METHODS = ("get", "put", "post", "delete", "options", "head", "patch", "trace")


def listed(spec):
    """Returns every operation of the document by the name that the page should show."""
    return {f"{method.upper()} {path}": operation for path, item in spec["paths"].items()
            for method, operation in item.items() if method in METHODS}


def squeezed(markdown):
    """Returns the text without its Markdown and its spaces."""
    markdown = re.sub(r"(?m)^\|( *-+ *\|)+$", "", markdown)  # the line below the heading of a table
    return "".join(re.sub(r"(?m)^\s*(\d+\.|[-*])\s|\[([^]]*)\]\([^)]*\)|[`*|\s]", r"\2", markdown).split())


def expect_shown(texts, page, where):
    page = squeezed(page)
    missing = [text for text in texts if text and squeezed(text) not in page]
    expect(not missing, f"{where} does not show {missing}")


class Proof:
    """Each promise is a method that raises `Failed`; later ones use the order that earlier ones have created."""

    def __init__(self, browser, origin, token=None):
        self.browser, self.origin, self.token = browser, origin, token
        self.docs = Docs(browser, origin)
        self.spec = ask(f"{origin}/openapi.json")
        self.order_id = None

    def swagger_ui_renders(self):
        self.docs.open()
        errors = self.browser.run("return all('.errors-wrapper').map(text)")
        expect(not errors, f"Swagger UI shows errors: {errors}")

    def without_a_token_nothing_is_shown(self):
        self.docs.try_out("GET /products")
        self.answer("GET /products", 401)
        self.docs.fold("GET /products")

    def authorize_takes_the_token(self):
        click = lambda what, selector: self.browser.click(
            self.browser.wait(what, "return all(args[0])[0]", selector))
        click("Authorize", ".auth-wrapper .btn.authorize")
        field = self.browser.wait("a field for the token", "return all('.modal-ux .auth-container input')[0]")
        self.browser.type_over(field, self.token)
        click("Authorize in the dialogue", ".modal-ux .auth-btn-wrapper .btn.authorize")
        click("Close", ".modal-ux .btn-done")
        self.browser.wait("a closed dialogue", "return !all('.modal-ux').length")

    def every_operation_is_listed(self):
        shown, wanted = self.browser.run("return all('.opblock').map(name)"), listed(self.spec)
        expect(sorted(shown) == sorted(wanted), f"described {sorted(wanted)}, but listed {sorted(shown)}")
        return ", ".join(shown)

    def the_service_and_its_tags_are_described(self):
        page = self.browser.run("return all('.info, .opblock-tag').map(text).join(' ')")
        info = self.spec["info"]
        expect(info.get("description"), "the service has no description")
        expect_shown([info["title"], info["description"], *(tag["description"] for tag in self.spec["tags"])],
                     page, "the page")

    def every_operation_shows_its_descriptions(self):
        for name, operation in listed(self.spec).items():
            self.docs.unfold(name)
            self.docs.part(name, ".opblock-body .responses-table")
            parts = [*operation.get("parameters", []), *operation["responses"].values()]
            texts = [operation["summary"], operation.get("description"), *(part["description"] for part in parts)]
            expect_shown(texts, self.browser.run("return text(block(arguments[0]))", name), name)
            self.docs.fold(name)

    def get_products_shows_the_seeded_products(self):
        names = [product["name"] for product in ask(f"{self.origin}/products", token=self.token)["items"]]
        expect(names, "the server has no products")
        self.docs.try_out("GET /products")
        shown = self.answer("GET /products", 200)
        missing = [name for name in names if name not in shown]
        expect(not missing, f"not shown: {missing}")
        self.docs.fold("GET /products")
        return f"{len(names)} products, {names[0]} first"

    def post_orders_creates_an_order_from_its_example(self):
        example = self.try_example("POST /orders")
        order = json.loads(self.answer("POST /orders", 201))
        wanted = [(item["product_id"], item["quantity"]) for item in example["items"]]
        expect([(item["product_id"], item["quantity"]) for item in order["items"]] == wanted, f"{example} gave {order}")
        expect(order["status"] == "PENDING", f"the order is {order['status']}")
        self.order_id = order["order_id"]
        self.docs.fold("POST /orders")
        return self.order_id

    def post_orders_id_pay_accepts_its_example(self):
        expect(self.order_id, "there is no order to pay")
        example = self.try_example("POST /orders/{id}/pay", id=self.order_id)
        self.answer("POST /orders/{id}/pay", 202)
        self.docs.fold("POST /orders/{id}/pay")
        return str(example)

    def get_orders_id_shows_paid_in_the_end(self):
        expect(self.order_id, "there is no order to read")
        self.docs.try_out("GET /orders/{id}", id=self.order_id)
        end, presses, status = time.monotonic() + LIMIT, 0, "PENDING"
        while status == "PENDING" and time.monotonic() < end:
            order = json.loads(self.answer("GET /orders/{id}", 200))
            presses, status = presses + 1, order["status"]
        expect((order["order_id"], status) == (self.order_id, "PAID"), f"after {presses} presses: {order}")
        return f"pressed Execute {presses}x"

    def a_cart_becomes_a_held_order_that_is_cancelled(self):
        self.docs.try_out("POST /carts")
        cart = json.loads(self.answer("POST /carts", 201))["cart_id"]
        put, check_out = "PUT /carts/{id}/items/{product_id}", "POST /carts/{id}/checkout"
        self.try_example(put, id=cart, product_id="2")
        self.answer(put, 200)
        self.try_example(check_out, id=cart)
        order = json.loads(self.answer(check_out, 201))
        expect("expires_at" in order, f"it has no hold: {order}")

        cancel = "POST /orders/{id}/cancel"
        self.docs.try_out(cancel, id=order["order_id"])
        failure = json.loads(self.answer(cancel, 202)).get("failure")
        expect(failure == {"reason": "cancelled", "lines": []}, f"the failure is {failure}")
        for operation in ("POST /carts", put, check_out, cancel):
            self.docs.fold(operation)
        return order["order_id"]

    def post_orders_id_refunds_makes_the_refund_of_its_example(self):
        expect(self.order_id, "there is no order to refund")
        operation = "POST /orders/{id}/refunds"
        example = self.try_example(operation, id=self.order_id, **{"Idempotency-Key": "by-hand-1"})
        refund = json.loads(self.answer(operation, 201))
        expect(refund["items"] == example["items"], f"{example} gave {refund}")
        self.docs.fold(operation)
        return refund["refund_id"]

    def a_browser_stops_following_an_order_that_is_settled(self):
        expect(self.order_id, "there is no order to follow")
        ids = self.browser.call("POST", "/execute/async", {"args": [f"/orders/{self.order_id}/events"], "script": """
            const [path, done] = arguments, ids = [], events = new EventSource(path);
            events.addEventListener("order", event => ids.push(event.lastEventId));
            events.onerror = () => events.readyState === EventSource.CLOSED && done(ids);
        """})
        expect(len(ids) == 1 and ids[0].startswith("paid@"), f"received {ids}")
        return ids[0]

    def only_the_server_was_requested(self):
        return self.expect_only(self.origin)

    def only_the_server_was_requested_under_a_remote_name(self):
        remote = f"http://{REMOTE_NAME}:{urllib.parse.urlsplit(self.origin).port}"
        Docs(self.browser, remote).open()
        return self.expect_only(remote)

    def the_page_raised_no_error(self):
        """Answers of 4xx are only listed, since a page may ask for what does not exist. Every other error fails."""
        severe = [entry for entry in self.browser.log("browser") if entry["level"] == "SEVERE"]
        listed_only = [entry["message"] for entry in severe
                       if entry["source"] == "network" and re.search(r"status of 4\d\d", entry["message"])]
        raised = [entry["message"] for entry in severe if entry["message"] not in listed_only]
        expect(not raised, "; ".join(raised))
        return "; ".join(listed_only)

    def try_example(self, operation, **parameters):
        """Presses Try it out and returns the example that is filled in as the body."""
        schema = listed(self.spec)[operation]["requestBody"]["content"]["application/json"]["schema"]
        example, = self.spec["components"]["schemas"][schema["$ref"].rpartition("/")[2]]["examples"]
        filled_in = json.loads(self.docs.try_out(operation, **parameters))
        expect(filled_in == example, f"{filled_in} is filled in, and the example is {example}")
        return filled_in

    def answer(self, operation, wanted):
        """Presses Execute, expects the status, and returns the body that is shown."""
        status, body = self.docs.execute(operation)
        expect(status.split()[:1] == [str(wanted)], f"{operation} answered {status}: {body}")
        return body

    def expect_only(self, origin):
        # Wait until the page is idle, so that late requests are in the log.
        self.browser.call("POST", "/execute/async", {"script": "requestIdleCallback(arguments[0])", "args": []})
        urls = requested_urls(self.browser.log("performance"))
        for url in urls:
            print(f"     requested {url if len(url) < 80 else url[:80] + '…'}")
        foreign = [url for url in urls if not is_own(url, origin)]
        expect(not foreign, f"requested {foreign}")
        expect(f"{origin}/docs" in urls, "/docs is missing from the log")
        return f"{len(urls)} addresses"


def requested_urls(log):
    """Returns the distinct addresses in the performance log, sockets included, in the order of the first request."""
    urls = []
    for entry in log:
        message = json.loads(entry["message"])["message"]
        if message["method"] == "Network.requestWillBeSent":
            urls.append(message["params"]["request"]["url"])
        elif message["method"] in ("Network.webSocketCreated", "Network.webTransportCreated"):
            urls.append(message["params"]["url"])
    return list(dict.fromkeys(urls))


def is_own(url, origin):
    parts = urllib.parse.urlsplit(url)
    return parts.scheme in ("data", "blob", "about", "chrome") or f"{parts.scheme}://{parts.netloc}" == origin


WALK = (
    Proof.get_products_shows_the_seeded_products, Proof.post_orders_creates_an_order_from_its_example,
    Proof.post_orders_id_pay_accepts_its_example, Proof.get_orders_id_shows_paid_in_the_end,
    Proof.a_cart_becomes_a_held_order_that_is_cancelled,
)
CLICKS = (
    Proof.every_operation_is_listed, Proof.the_service_and_its_tags_are_described,
    Proof.every_operation_shows_its_descriptions, *WALK, Proof.post_orders_id_refunds_makes_the_refund_of_its_example,
    Proof.a_browser_stops_following_an_order_that_is_settled,
)
# On a server with authentication.
GUARDED_CLICKS = (Proof.without_a_token_nothing_is_shown, Proof.authorize_takes_the_token, *WALK)
LOGS = (
    Proof.only_the_server_was_requested, Proof.only_the_server_was_requested_under_a_remote_name,
    Proof.the_page_raised_no_error,
)
