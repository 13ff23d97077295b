// What a shop front does, by the client that @hey-api/openapi-ts makes. It knows server-sent events, and validates every
// answer by the document. Run by `tests/clients`.

import assert from "node:assert/strict";

import {
    cancelOrder, checkOutCart, createCart, createOrder, followOrder, getCart, getProduct, listStockMovements, listProducts,
    listRefunds, payOrder, putCartItem, refundOrder, type Order,
} from "./client";
import { client } from "./client/client.gen";

client.setConfig({ baseUrl: process.env.API_URL, auth: process.env.API_TOKEN });

async function main() {
    const { data: page } = await listProducts({ query: { limit: 3 }, throwOnError: true });
    assert.equal(page.items.length, 3);
    const { data: product } = await getProduct({ path: { id: page.items[0].id }, throwOnError: true });

    const bought = (quantity: number) => ({ user_id: 1, items: [{ product_id: Number(product.id), quantity }] });
    const { data: order } = await createOrder({ body: bought(2), throwOnError: true });

    // The data of each event, parsed. The stream ends by itself once the order is settled.
    const path = { id: order.order_id };
    const statuses: string[] = [];
    const { stream } = await followOrder({ path, onSseError: error => assert.fail(String(error)) });
    for await (const event of stream) {
        statuses.push((event as Order).status);
        if (statuses.length === 1) {
            const { response } = await payOrder({ path, body: {}, throwOnError: true });
            assert.equal(response.status, 202);
        }
    }
    assert.deepEqual([statuses[0], statuses.at(-1)], ["PENDING", "PAID"]);

    const { data: short } = await createOrder({ body: bought(10_000), throwOnError: true });
    const { error } = await payOrder({ path: { id: short.order_id }, headers: { Prefer: "wait=10" } });
    assert.equal(error?.type, "urn:shop:problem:order-failed");
    assert.equal(error.failure?.reason, "insufficient_stock");
    await aroundAnOrder(Number(product.id));
    console.log(`hey-api: ${statuses.join(", ")}`);
}

// A cart becomes a held order, which is paid and refunded; another hold is cancelled.
async function aroundAnOrder(product: number) {
    const { data: cart } = await createCart({ throwOnError: true });
    const path = { id: cart.cart_id };
    await putCartItem({ path: { ...path, product_id: product }, body: { quantity: 2 }, throwOnError: true });
    const { data: filled } = await getCart({ path, throwOnError: true });
    assert.equal(filled.items[0].quantity, 2);
    const { data: order } = await checkOutCart({ path, body: { user_id: 1, hold_seconds: 60 }, throwOnError: true });
    assert.ok(order.expires_at);
    const id = { id: order.order_id };
    await payOrder({ path: id, body: {}, headers: { Prefer: "wait=10" }, throwOnError: true });

    const admin = process.env.API_ADMIN_TOKEN;
    const body = { items: [{ product_id: product, quantity: 1, restock: true }], reason: "returned" };
    const once = () => ({
        headers: { "Idempotency-Key": crypto.randomUUID() },
        auth: admin,
        // This generator's check of requests is handed a `Headers`, and misses every required header in it.
        requestValidator: undefined,
    });
    const { data: refund } = await refundOrder({ path: id, body, ...once(), throwOnError: true });
    const { data: refunds } = await listRefunds({ path: id, throwOnError: true });
    assert.deepEqual(refunds.items, [refund]);
    const { data: movements } = await listStockMovements({ path: { id: product }, auth: admin, throwOnError: true });
    assert.equal(movements.items[0].refund_id, refund.refund_id);
    const tooMuch = { amount: Number(order.total_price), reason: "too much" };
    const { error: excess } = await refundOrder({ path: id, body: tooMuch, ...once() });
    assert.equal(excess?.type, "urn:shop:problem:refund-exceeds-payment");
    assert.equal(Number(excess.refundable), Number(order.total_price) - Number(refund.amount));

    const held = { user_id: 1, items: [{ product_id: product, quantity: 1 }], hold_seconds: 60 };
    const { data: hold } = await createOrder({ body: held, throwOnError: true });
    const { data: cancelled, response } = await cancelOrder({ path: { id: hold.order_id }, throwOnError: true });
    assert.deepEqual([response.status, cancelled.failure?.reason], [202, "cancelled"]);
}

void main();
