//! Metrics that operators reach for: requests that wait apart from the others, dead letters, and the process itself.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use lapin::{BasicProperties, options::BasicPublishOptions};
use reqwest::Method;
use rstest::rstest;
use sea_orm::ConnectionTrait as _;
use shop::entities::Timestamp;
use tokio::time::sleep;

use crate::support::{Answer, Backend, Client, Shop, channel, eventually, run_to_end};

/// The value of a sample, by its name and labels as they are written.
async fn sample(management: &Client, sample: &str) -> Option<f64> {
    let text = management.get("/metrics").await.body;
    let mut lines = text.as_str().expect("text").lines();
    let value = lines.find_map(|line| line.strip_prefix(sample)?.strip_prefix(' '))?;
    Some(value.parse().expect("a number"))
}

async fn becomes(management: &Client, name: &str, value: f64) {
    eventually(&format!("{name} is {value}"), || async {
        let is = sample(management, name).await?;
        ((is - value).abs() < f64::EPSILON).then_some(())
    })
    .await;
}

/// A client that wants to wait for ten seconds does not make the shop look slow.
#[tokio::test(flavor = "multi_thread")]
async fn requests_that_wait_are_apart_from_the_others() {
    let backend = Backend::servers();
    backend.stock(&[(100, 10)]).await;
    let shop = Shop::serve(&backend);
    let (client, management) = (shop.client(), shop.management());
    let id = client.order(&[(1, 1)]).await;
    let order = |kind: &str, waiting: &str, rest: &str| {
        format!(r#"shop_http_{kind}{{route="/orders/{{id}}",method="GET"{rest},waiting="{waiting}"}}"#)
    };
    let duration = "request_duration_seconds_count";

    // Nobody settles it, so that it waits.
    let waiting = client.request(Method::GET, &format!("/orders/{id}"));
    let waiting = tokio::spawn(Answer::of(waiting.header("Prefer", "wait=2")));
    becomes(&management, &order("requests_in_flight", "true", ""), 1.0).await;
    client.get(&format!("/orders/{id}")).await;
    assert_eq!(waiting.await.expect("answered").status, 200);
    becomes(&management, &order("requests_in_flight", "true", ""), 0.0).await;
    for waiting in ["true", "false"] {
        let counted = order(duration, waiting, r#",status="200""#);
        becomes(&management, &counted, 1.0).await;
    }
    let of_others = order("request_duration_seconds_sum", "false", r#",status="200""#);
    assert!(sample(&management, &of_others).await < Some(2.0));

    // A stream is in flight while it is open, and its duration is known when it ends.
    let labels = r#"{route="/orders/{id}/events",method="GET",waiting="true"}"#;
    let stream = client.request(Method::GET, &format!("/orders/{id}/events")).send();
    let stream = stream.await.expect("answered");
    assert_eq!(stream.status(), 200);
    becomes(&management, &format!("shop_http_requests_in_flight{labels}"), 1.0).await;
    drop(stream);
    becomes(&management, &format!("shop_http_requests_in_flight{labels}"), 0.0).await;
    let ended = r#"{route="/orders/{id}/events",method="GET",status="200",waiting="true"}"#;
    becomes(&management, &format!("shop_http_{duration}{ended}"), 1.0).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn durations_of_minutes_have_buckets() {
    let shop = Shop::serve(&Backend::embedded());
    shop.client().get("/products").await;
    let text = shop.management().get("/metrics").await.body;
    let text = text.as_str().expect("text");

    for name in [
        "shop_http_request_duration_seconds",
        "shop_settlement_lag_seconds",
        "shop_settle_duration_seconds",
        "shop_hold_expiry_lag_seconds",
    ] {
        for limit in ["30", "60", "120", "300", "+Inf"] {
            let is_bucket =
                |line: &str| line.starts_with(&format!("{name}_bucket{{")) && line.contains(&format!("le=\"{limit}\""));
            assert!(text.lines().any(is_bucket), "{name} has no bucket to {limit}: {text}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn dead_letters_are_counted_while_they_wait() {
    let backend = Backend::servers();
    backend.stock(&[(100, 10)]).await;
    let (serve, work) = (Shop::serve(&backend), Shop::work(&backend));
    let processes = [serve.management(), work.management()];
    for management in &processes {
        becomes(management, "shop_dead_letters_waiting", 0.0).await;
    }

    let (_connection, channel) = channel(&backend.queue_url).await;
    for junk in ["junk", "[]"] {
        let (exchange, options) = (format!("{}.orders", backend.prefix), BasicPublishOptions::default());
        let properties = BasicProperties::default();
        let published = channel.basic_publish(exchange.into(), "settle".into(), options, junk.as_bytes(), properties);
        published.await.expect("published");
    }
    for management in &processes {
        becomes(management, "shop_dead_letters_waiting", 2.0).await;
    }

    let purged = run_to_end(&backend, &["dead-letters", "purge", "--yes"], &[]);
    assert!(purged.status.success());
    for management in &processes {
        becomes(management, "shop_dead_letters_waiting", 0.0).await;
    }
}

#[rstest]
#[tokio::test(flavor = "multi_thread")]
async fn a_process_shows_what_it_depends_on_and_what_it_uses(#[values("embedded", "servers")] backend: &str) {
    let backend = Backend::named(backend);
    backend.stock(&[(100, 10)]).await;
    let mut processes = vec![Shop::serve(&backend)];
    processes.extend(Shop::workers(&backend, 1));

    for process in &processes {
        let management = process.management();
        becomes(&management, r#"shop_dependency_up{dependency="database"}"#, 1.0).await;
        for other in ["queue", "cache"] {
            let name = format!("shop_dependency_up{{dependency=\"{other}\"}}");
            if backend.is_embedded() {
                assert_eq!(sample(&management, &name).await, None);
            } else {
                becomes(&management, &name, 1.0).await;
            }
        }

        let value = async |name| sample(&management, name).await.expect(name);
        let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970");
        let age = now.as_secs_f64() - value("process_start_time_seconds").await;
        assert!((-5.0..600.0).contains(&age), "started {age} seconds ago");
        assert!(value("process_cpu_seconds_total").await > 0.0);
        assert!(value("process_resident_memory_bytes").await > 1e6);
        assert!(value("process_threads").await >= 1.0);
        let (open, max) = (value("process_open_fds").await, value("process_max_fds").await);
        assert!(open > 3.0 && open < max, "{open} of {max}");
    }
}

/// A task that hangs or fails is noticed by a time that stands still.
#[rstest]
#[tokio::test(flavor = "multi_thread")]
async fn each_task_shows_when_it_last_succeeded(#[values("embedded", "servers")] backend: &str) {
    let backend = Backend::named(backend);
    let app = backend.stock(&[(100, 10)]).await;
    let shop = if backend.is_embedded() {
        Shop::serve(&backend)
    } else {
        Shop::work(&backend)
    };
    let management = shop.management();

    for task in ["sweeper", "expiry", "relay", "database_identity"] {
        let name = format!("shop_task_last_success_timestamp_seconds{{task=\"{task}\"}}");
        let first = eventually(&name, || sample(&management, &name)).await;
        eventually(&format!("{name} goes on"), || async {
            (sample(&management, &name).await? > first).then_some(())
        })
        .await;
    }

    let away = "ALTER TABLE outbox RENAME TO away";
    app.db.write().execute_unprepared(away).await.expect("renamed");
    let relay = "shop_task_last_success_timestamp_seconds{task=\"relay\"}";
    let expiry = "shop_task_last_success_timestamp_seconds{task=\"expiry\"}";
    eventually("the relay stands still while the expiry goes on", || async {
        let before = (sample(&management, relay).await?, sample(&management, expiry).await?);
        sleep(Duration::from_secs(2)).await;
        let after = (sample(&management, relay).await?, sample(&management, expiry).await?);
        ((after.0 - before.0).abs() < f64::EPSILON && after.1 > before.1).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_settle_request_that_the_queue_does_not_take_is_counted() {
    let backend = Backend::servers();
    backend.stock(&[(100, 10)]).await;
    let no_queue = [("SHOP_QUEUE_URL", "amqp://guest:guest@127.0.0.1:1/%2f")];
    let shop = Shop::start(&backend, &["serve"], &no_queue);
    let (client, management) = (shop.client(), shop.management());
    assert_eq!(
        sample(&management, "shop_settle_requests_dropped_total").await,
        Some(0.0)
    );

    let id = client.order(&[(1, 1)]).await;
    assert_eq!(client.pay(&id).await.status, 202);
    becomes(&management, "shop_settle_requests_dropped_total", 1.0).await;
}

#[rstest]
#[tokio::test(flavor = "multi_thread")]
async fn the_age_of_the_oldest_event_of_the_outbox_is_shown(#[values("embedded", "servers")] backend: &str) {
    let backend = Backend::named(backend);
    let app = backend.stock(&[(100, 10)]).await;
    // No queue carries an event of such a type, so it stays.
    let long = "x".repeat(300);
    for minutes in [20, 10] {
        let time = if backend.is_embedded() {
            Timestamp::now().minus(Duration::from_mins(minutes)).0.to_string()
        } else {
            format!("now() - interval '{minutes} minutes'")
        };
        let store = format!(
            "INSERT INTO outbox (event_id, type, subject, time, data, publish_after)
             VALUES ('{minutes}', '{long}', 'x', {time}, '{{}}', {time})"
        );
        app.db.write().execute_unprepared(&store).await.expect("stored");
    }
    let shop = if backend.is_embedded() {
        Shop::serve(&backend)
    } else {
        Shop::work(&backend)
    };
    let management = shop.management();

    let age = eventually("the age is shown", || {
        sample(&management, "shop_outbox_oldest_age_seconds")
    })
    .await;
    assert!((1_200.0..1_800.0).contains(&age), "{age}");
    let delete = "DELETE FROM outbox";
    app.db.write().execute_unprepared(delete).await.expect("deleted");
    becomes(&management, "shop_outbox_oldest_age_seconds", 0.0).await;
}
