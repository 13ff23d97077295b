// What a shop front does, by the client that @hey-api/openapi-ts makes. It knows server-sent events, and validates every
// answer by the document. Run by `tests/clients`.

import assert from "node:assert/strict";

import { createOrder, followOrder, getProduct, listProducts, payOrder, type Order } from "./client";
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
    console.log(`hey-api: ${statuses.join(", ")}`);
}

void main();
