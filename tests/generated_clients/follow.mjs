// Follows an order by the code of docs/api.md, which stands before this, and loses the connection once. Run by
// `tests/clients`.

import assert from "node:assert/strict";

const { API_URL: api, API_TOKEN: token } = process.env;
const headers = { Authorization: `Bearer ${token}`, "Content-Type": "application/json" };
const post = (path, body) => fetch(api + path, { method: "POST", headers, body: JSON.stringify(body) });

const sent = [];
const connect = globalThis.fetch;
globalThis.fetch = async (url, options) => {
  const answer = await connect(url, options);
  if (!url.endsWith("/events")) return answer;
  sent.push(options.headers["Last-Event-ID"]);
  if (sent.length > 1) return answer;

  // The first stream breaks after its first event, in the middle of the next line.
  const lost = new TransformStream({
    async transform(chunk, stream) {
      stream.enqueue(chunk);
      if (new TextDecoder().decode(chunk).includes("data: ")) {
        stream.enqueue(new TextEncoder().encode("id: of no eve"));
        await new Promise(resolve => setTimeout(resolve, 50));
        stream.error(new Error("the connection was lost"));
      }
    },
  });
  return new Response(answer.body.pipeThrough(lost), answer);
};

const order = await (await post("/orders", { user_id: 1, items: [{ product_id: 1, quantity: 1 }] })).json();
const path = `/orders/${order.order_id}`;
const shown = [];
await followOrder(`${api}${path}/events`, token, async order => {
  shown.push(order.status);
  if (shown.length === 1) await post(`${path}/pay`, {});
});
assert.equal(shown.at(-1), "PAID");
assert.deepEqual([sent.length, sent[0]], [2, undefined]);
assert.match(sent[1], /^pending@/);

await assert.rejects(followOrder(`${api}/orders/${crypto.randomUUID()}/events`, token, () => {}), /there is no order/);
console.log(`docs/api.md: ${shown.join(", ")}`);
