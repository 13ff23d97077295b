//! Reading: a page of products, and a settled order.

use std::time::Duration;

use super::{
    CONNECTIONS, PRODUCTS,
    setup::{self, accepted_orders, sql},
};
use crate::{
    client::{Connection, get, load},
    floors::Bare,
    report::{Round, Table},
    rounds, seconds,
    shop::Process,
};

pub async fn read(table: &mut Table) {
    let backend = setup::backend();
    let serve = Process::serve(&backend);
    let mut connection = Connection::open(&serve.address).await;
    accepted_orders(&backend, 10, PRODUCTS);
    sql(&backend, "UPDATE orders SET status = 'PAID', settled_at = now()");
    let order = "/orders/00000000-0000-7000-8000-000000000001";

    for (scenario, path) in [
        ("`GET /products`, 50 products", "/products"),
        ("`GET /orders/{id}`, settled", order),
    ] {
        let (status, body) = connection.send(get(path)).await;
        assert_eq!(status, 200);
        let bare = Bare::start(&body);
        let time = Duration::from_secs(seconds());

        let mut measured = Vec::new();
        for _ in 0..rounds() {
            let floor = load(&bare.address, CONNECTIONS, time, 200, move |_| get(path))
                .await
                .rate;
            let round = load(&serve.address, CONNECTIONS, time, 200, move |_| get(path)).await;
            measured.push(Round { floor, ..round });
        }

        table.rate(scenario, "bare handler, same bytes", &measured);
    }
}
