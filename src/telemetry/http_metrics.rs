//! The metrics of HTTP requests, by route template, method and status. Requests that ask to wait, and event streams, are kept
//! apart from the others: they take long because the client wants them to.

use std::{
    sync::OnceLock,
    time::{Duration, Instant},
};

use metrics::{Counter, Gauge, Histogram, SharedString, counter, gauge, histogram};

use super::metrics::{HTTP_DURATION, HTTP_IN_FLIGHT, HTTP_REQUESTS};

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
    /// By method, and by whether the request waits.
    by_method: [[OnceLock<Box<MethodMeters>>; 2]; METHODS.len()],
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
            by_method: [const { [const { OnceLock::new() }; 2] }; METHODS.len()],
        }
    }

    /// Counts a request as being handled, until what this returns is dropped. `waits` says that it takes as long as its client
    /// wants.
    pub fn begin(&self, method: &str, waits: bool) -> InFlight<'_> {
        let index = index_of(&METHODS, |known| known == method);
        let (route, method, waiting) = (&self.route, METHODS[index], if waits { "true" } else { "false" });
        let meters = self.by_method[index][usize::from(waits)].get_or_init(|| {
            let route = route.clone();
            Box::new(MethodMeters {
                in_flight: gauge!(HTTP_IN_FLIGHT, "route" => route, "method" => method, "waiting" => waiting),
                by_status: [const { OnceLock::new() }; STATUSES.len()],
            })
        });

        meters.in_flight.increment(1);
        InFlight {
            route,
            method,
            waiting,
            meters,
        }
    }
}

/// A request that is being handled.
pub struct InFlight<'a> {
    route: &'a SharedString,
    method: &'static str,
    waiting: &'static str,
    meters: &'a MethodMeters,
}

impl InFlight<'_> {
    /// Records the answer.
    pub fn answered(&self, status: u16, took: Duration) {
        let (requests, duration) = self.meters_of(status);
        requests.increment(1);
        duration.record(took);
    }

    /// Records an answer that is sent for as long as the client listens: its request is in flight, and its time goes on, until
    /// what this returns is dropped.
    pub fn streaming(&self, status: u16, started: Instant) -> OpenStream {
        let (requests, duration) = self.meters_of(status);
        requests.increment(1);
        self.meters.in_flight.increment(1);

        OpenStream {
            in_flight: self.meters.in_flight.clone(),
            duration: duration.clone(),
            started,
        }
    }

    fn meters_of(&self, status: u16) -> &(Counter, Histogram) {
        let index = index_of(&STATUSES, |known| known.parse() == Ok(status));
        let (method, status, waiting) = (self.method, STATUSES[index], self.waiting);
        self.meters.by_status[index].get_or_init(|| {
            let route = || self.route.clone();
            (
                counter!(HTTP_REQUESTS, "route" => route(), "method" => method, "status" => status),
                histogram!(
                    HTTP_DURATION, "route" => route(), "method" => method, "status" => status, "waiting" => waiting
                ),
            )
        })
    }
}

impl Drop for InFlight<'_> {
    fn drop(&mut self) {
        self.meters.in_flight.decrement(1);
    }
}

/// An answer that is still being sent.
pub struct OpenStream {
    in_flight: Gauge,
    duration: Histogram,
    started: Instant,
}

impl Drop for OpenStream {
    fn drop(&mut self) {
        self.in_flight.decrement(1);
        self.duration.record(self.started.elapsed());
    }
}

/// The index of the first that fits, or of the last, which is [`OTHER`].
fn index_of(known: &[&str], fits: impl Fn(&str) -> bool) -> usize {
    known.iter().position(|known| fits(known)).unwrap_or(known.len() - 1)
}
