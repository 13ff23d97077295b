//! The figures of a process in Prometheus text: their names, what they mean, and the busiest of them ready-made. No label
//! grows with users, ids or whatever a client sends.

use std::{
    sync::{LazyLock, OnceLock},
    time::Duration,
};

use metrics::{
    Counter, Gauge, Histogram, Unit, counter, describe_counter, describe_gauge, describe_histogram, gauge, histogram,
};
use metrics_exporter_prometheus::{Matcher, PrometheusBuilder, PrometheusHandle};

const SECONDS: [f64; 14] = [
    0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0,
];
const SIZES: [f64; 11] = [1.0, 2.0, 5.0, 10.0, 20.0, 50.0, 100.0, 200.0, 500.0, 1_000.0, 5_000.0];

pub const ORDERS_CREATED: &str = "shop_orders_created_total";
pub const PAYMENTS_ACCEPTED: &str = "shop_payments_accepted_total";
pub const ORDERS_PAID: &str = "shop_orders_paid_total";
pub const ORDERS_FAILED: &str = "shop_orders_failed_total";
pub const BATCH_SIZE: &str = "shop_batch_size";
pub const SETTLE_DURATION: &str = "shop_settle_duration_seconds";
pub const SETTLEMENT_LAG: &str = "shop_settlement_lag_seconds";
pub const QUEUE_DEPTH: &str = "shop_queue_depth";
pub const REDELIVERIES: &str = "shop_redeliveries_total";
pub const DEAD_LETTERS: &str = "shop_dead_letters_total";
pub const SETTLE_REQUESTS_RESENT: &str = "shop_settle_requests_resent_total";
pub const CACHE_HITS: &str = "shop_cache_hits_total";
pub const CACHE_MISSES: &str = "shop_cache_misses_total";
pub const DATABASE_CONNECTIONS: &str = "shop_database_connections";
pub const LEDGER_STOCK_DISCREPANCIES: &str = "shop_ledger_stock_discrepancies";
pub const LEDGER_ORDER_DISCREPANCIES: &str = "shop_ledger_order_discrepancies";
pub const LEDGER_OVERDUE: &str = "shop_ledger_orders_overdue";
pub const LEDGER_CHECKED: &str = "shop_ledger_checked_timestamp_seconds";
const BUILD_INFO: &str = "shop_build_info";
const HTTP_REQUESTS: &str = "shop_http_requests_total";
const HTTP_DURATION: &str = "shop_http_request_duration_seconds";
const HTTP_IN_FLIGHT: &str = "shop_http_requests_in_flight";

/// All of it as text, version 0.0.4 of the format.
#[must_use]
pub fn text() -> String {
    recorder().map(PrometheusHandle::render).unwrap_or_default()
}

/// Folds what has been recorded into the buckets; without it every observation takes up room until somebody asks.
pub fn upkeep() {
    if let Some(recorder) = recorder() {
        recorder.run_upkeep();
    }
}

/// The recorder of this process; none where another one was there first.
pub(super) fn recorder() -> Option<&'static PrometheusHandle> {
    static RECORDER: OnceLock<Option<PrometheusHandle>> = OnceLock::new();
    let start = || {
        let seconds = |name: &str| Matcher::Full(name.to_owned());
        let builder = PrometheusBuilder::new()
            .set_buckets_for_metric(seconds(HTTP_DURATION), &SECONDS)
            .and_then(|builder| builder.set_buckets_for_metric(seconds(SETTLE_DURATION), &SECONDS))
            .and_then(|builder| builder.set_buckets_for_metric(seconds(SETTLEMENT_LAG), &SECONDS))
            .and_then(|builder| builder.set_buckets_for_metric(Matcher::Full(BATCH_SIZE.to_owned()), &SIZES));
        let handle = builder.ok()?.install_recorder().ok()?;
        describe();
        gauge!(BUILD_INFO, "version" => env!("CARGO_PKG_VERSION")).set(1);
        // There from the start, so that the first one is an increase.
        for name in [
            ORDERS_CREATED,
            PAYMENTS_ACCEPTED,
            ORDERS_PAID,
            REDELIVERIES,
            DEAD_LETTERS,
            SETTLE_REQUESTS_RESENT,
        ] {
            counter!(name).increment(0);
        }
        counter!(ORDERS_FAILED, "reason" => "insufficient_stock").increment(0);
        Some(handle)
    };
    RECORDER.get_or_init(start).as_ref()
}

