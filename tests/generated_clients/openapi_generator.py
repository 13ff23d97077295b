"""What a shop front does, by the client that openapi-generator makes for Python. Run by `tests/clients`."""

import json
import os

from shop_client import ApiClient, ApiException, CatalogueApi, Configuration, NewOrder, NewOrderItem, OrdersApi, Payment

settings = Configuration(host=os.environ["API_URL"], access_token=os.environ.get("API_TOKEN"))


def bought(product, quantity):
    return NewOrder(user_id=1, items=[NewOrderItem(product_id=product.id, quantity=quantity)])


def main():
    client = ApiClient(settings)
    catalogue, orders = CatalogueApi(client), OrdersApi(client)
    page = catalogue.list_products(limit=3)
    assert len(page.items) == 3, page
    product = catalogue.get_product(page.items[0].id)

    order = orders.create_order(bought(product, 2))
    paid = orders.pay_order(order.order_id, prefer="wait=10", payment=Payment(payment_method="pm_card_visa"))
    assert paid.status == "PAID", paid

    # The whole stream as one text.
    stream = orders.follow_order(order.order_id)
    fields = dict(line.split(": ", 1) for line in stream.splitlines() if ": " in line)
    assert json.loads(fields["data"])["status"] == "PAID", stream
    assert orders.follow_order(order.order_id, last_event_id=fields["id"]) is None

    short = orders.create_order(bought(product, 10_000))
    try:
        orders.pay_order(short.order_id, prefer="wait=10")
        raise AssertionError("a short order was paid")
    except ApiException as error:
        assert error.status == 409, error
        assert error.data.type == "urn:shop:problem:order-failed", error.data
        assert error.data.failure.lines[0].requested == 10_000, error.data
    print("openapi-generator, Python:", fields["id"])


main()
