"""What a shop front does, by the client that openapi-python-client makes. Run by `tests/clients`."""

import json
import os

from shop_client import AuthenticatedClient
from shop_client.api.catalogue import get_product, list_products
from shop_client.api.orders import create_order, follow_order, pay_order
from shop_client.models import NewOrder, NewOrderItem, OrderStatus, Payment, ProblemType

client = AuthenticatedClient(base_url=os.environ["API_URL"], token=os.environ.get("API_TOKEN", "none"))


def bought(product, quantity):
    return NewOrder(user_id=1, items=[NewOrderItem(product_id=product.id, quantity=quantity)])


def main():
    page = list_products.sync(client=client, limit=3)
    assert len(page.items) == 3, page
    product = get_product.sync(page.items[0].id, client=client)

    order = create_order.sync(client=client, body=bought(product, 2))
    paid = pay_order.sync(order.order_id, client=client, body=Payment(), prefer="wait=10")
    assert paid.status == OrderStatus.PAID, paid

    # The whole stream as one text.
    stream = follow_order.sync(order.order_id, client=client)
    fields = dict(line.split(": ", 1) for line in stream.splitlines() if ": " in line)
    assert json.loads(fields["data"])["status"] == "PAID", stream
    again = follow_order.sync_detailed(order.order_id, client=client, last_event_id=fields["id"])
    assert again.status_code == 204, again

    short = create_order.sync(client=client, body=bought(product, 10_000))
    problem = pay_order.sync(short.order_id, client=client, body=Payment(), prefer="wait=10")
    assert problem.type_ == ProblemType.URNSHOPPROBLEMORDER_FAILED, problem
    assert problem.failure.lines[0].requested == 10_000, problem
    print("openapi-python-client:", fields["id"])


main()