fn describe() {
    describe_counter!(
        HTTP_REQUESTS,
        "HTTP requests answered, by route template, method and status."
    );
    describe_histogram!(HTTP_DURATION, Unit::Seconds, "How long HTTP requests took.");
    describe_gauge!(HTTP_IN_FLIGHT, "HTTP requests being served.");
    describe_counter!(ORDERS_CREATED, "Orders made, replays not counted.");
    describe_counter!(PAYMENTS_ACCEPTED, "Orders accepted for payment, each once.");
    describe_counter!(ORDERS_PAID, "Orders settled as PAID.");
    describe_counter!(ORDERS_FAILED, "Orders settled as FAILED, by reason.");
    describe_histogram!(BATCH_SIZE, "Requests in one transaction, by what it does.");
    describe_histogram!(SETTLE_DURATION, Unit::Seconds, "How long it took to settle a batch.");
    describe_histogram!(
        SETTLEMENT_LAG,
        Unit::Seconds,
        "From an order's acceptance to its settlement."
    );
    describe_gauge!(
        QUEUE_DEPTH,
        "Messages waiting to be delivered, as this process last saw it."
    );
    describe_counter!(REDELIVERIES, "Messages that came again.");
    describe_counter!(DEAD_LETTERS, "Messages laid aside because they can never be processed.");
    describe_counter!(
        SETTLE_REQUESTS_RESENT,
        "Orders rung for again because nobody had settled them."
    );
    describe_counter!(
        CACHE_HITS,
        "Answers found in a cache: near (this process) or far (Redis)."
    );
    describe_counter!(CACHE_MISSES, "Answers that had to be loaded from the database.");
    describe_gauge!(DATABASE_CONNECTIONS, "Connections to the database, by state.");
    describe_gauge!(
        LEDGER_STOCK_DISCREPANCIES,
        "Products whose stock the books do not explain, at the last check."
    );
    describe_gauge!(
        LEDGER_ORDER_DISCREPANCIES,
        "Orders that contradict themselves, at the last check."
    );
    describe_gauge!(
        LEDGER_OVERDUE,
        "Orders accepted more than five minutes ago and not settled, at the last check."
    );
    describe_gauge!(
        LEDGER_CHECKED,
        Unit::Seconds,
        "When the books were last checked, since the Unix epoch."
    );
    describe_gauge!(BUILD_INFO, "Always 1, with the version of the program.");
}

/// The counters of one process that are busy enough to be kept at hand.
pub struct Busy {
    pub near_pages: Counter,
    pub far_pages: Counter,
    pub missed_pages: Counter,
    pub near_orders: Counter,
    pub far_orders: Counter,
    pub missed_orders: Counter,
}

pub static BUSY: LazyLock<Busy> = LazyLock::new(|| Busy {
    near_pages: counter!(CACHE_HITS, "cache" => "products", "tier" => "near"),
    far_pages: counter!(CACHE_HITS, "cache" => "products", "tier" => "far"),
    missed_pages: counter!(CACHE_MISSES, "cache" => "products"),
    near_orders: counter!(CACHE_HITS, "cache" => "orders", "tier" => "near"),
    far_orders: counter!(CACHE_HITS, "cache" => "orders", "tier" => "far"),
    missed_orders: counter!(CACHE_MISSES, "cache" => "orders"),
});

