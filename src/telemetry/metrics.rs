//! The metrics of a process in Prometheus text: their names and what they mean. The handles of those that every request
//! updates are made beforehand. No label takes a value that a client, a user or an id decides.

use std::sync::{LazyLock, OnceLock};

use metrics::{Counter, Unit, counter, describe_counter, describe_gauge, describe_histogram, gauge, histogram};
use metrics_exporter_prometheus::{Matcher, PrometheusBuilder, PrometheusHandle};

use super::process;

/// Up to the five minutes that an event stream lasts. What takes longer than that is late in any case.
const SECONDS: [f64; 18] = [
    0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0,
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
pub const DEAD_LETTERS_WAITING: &str = "shop_dead_letters_waiting";
pub const REDELIVERIES: &str = "shop_redeliveries_total";
pub const DEAD_LETTERS: &str = "shop_dead_letters_total";
pub const SETTLE_REQUESTS_RESENT: &str = "shop_settle_requests_resent_total";
pub const SETTLE_REQUESTS_DROPPED: &str = "shop_settle_requests_dropped_total";
pub const OUTBOX_DEPTH: &str = "shop_outbox_depth";
pub const OUTBOX_OLDEST_AGE: &str = "shop_outbox_oldest_age_seconds";
pub const OUTBOX_RELAYED: &str = "shop_outbox_relayed_total";
pub const CACHE_HITS: &str = "shop_cache_hits_total";
pub const CACHE_MISSES: &str = "shop_cache_misses_total";
pub const DATABASE_CONNECTIONS: &str = "shop_database_connections";
pub const DEPENDENCY_UP: &str = "shop_dependency_up";
pub const LEDGER_STOCK_DISCREPANCIES: &str = "shop_ledger_stock_discrepancies";
pub const LEDGER_HOLD_DISCREPANCIES: &str = "shop_ledger_hold_discrepancies";
pub const LEDGER_ORDER_DISCREPANCIES: &str = "shop_ledger_order_discrepancies";
pub const LEDGER_OVERDUE: &str = "shop_ledger_orders_overdue";
pub const LEDGER_CHECKED: &str = "shop_ledger_checked_timestamp_seconds";
pub const TASK_LAST_SUCCESS: &str = "shop_task_last_success_timestamp_seconds";
const BUILD_INFO: &str = "shop_build_info";
pub(super) const HTTP_REQUESTS: &str = "shop_http_requests_total";
pub(super) const HTTP_DURATION: &str = "shop_http_request_duration_seconds";
pub(super) const HTTP_IN_FLIGHT: &str = "shop_http_requests_in_flight";

/// All metrics as text, version 0.0.4 of the format.
pub fn text() -> String {
    let own = recorder().map(PrometheusHandle::render);
    own.unwrap_or_default() + &process::text()
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
        SETTLE_REQUESTS_DROPPED,
        OUTBOX_RELAYED,
    ] {
        counter!(name).increment(0);
    }
    for reason in ["insufficient_stock", "cancelled", "expired"] {
        counter!(ORDERS_FAILED, "reason" => reason).increment(0);
    }
    for name in [SETTLE_DURATION, SETTLEMENT_LAG, HOLD_EXPIRY_LAG] {
        let _ = histogram!(name);
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
    describe_gauge!(
        DEPENDENCY_UP,
        "Whether the database, the queue or the cache answers as it should (1) or not (0), at the last probe."
    );
    describe_gauge!(
        TASK_LAST_SUCCESS,
        Unit::Seconds,
        "Time when a task in the background last succeeded, or was started, in seconds since the Unix epoch."
    );
    describe_gauge!(BUILD_INFO, "Always 1, with the version of the program as a label.");
}

fn describe_http() {
    describe_counter!(
        HTTP_REQUESTS,
        "HTTP requests answered, by route template, method and status."
    );
    describe_histogram!(
        HTTP_DURATION,
        Unit::Seconds,
        "Time from a request to its answer, or to the end of an event stream."
    );
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
    describe_gauge!(
        DEAD_LETTERS_WAITING,
        "Messages in the dead-letter queue, when this process asked last."
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
    describe_counter!(
        SETTLE_REQUESTS_DROPPED,
        "Settle requests that were left to the sweeper, because the queue did not take them or too many were waiting."
    );
    describe_gauge!(
        OUTBOX_OLDEST_AGE,
        Unit::Seconds,
        "Age of the oldest event in the outbox when this process looked last, 0 if there was none."
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
