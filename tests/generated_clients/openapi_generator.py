"""What a shop front does, by the client that openapi-generator makes for Python. Run by `tests/clients`."""

import json
import os

from uuid import uuid4

from shop_client import (
    ApiClient, ApiException, CartQuantity, CartsApi, CatalogueApi, Checkout, Configuration, NewOrder, NewOrderItem,
    NewRefund, OrdersApi, Payment, RefundItem, StockApi,
)

settings = Configuration(host=os.environ["API_URL"], access_token=os.environ.get("API_TOKEN"))


admin = Configuration(host=os.environ["API_URL"], access_token=os.environ.get("API_ADMIN_TOKEN"))


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
    around_an_order(client, product)
    print("openapi-generator, Python:", fields["id"])


def around_an_order(client, product):
    """A cart becomes a held order, which is paid and refunded; another hold is cancelled."""
    carts, orders = CartsApi(client), OrdersApi(client)
    cart = carts.create_cart()
    carts.put_cart_item(cart.cart_id, product.id, CartQuantity(quantity=2))
    assert carts.get_cart(cart.cart_id).items[0].quantity == 2
    order = carts.check_out_cart(cart.cart_id, Checkout(user_id=1, hold_seconds=60))
    assert order.expires_at > order.created_at, order
    orders.pay_order(order.order_id, prefer="wait=10")

    with ApiClient(admin) as administrator:
        item = RefundItem(product_id=product.id, quantity=1, restock=True)
        refunds = OrdersApi(administrator)
        refund = refunds.refund_order(order.order_id, str(uuid4()), NewRefund(items=[item], reason="returned"))
        assert orders.list_refunds(order.order_id).items == [refund]
        assert StockApi(administrator).list_stock_movements(product.id).items[0].refund_id == refund.refund_id
        try:
            refunds.refund_order(order.order_id, str(uuid4()), NewRefund(amount=order.total_price, reason="too much"))
            raise AssertionError("more was refunded than was paid")
        except ApiException as error:
            assert error.data.type == "urn:shop:problem:refund-exceeds-payment", error.data
            assert error.data.refundable == order.total_price - refund.amount, error.data

    held = NewOrder(user_id=1, items=[NewOrderItem(product_id=product.id, quantity=1)], hold_seconds=60)
    cancelled = orders.cancel_order(orders.create_order(held).order_id)
    assert cancelled.failure.reason == "cancelled", cancelled


main()