const ROUTES: [&str; 15] = [
    "/products",
    "/products/{id}",
    "/products/{id}/stock",
    "/orders",
    "/orders/{id}",
    "/orders/{id}/pay",
    "/orders/{id}/events",
    "/docs",
    "/openapi.json",
    "/openapi.yaml",
    "/healthz",
    "/readyz",
    "/metrics",
    "/",
    OTHER,
];
/// Whatever is not served.
const OTHER: &str = "other";
const METHODS: [&str; 7] = ["GET", "POST", "PATCH", "HEAD", "OPTIONS", "DELETE", OTHER];
const STATUSES: [&str; 21] = [
    "200", "201", "202", "304", "400", "401", "402", "403", "404", "405", "408", "409", "411", "413", "415", "422",
    "429", "500", "501", "503", OTHER,
];

/// The template of a path: one of a fixed number of texts.
#[must_use]
pub fn route(path: &str) -> &'static str {
    ROUTES[route_number(path)]
}

fn route_number(path: &str) -> usize {
    let number = |template: &str| {
        ROUTES
            .iter()
            .position(|route| *route == template)
            .unwrap_or(ROUTES.len() - 1)
    };
    let below = |rest: &str, templates: [&'static str; 3]| match rest.split_once('/') {
        None if !rest.is_empty() => number(templates[0]),
        Some((_, "pay" | "stock")) => number(templates[1]),
        Some((_, "events")) => number(templates[2]),
        _ => number(OTHER),
    };
    if let Some(rest) = path.strip_prefix("/products/") {
        below(rest, ["/products/{id}", "/products/{id}/stock", OTHER])
    } else if let Some(rest) = path.strip_prefix("/orders/") {
        below(rest, ["/orders/{id}", "/orders/{id}/pay", "/orders/{id}/events"])
    } else {
        number(path)
    }
}

/// What is counted of requests to one route by one method.
struct Meter {
    in_flight: Gauge,
    answers: [OnceLock<(Counter, Histogram)>; STATUSES.len()],
}

/// A request that is being served; counted as such until it is dropped.
pub struct InFlight {
    place: (usize, usize),
    meter: &'static Meter,
}

impl InFlight {
    #[must_use]
    pub fn begin(method: &str, path: &str) -> Self {
        static METERS: [[OnceLock<Box<Meter>>; METHODS.len()]; ROUTES.len()] =
            [const { [const { OnceLock::new() }; METHODS.len()] }; ROUTES.len()];
        let method = METHODS
            .iter()
            .position(|known| *known == method)
            .unwrap_or(METHODS.len() - 1);
        let place = (route_number(path), method);
        let meter = METERS[place.0][place.1].get_or_init(|| {
            Box::new(Meter {
                in_flight: gauge!(HTTP_IN_FLIGHT, "route" => ROUTES[place.0], "method" => METHODS[place.1]),
                answers: [const { OnceLock::new() }; STATUSES.len()],
            })
        });
        meter.in_flight.increment(1);
        Self { place, meter }
    }

    pub fn answered(&self, status: u16, took: Duration) {
        let known = |text: &&str| text.parse() == Ok(status);
        let number = STATUSES.iter().position(known).unwrap_or(STATUSES.len() - 1);
        let (requests, duration) = self.meter.answers[number].get_or_init(|| {
            let (route, method, status) = (ROUTES[self.place.0], METHODS[self.place.1], STATUSES[number]);
            (
                counter!(HTTP_REQUESTS, "route" => route, "method" => method, "status" => status),
                histogram!(HTTP_DURATION, "route" => route, "method" => method, "status" => status),
            )
        });
        requests.increment(1);
        duration.record(took);
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        self.meter.in_flight.decrement(1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_becomes_one_of_few_templates() {
        for (path, template) in [
            ("/products", "/products"),
            ("/products/7", "/products/{id}"),
            ("/products/7/stock", "/products/{id}/stock"),
            ("/orders/x", "/orders/{id}"),
            ("/orders/x/pay", "/orders/{id}/pay"),
            ("/orders/x/events", "/orders/{id}/events"),
            ("/orders/", OTHER),
            ("/orders/x/y/z", OTHER),
            ("/wp-login.php", OTHER),
            ("/readyz", "/readyz"),
        ] {
            assert_eq!(route(path), template, "{path}");
        }
    }
}
