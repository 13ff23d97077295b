//! The metrics of a process in Prometheus text: their names and what they mean. The handles of those that every request
//! updates are made beforehand. No label takes a value that a client, a user or an id decides.

use std::{
    sync::{LazyLock, OnceLock},
    time::Duration,
};

use metrics::{
    Counter, Gauge, Histogram, SharedString, Unit, counter, describe_counter, describe_gauge, describe_histogram,
    gauge, histogram,
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
pub const HOLDS_OPEN: &str = "shop_holds_open";
pub const HOLD_EXPIRY_LAG: &str = "shop_hold_expiry_lag_seconds";
pub const CARTS_CREATED: &str = "shop_carts_created_total";
pub const CARTS_CHECKED_OUT: &str = "shop_carts_checked_out_total";
pub const CARTS_EVICTED: &str = "shop_carts_evicted_total";
pub const BATCH_SIZE: &str = "shop_batch_size";
pub const SETTLE_DURATION: &str = "shop_settle_duration_seconds";
pub const SETTLEMENT_LAG: &str = "shop_settlement_lag_seconds";
pub const QUEUE_DEPTH: &str = "shop_queue_depth";
pub const REDELIVERIES: &str = "shop_redeliveries_total";
pub const DEAD_LETTERS: &str = "shop_dead_letters_total";
pub const SETTLE_REQUESTS_RESENT: &str = "shop_settle_requests_resent_total";
pub const OUTBOX_DEPTH: &str = "shop_outbox_depth";
pub const OUTBOX_RELAYED: &str = "shop_outbox_relayed_total";
pub const CACHE_HITS: &str = "shop_cache_hits_total";
pub const CACHE_MISSES: &str = "shop_cache_misses_total";
pub const DATABASE_CONNECTIONS: &str = "shop_database_connections";
pub const LEDGER_STOCK_DISCREPANCIES: &str = "shop_ledger_stock_discrepancies";
pub const LEDGER_HOLD_DISCREPANCIES: &str = "shop_ledger_hold_discrepancies";
pub const LEDGER_ORDER_DISCREPANCIES: &str = "shop_ledger_order_discrepancies";
pub const LEDGER_OVERDUE: &str = "shop_ledger_orders_overdue";
pub const LEDGER_CHECKED: &str = "shop_ledger_checked_timestamp_seconds";
const BUILD_INFO: &str = "shop_build_info";
const HTTP_REQUESTS: &str = "shop_http_requests_total";
const HTTP_DURATION: &str = "shop_http_request_duration_seconds";
const HTTP_IN_FLIGHT: &str = "shop_http_requests_in_flight";

/// All metrics as text, version 0.0.4 of the format.
pub fn text() -> String {
    recorder().map(PrometheusHandle::render).unwrap_or_default()
}

/// Adds what has been recorded to the buckets of the histograms. Call it every few seconds: until then every single
/// observation takes up memory.
pub fn upkeep() {
    if let Some(recorder) = recorder() {
        recorder.run_upkeep();
    }
}

/// The recorder of this process; none if another one was installed before.
pub(super) fn recorder() -> Option<&'static PrometheusHandle> {
    static RECORDER: OnceLock<Option<PrometheusHandle>> = OnceLock::new();
    RECORDER.get_or_init(install).as_ref()
}

fn install() -> Option<PrometheusHandle> {
    let buckets: [(&str, &[f64]); 5] = [
        (HTTP_DURATION, &SECONDS),
        (SETTLE_DURATION, &SECONDS),
        (SETTLEMENT_LAG, &SECONDS),
        (HOLD_EXPIRY_LAG, &SECONDS),
        (BATCH_SIZE, &SIZES),
    ];
    let mut builder = PrometheusBuilder::new();
    for (name, buckets) in buckets {
        builder = builder
            .set_buckets_for_metric(Matcher::Full(name.to_owned()), buckets)
            .ok()?;
    }
    let handle = builder.install_recorder().ok()?;

    describe();
    gauge!(BUILD_INFO, "version" => env!("CARGO_PKG_VERSION")).set(1);

    // At zero from the start, so that the first one is an increase.
    for name in [
        ORDERS_CREATED,
        PAYMENTS_ACCEPTED,
        ORDERS_PAID,
        CARTS_CREATED,
        CARTS_CHECKED_OUT,
        CARTS_EVICTED,
        REDELIVERIES,
        DEAD_LETTERS,
        SETTLE_REQUESTS_RESENT,
        OUTBOX_RELAYED,
    ] {
        counter!(name).increment(0);
    }
    for reason in ["insufficient_stock", "cancelled", "expired"] {
        counter!(ORDERS_FAILED, "reason" => reason).increment(0);
    }

    Some(handle)
}

