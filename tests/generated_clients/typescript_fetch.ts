// What a shop front does, by the client that openapi-generator makes for TypeScript. Run by `tests/clients`.

import assert from "node:assert/strict";

import { CatalogueApi, Configuration, OrdersApi, ProblemFromJSON, ProblemTypeEnum, ResponseError } from "./client";

const settings = new Configuration({ basePath: process.env.API_URL, accessToken: process.env.API_TOKEN });
const [catalogue, orders] = [new CatalogueApi(settings), new OrdersApi(settings)];

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
    console.log(`typescript-fetch: ${statuses.join(", ")}`);
}

void main();
