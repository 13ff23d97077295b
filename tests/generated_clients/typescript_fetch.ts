// What a shop front does, by the client that openapi-generator makes for TypeScript. Run by `tests/clients`.

import assert from "node:assert/strict";

import {
    CartsApi, CatalogueApi, Configuration, OrdersApi, ProblemFromJSON, ProblemTypeEnum, ResponseError, StockApi,
} from "./client";

const settings = new Configuration({ basePath: process.env.API_URL, accessToken: process.env.API_TOKEN });
const [catalogue, carts, orders] = [new CatalogueApi(settings), new CartsApi(settings), new OrdersApi(settings)];
const admin = new Configuration({ basePath: process.env.API_URL, accessToken: process.env.API_ADMIN_TOKEN });

async function problemOf(failing: Promise<unknown>) {
    const error = await failing.then(() => undefined, error => error);
    assert(error instanceof ResponseError, `no problem but ${error}`);
    return ProblemFromJSON(await error.response.json());
}

async function main() {
    const page = await catalogue.listProducts({ limit: 3 });
    assert.equal(page.items.length, 3);
    const product = await catalogue.getProduct({ id: page.items[0].id });

    const bought = (quantity: number) => ({ userId: 1, items: [{ productId: product.id, quantity }] });
    const order = await orders.createOrder({ newOrder: bought(2) });
    const followed = orders.followOrder({ id: order.orderId });
    const paid = await orders.payOrder({ id: order.orderId, prefer: "wait=10", payment: { paymentMethod: "pm_card_visa" } });
    assert.equal(paid.status, "PAID");

    // The whole stream as one text, which ends once the order is settled.
    const events = (await followed as string).split("\n\n").filter(event => event.includes("data: "));
    const statuses = events.map(event => JSON.parse(event.split("data: ")[1]).status);
    assert.equal(statuses.at(-1), "PAID");
    const last = events.at(-1)!.match(/^id: (.*)$/m)![1];
    assert.equal(await orders.followOrder({ id: order.orderId, lastEventID: last }), null);

    const short = await orders.createOrder({ newOrder: bought(10_000) });
    const problem = await problemOf(orders.payOrder({ id: short.orderId, prefer: "wait=10" }));
    assert.equal(problem.type, ProblemTypeEnum.UrnShopProblemOrderFailed);
    assert.equal(problem.failure?.lines[0].requested, 10_000);
    const invalid = await problemOf(orders.createOrder({ newOrder: bought(0) }));
    assert.equal(invalid.errors?.[0].pointer, "/items/0/quantity");
    await aroundAnOrder(product.id);
    console.log(`typescript-fetch: ${statuses.join(", ")}`);
}

// A cart becomes a held order, which is paid and refunded; another hold is cancelled.
async function aroundAnOrder(productId: number) {
    const { cartId: id } = await carts.createCart();
    await carts.putCartItem({ id, productId, cartQuantity: { quantity: 2 } });
    assert.equal((await carts.getCart({ id })).items[0].quantity, 2);
    const order = await carts.checkOutCart({ id, checkout: { userId: 1, holdSeconds: 60 } });
    assert(order.expiresAt instanceof Date);
    await orders.payOrder({ id: order.orderId, prefer: "wait=10" });

    const refunds = new OrdersApi(admin);
    const newRefund = { items: [{ productId, quantity: 1, restock: true }], reason: "returned" };
    const refund = await refunds.refundOrder({ id: order.orderId, idempotencyKey: crypto.randomUUID(), newRefund });
    assert.deepEqual((await orders.listRefunds({ id: order.orderId })).items, [refund]);
    const movements = await new StockApi(admin).listStockMovements({ id: productId });
    assert.equal(movements.items[0].refundId, refund.refundId);
    const excess = await problemOf(refunds.refundOrder({
        id: order.orderId, idempotencyKey: crypto.randomUUID(), newRefund: { amount: order.totalPrice, reason: "too much" },
    }));
    assert.equal(excess.type, ProblemTypeEnum.UrnShopProblemRefundExceedsPayment);
    assert.equal(excess.refundable, order.totalPrice - refund.amount);

    const hold = await orders.createOrder({
        newOrder: { userId: 1, items: [{ productId, quantity: 1 }], holdSeconds: 60 },
    });
    const cancelled = await orders.cancelOrder({ id: hold.orderId });
    assert.equal(cancelled.failure?.reason, "cancelled");
}

void main();