fn describe() {
    describe_http();
    describe_orders();
    describe_carts();
    describe_queue();
    describe_cache_and_database();
    describe_ledger();
    describe_gauge!(BUILD_INFO, "Always 1, with the version of the program as a label.");
}

fn describe_http() {
    describe_counter!(
        HTTP_REQUESTS,
        "HTTP requests answered, by route template, method and status."
    );
    describe_histogram!(HTTP_DURATION, Unit::Seconds, "Time from a request to its answer.");
    describe_gauge!(HTTP_IN_FLIGHT, "HTTP requests that are being handled.");
}

fn describe_orders() {
    describe_counter!(ORDERS_CREATED, "Orders created. Repeated requests are not counted.");
    describe_counter!(
        PAYMENTS_ACCEPTED,
        "Orders whose payment was accepted. Each is counted once."
    );
    describe_counter!(ORDERS_PAID, "Orders settled as PAID.");
    describe_counter!(
        ORDERS_FAILED,
        "Orders that became FAILED, cancelled and expired ones included, by reason."
    );
    describe_gauge!(
        HOLDS_OPEN,
        "Orders with units on hold that wait for a payment or for the end of the hold, at the last count."
    );
    describe_histogram!(
        HOLD_EXPIRY_LAG,
        Unit::Seconds,
        "Time from the end of a hold to the release of its units."
    );
    describe_histogram!(BATCH_SIZE, "Requests in one transaction, by what the transaction does.");
    describe_histogram!(SETTLE_DURATION, Unit::Seconds, "Time to settle one batch of orders.");
    describe_histogram!(
        SETTLEMENT_LAG,
        Unit::Seconds,
        "Time from the acceptance of a payment to the settlement of the order."
    );
}

fn describe_carts() {
    describe_counter!(CARTS_CREATED, "Carts created.");
    describe_counter!(CARTS_CHECKED_OUT, "Carts that became an order. Each is counted once.");
    describe_counter!(
        CARTS_EVICTED,
        "Carts that were dropped because the memory of this process for carts was full."
    );
}

fn describe_queue() {
    describe_gauge!(
        QUEUE_DEPTH,
        "Messages in the queue that wait for delivery, when this process asked last."
    );
    describe_counter!(REDELIVERIES, "Messages that were delivered again.");
    describe_counter!(
        DEAD_LETTERS,
        "Messages that were dead-lettered because they can never be processed."
    );
    describe_counter!(
        SETTLE_REQUESTS_RESENT,
        "Settle requests that were published again because the order was overdue."
    );
    describe_gauge!(
        OUTBOX_DEPTH,
        "Events in the outbox that wait for being published, when this process looked last."
    );
    describe_counter!(OUTBOX_RELAYED, "Events of the outbox that were published.");
}

fn describe_cache_and_database() {
    describe_counter!(
        CACHE_HITS,
        "Answers found in a cache. The tier is local (this process) or shared (Redis)."
    );
    describe_counter!(
        CACHE_MISSES,
        "Answers that were in no cache and were loaded from the database."
    );
    describe_gauge!(DATABASE_CONNECTIONS, "Connections to the database, by state.");
}

fn describe_ledger() {
    describe_gauge!(
        LEDGER_STOCK_DISCREPANCIES,
        "Products whose stock does not equal their stock movements less the units sold, at the last check."
    );
    describe_gauge!(
        LEDGER_HOLD_DISCREPANCIES,
        "Products whose units on hold are not those of the open holds, at the last check."
    );
    describe_gauge!(
        LEDGER_ORDER_DISCREPANCIES,
        "Orders whose own data contradicts itself, at the last check."
    );
    describe_gauge!(
        LEDGER_OVERDUE,
        "Orders that are not settled five minutes after their payment was accepted, at the last check."
    );
    describe_gauge!(
        LEDGER_CHECKED,
        Unit::Seconds,
        "Time of the last ledger check, in seconds since the Unix epoch."
    );
}

