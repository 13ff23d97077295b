//! Waiting for an order to be settled: `Prefer: wait` (RFC 7240) and server-sent events (WHATWG HTML, section 9.2). What
//! is answered is always read from the order's row; events only say when to look.

use std::time::Duration;

use futures_util::{StreamExt as _, stream::BoxStream};
use poem::{http::HeaderMap, web::sse::Event};
use poem_openapi::payload::EventStream;
use tokio::time::{Instant, timeout_at};

use super::bodies::OrderBody;
use crate::{
    api::READ_TIMEOUT,
    app::App,
    domain::{
        Caller, Error,
        orders::{self, Order},
    },
    entities::order::OrderStatus,
    http::negotiation::{elements, parameter, parts},
    tasks::order_watch::Subscription,
};

/// The longest that a request may wait.
const LONGEST_WAIT: Duration = Duration::from_secs(30);
/// A stream ends after this; a browser then begins another one by itself.
const LONGEST_STREAM: Duration = Duration::from_mins(5);
/// A comment as often as this keeps proxies from closing a quiet stream.
const KEEP_ALIVE: Duration = Duration::from_secs(15);

/// How long a request would rather wait: the first `wait=N` of its `Prefer` headers, [`LONGEST_WAIT`] at most. What is not
/// understood is no preference.
#[must_use]
pub fn preferred_wait(headers: &HeaderMap) -> Option<Duration> {
    let mut preferences = elements(headers, "prefer").filter_map(|preference| parts(preference, ';').next());
    let seconds = preferences.find_map(|preference| parameter(preference, "wait"))?;
    let is_number = !seconds.is_empty() && seconds.bytes().all(|byte| byte.is_ascii_digit());
    // Digits that do not fit are very many seconds.
    let seconds = is_number.then(|| seconds.parse().unwrap_or(u64::MAX))?;
    let wait = Duration::from_secs(seconds).min(LONGEST_WAIT);
    (!wait.is_zero()).then_some(wait)
}

/// For the header `Preference-Applied`.
#[must_use]
pub fn applied(wait: Duration) -> Option<String> {
    Some(format!("wait={}", wait.as_secs()))
}

/// The order once it is settled, or as it is after `wait`.
///
/// # Errors
/// As [`orders::find`].
pub async fn until_settled(
    app: &App,
    caller: Caller,
    mut watcher: Subscription,
    wait: Duration,
) -> Result<Order, Error> {
    let deadline = Instant::now() + wait;
    loop {
        let order = app
            .db
            .timeout(READ_TIMEOUT, orders::find(app.db.read(), caller, watcher.id()))
            .await?;
        if order.row.status != OrderStatus::Pending {
            return Ok(order);
        }
        match timeout_at(deadline, watcher.changed()).await {
            Ok(Some(())) => {}
            // Time is up, or the process stops.
            Ok(None) | Err(_) => return Ok(order),
        }
    }
}

/// The order as it is, then after every change, until it is settled.
#[must_use]
pub fn stream(app: App, caller: Caller, watcher: Subscription) -> EventStream<BoxStream<'static, OrderBody>> {
    struct State {
        app: App,
        watcher: Subscription,
        last: Option<Order>,
        deadline: Instant,
    }
    let begun = State {
        app,
        watcher,
        last: None,
        deadline: Instant::now() + LONGEST_STREAM,
    };
    let orders = futures_util::stream::unfold(begun, move |mut state| async move {
        match &state.last {
            None => state.watcher.until_listening().await,
            Some(last) if last.row.status != OrderStatus::Pending => return None,
            Some(_) => {}
        }
        loop {
            let order = state
                .app
                .db
                .timeout(
                    READ_TIMEOUT,
                    orders::find(state.app.db.read(), caller, state.watcher.id()),
                )
                .await
                .ok()?;
            if state.last.as_ref() != Some(&order) {
                state.last = Some(order.clone());
                return Some((OrderBody::from(order), state));
            }
            timeout_at(state.deadline, state.watcher.changed()).await.ok()??;
        }
    });
    EventStream::new(orders.boxed())
        .keep_alive(KEEP_ALIVE)
        .to_event(|order| Event::message(serde_json::to_string(&order).unwrap_or_default()).event_type("order"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_preference_to_wait_is_understood_as_rfc_7240_writes_it() {
        let wait = |values: &[&'static str]| {
            let mut headers = HeaderMap::new();
            for value in values {
                headers.append("prefer", poem::http::HeaderValue::from_static(value));
            }
            preferred_wait(&headers).map(|wait| wait.as_secs())
        };
        assert_eq!(wait(&["wait=10"]), Some(10));
        assert_eq!(wait(&["respond-async, Wait = \"20\"; foo=bar"]), Some(20));
        assert_eq!(wait(&["return=minimal", "wait=99999"]), Some(30));
        assert_eq!(wait(&["wait=99999999999999999999999"]), Some(30));
        assert_eq!(wait(&["wait=2", "wait=5"]), Some(2), "the first");
        for none in [
            "",
            "wait",
            "wait=",
            "wait=-1",
            "wait=1.5",
            "wait=0",
            "waits=3",
            "foo; wait=3",
            "foo=\"a, wait=3\"",
            "wait=+3",
            "wait=x, wait=3",
        ] {
            assert_eq!(wait(&[none]), None, "{none}");
        }
    }
}
