//! What the scenarios start from: a database with a catalogue and orders.

use std::{
    path::Path,
    sync::atomic::{AtomicUsize, Ordering},
};

use super::PRODUCTS;
use crate::{
    servers,
    shop::{Backend, run_to_end_by, this_build},
};

/// A new database without a catalogue, on the shared servers, with the schema of `binary`.
pub fn empty_backend(binary: &Path) -> Backend {
    static NEXT: AtomicUsize = AtomicUsize::new(1);
    let number = NEXT.fetch_add(1, Ordering::Relaxed);
    let servers = servers::shared();
    let backend = Backend {
        database_url: servers.postgres.create_database(),
        queue_url: servers.rabbitmq.url(),
        cache_url: servers.redis.url(),
        prefix: format!("bench{number}"),
    };

    run_to_end_by(binary, &backend, &["migrate"]);
    backend
}

/// A new database with a catalogue, on the shared servers.
pub fn backend() -> Backend {
    backend_of(PRODUCTS)
}

/// A new database with `products` products, on the shared servers.
pub fn backend_of(products: u64) -> Backend {
    let backend = empty_backend(&this_build());
    sql(
        &backend,
        &format!(
            "INSERT INTO products (name, price, stock) \
             SELECT 'product ' || n, 1500, 1000000000 FROM generate_series(1, {products}) n; \
             INSERT INTO stock_movements (product_id, delta, reason) \
             SELECT id, stock, 'initial stock' FROM products; ANALYZE"
        ),
    );
    backend
}

pub fn sql(backend: &Backend, text: &str) -> String {
    servers::shared().postgres.psql(&backend.database_url, text)
}

/// The body of an order of two lines.
pub fn two_lines(number: u64) -> String {
    let product = number * 7 % (PRODUCTS - 1) + 1;
    format!(
        "{{\"user_id\":7,\"items\":[{{\"product_id\":{product},\"quantity\":1}},{{\"product_id\":{},\"quantity\":1}}]}}",
        product + 1
    )
}

/// The id of the order `number` of those that are made here.
pub fn order_id(number: u64) -> String {
    format!("00000000-0000-7000-8000-{number:012x}")
}

/// Makes the orders 1 to `count`, of one line each, which nobody has paid.
pub fn unpaid_orders(backend: &Backend, count: u64) {
    accepted_orders(backend, count, PRODUCTS);
    sql(backend, "UPDATE orders SET accepted_at = NULL, notify_after = NULL");
    sql(backend, "VACUUM ANALYZE orders");
    sql(backend, "CHECKPOINT");
}

/// Makes the orders 1 to `count`, whose payment is accepted, of one line each over the first `products` products. The
/// sweeper leaves them alone.
pub fn accepted_orders(backend: &Backend, count: u64, products: u64) {
    sql(
        backend,
        &format!(
            "TRUNCATE orders CASCADE; \
             INSERT INTO orders (id, user_id, status, total_price, currency, accepted_at, notify_after) \
             SELECT ('00000000-0000-7000-8000-' || lpad(to_hex(n), 12, '0'))::uuid, 7, 'PENDING', 1500, 'USD', now(), now() + interval '100 years' \
             FROM generate_series(1, {count}) n; \
             INSERT INTO order_items (order_id, product_id, quantity, unit_price) \
             SELECT id, 1 + row_number() OVER (ORDER BY id) * 7919 % {products}, 1, 1500 FROM orders ORDER BY id"
        ),
    );

    // Every round starts with the same statistics, and with nothing left to write.
    sql(backend, "VACUUM ANALYZE orders");
    sql(backend, "VACUUM ANALYZE order_items");
    sql(backend, "VACUUM ANALYZE products");
    sql(backend, "CHECKPOINT");
}