/// The counters of the cache.
pub struct CacheCounters {
    pub local_pages: Counter,
    pub shared_pages: Counter,
    pub missed_pages: Counter,
    pub local_orders: Counter,
    pub shared_orders: Counter,
    pub missed_orders: Counter,
}

pub static CACHE: LazyLock<CacheCounters> = LazyLock::new(|| CacheCounters {
    local_pages: counter!(CACHE_HITS, "cache" => "products", "tier" => "local"),
    shared_pages: counter!(CACHE_HITS, "cache" => "products", "tier" => "shared"),
    missed_pages: counter!(CACHE_MISSES, "cache" => "products"),
    local_orders: counter!(CACHE_HITS, "cache" => "orders", "tier" => "local"),
    shared_orders: counter!(CACHE_HITS, "cache" => "orders", "tier" => "shared"),
    missed_orders: counter!(CACHE_MISSES, "cache" => "orders"),
});

const METHODS: [&str; 8] = ["GET", "POST", "PUT", "PATCH", "HEAD", "OPTIONS", "DELETE", OTHER];
const STATUSES: [&str; 25] = [
    "200", "201", "202", "204", "304", "308", "400", "401", "402", "403", "404", "405", "408", "409", "411", "412",
    "413", "415", "417", "422", "429", "500", "501", "503", OTHER,
];
/// The label of every other method, and of every other status.
const OTHER: &str = "other";

/// The metrics of the requests to one route. Each is made when its method, or its method and status, first occurs.
pub struct RouteMeters {
    route: SharedString,
    by_method: [OnceLock<Box<MethodMeters>>; METHODS.len()],
}

struct MethodMeters {
    in_flight: Gauge,
    by_status: [OnceLock<(Counter, Histogram)>; STATUSES.len()],
}

impl RouteMeters {
    /// `template` becomes a label: it must be one of a fixed number of texts.
    pub fn new(template: &str) -> Self {
        Self {
            route: SharedString::from_shared(template.into()),
            by_method: [const { OnceLock::new() }; METHODS.len()],
        }
    }

    /// Counts a request as being handled, until what this returns is dropped.
    pub fn begin(&self, method: &str) -> InFlight<'_> {
        let index = index_of(&METHODS, |known| known == method);
        let (route, method) = (&self.route, METHODS[index]);
        let meters = self.by_method[index].get_or_init(|| {
            Box::new(MethodMeters {
                in_flight: gauge!(HTTP_IN_FLIGHT, "route" => route.clone(), "method" => method),
                by_status: [const { OnceLock::new() }; STATUSES.len()],
            })
        });

        meters.in_flight.increment(1);
        InFlight { route, method, meters }
    }
}

/// A request that is being handled.
pub struct InFlight<'a> {
    route: &'a SharedString,
    method: &'static str,
    meters: &'a MethodMeters,
}

impl InFlight<'_> {
    /// Records the answer.
    pub fn answered(&self, status: u16, took: Duration) {
        let index = index_of(&STATUSES, |known| known.parse() == Ok(status));
        let (requests, duration) = self.meters.by_status[index].get_or_init(|| {
            let (route, method, status) = (self.route, self.method, STATUSES[index]);
            (
                counter!(HTTP_REQUESTS, "route" => route.clone(), "method" => method, "status" => status),
                histogram!(HTTP_DURATION, "route" => route.clone(), "method" => method, "status" => status),
            )
        });

        requests.increment(1);
        duration.record(took);
    }
}

impl Drop for InFlight<'_> {
    fn drop(&mut self) {
        self.meters.in_flight.decrement(1);
    }
}

/// The index of the first that fits, or of the last, which is [`OTHER`].
fn index_of(known: &[&str], fits: impl Fn(&str) -> bool) -> usize {
    known.iter().position(|known| fits(known)).unwrap_or(known.len() - 1)
}
