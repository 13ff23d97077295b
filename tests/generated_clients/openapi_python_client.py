"""What a shop front does, by the client that openapi-python-client makes. Run by `tests/clients`."""

import json
import os
from uuid import uuid4

from shop_client import AuthenticatedClient
from shop_client.api.carts import check_out_cart, create_cart, get_cart, put_cart_item
from shop_client.api.catalogue import get_product, list_products
from shop_client.api.orders import cancel_order, create_order, follow_order, list_refunds, pay_order, refund_order
from shop_client.api.stock import list_stock_movements
from shop_client.models import (
    CartQuantity, Checkout, NewOrder, NewOrderItem, NewRefund, OrderFailureReason, OrderStatus, Payment, ProblemType,
    RefundItem,
)

admin = AuthenticatedClient(base_url=os.environ["API_URL"], token=os.environ.get("API_ADMIN_TOKEN", "none"))
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
    around_an_order(product)
    print("openapi-python-client:", fields["id"])


def around_an_order(product):
    """A cart becomes a held order, which is paid and refunded; another hold is cancelled."""
    cart = create_cart.sync(client=client)
    put_cart_item.sync(cart.cart_id, product.id, client=client, body=CartQuantity(quantity=2))
    assert get_cart.sync(cart.cart_id, client=client).items[0].quantity == 2
    order = check_out_cart.sync(cart.cart_id, client=client, body=Checkout(user_id=1, hold_seconds=60))
    assert order.expires_at > order.created_at, order
    pay_order.sync(order.order_id, client=client, body=Payment(), prefer="wait=10")

    returned = NewRefund(items=[RefundItem(product_id=product.id, quantity=1, restock=True)], reason="returned")
    refund = refund_order.sync(order.order_id, client=admin, body=returned, idempotency_key=str(uuid4()))
    assert list_refunds.sync(order.order_id, client=client).items == [refund]
    assert list_stock_movements.sync(product.id, client=admin).items[0].refund_id == refund.refund_id
    too_much = NewRefund(amount=order.total_price, reason="too much")
    problem = refund_order.sync(order.order_id, client=admin, body=too_much, idempotency_key=str(uuid4()))
    assert problem.type_ == ProblemType.URNSHOPPROBLEMREFUND_EXCEEDS_PAYMENT, problem
    assert problem.refundable == order.total_price - refund.amount, problem

    held = NewOrder(user_id=1, items=[NewOrderItem(product_id=product.id, quantity=1)], hold_seconds=60)
    hold = create_order.sync(client=client, body=held)
    cancelled = cancel_order.sync(hold.order_id, client=client)
    assert cancelled.failure.reason == OrderFailureReason.CANCELLED, cancelled


main()
