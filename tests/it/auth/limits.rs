//! Limits on callers: the rate of their requests, whoever they are behind proxies, and the origins that browsers may
//! call from.

use reqwest::Method;

use super::{JWT, get, user};
use crate::support::{Answer, Backend, Client, Shop, eventually, run_to_end};

#[tokio::test]
async fn a_client_over_its_rate_limit_gets_429_and_others_do_not() {
    let backend = Backend::embedded();
    let limited = [&JWT[..], &[("SHOP_RATE_LIMIT_PER_SECOND", "5")]].concat();
    let shop = Shop::start(&backend, &["serve"], &limited);
    let client = shop.client();

    let mut refused = 0;
    for _ in 0..40 {
        let answer = get(&client, "/orders", &user(7)).await;
        assert_eq!(answer.header("ratelimit-policy"), Some("\"default\";q=5;w=1"));
        let limit = answer.header("ratelimit").expect("it says what is left").to_owned();
        if answer.status == 200 {
            let left = limit
                .strip_prefix("\"default\";r=")
                .and_then(|rest| rest.strip_suffix(";t=1"));
            let left = left.and_then(|left| left.parse::<u64>().ok());
            assert!(left.is_some_and(|left| left < 5), "{limit}");
            continue;
        }
        answer.problem(429, "too-many-requests");
        let seconds: u64 = answer
            .header("retry-after")
            .and_then(|seconds| seconds.parse().ok())
            .expect("seconds");
        assert_eq!(limit, format!("\"default\";r=0;t={seconds}"));
        refused += 1;
    }
    assert!(refused > 0);
    // Whatever the answer is, it says so: a page that comes from the cache, an error, what needs no token not.
    for (path, status) in [
        ("/products", 200),
        ("/products", 200),
        ("/products/9", 404),
        ("/nowhere", 404),
    ] {
        let answer = get(&client, path, &user(9)).await;
        assert_eq!(
            (answer.status, answer.headers.get_all("ratelimit").iter().count()),
            (status, 1),
            "{path}"
        );
    }
    assert_eq!(client.get("/healthz").await.header("ratelimit"), None);
    assert_eq!(get(&client, "/orders", &user(8)).await.status, 200);

    // Attempts with invalid tokens are limited as well.
    let mut statuses = Vec::new();
    for _ in 0..40 {
        statuses.push(get(&client, "/orders", "no.such.token").await.status);
    }
    assert!(
        statuses.iter().all(|status| matches!(status, 401 | 429)),
        "{statuses:?}"
    );
    assert!(statuses.contains(&429), "{statuses:?}");
}

/// The statuses of this many requests with these headers.
async fn statuses(client: &Client, count: usize, headers: &[(&str, &str)]) -> Vec<u16> {
    let mut statuses = Vec::new();
    for _ in 0..count {
        let mut request = client.request(Method::GET, "/products");
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        statuses.push(Answer::of(request).await.status);
    }
    statuses
}

/// Behind a proxy all customers would share one limit; and a client that could choose its address would have none.
#[tokio::test]
async fn customers_behind_a_trusted_proxy_have_a_limit_each_and_nobody_chooses_an_address() {
    let limit = ("SHOP_RATE_LIMIT_PER_SECOND", "1");
    let backend = Backend::embedded();
    let trusting = Shop::start(
        &backend,
        &["serve"],
        &[limit, ("SHOP_TRUSTED_PROXIES", "10.0.0.0/8, 127.0.0.1")],
    );
    let client = trusting.client();

    for number in 0..20 {
        // What the customer wrote stands before what the proxies wrote.
        let (v4, v6) = (
            format!("203.0.113.{number}"),
            format!("\"[2001:db8:0:{number:x}::1]:99\""),
        );
        let (forwarded, xff) = (format!("for=1.1.1.1, for={v6}"), format!("1.1.1.1, {v4}, 10.1.2.3"));
        for header in [("X-Forwarded-For", xff.as_str()), ("Forwarded", forwarded.as_str())] {
            assert_eq!(statuses(&client, 1, &[header]).await, [200], "{header:?}");
        }
    }

    // One customer stays one, whatever it writes, and so does the network of a customer with IPv6.
    let mut chosen = [Vec::new(), Vec::new()];
    for number in 0..20 {
        let own = format!("198.51.100.{number}, 203.0.113.77");
        let both = format!("for=198.51.100.{number}");
        let both = [("X-Forwarded-For", "203.0.113.78"), ("Forwarded", both.as_str())];
        chosen[0].extend(statuses(&client, 1, &[("X-Forwarded-For", &own)]).await);
        chosen[1].extend(statuses(&client, 1, &both).await);
    }
    assert!(chosen.iter().all(|statuses| statuses.contains(&429)), "{chosen:?}");
    let mut network = Vec::new();
    for number in 0..20 {
        let header = format!("2001:db8:77::{number:x}");
        network.extend(statuses(&client, 1, &[("X-Forwarded-For", &header)]).await);
    }
    assert!(network.contains(&429), "{network:?}");

    // Nobody else is believed.
    let wary = Shop::start(
        &Backend::embedded(),
        &["serve"],
        &[limit, ("SHOP_TRUSTED_PROXIES", "10.0.0.0/8")],
    );
    let client = wary.client();
    let mut believed = Vec::new();
    for number in 0..20 {
        let header = format!("203.0.113.{number}");
        believed.extend(statuses(&client, 1, &[("X-Forwarded-For", &header)]).await);
    }
    assert!(believed.contains(&429), "{believed:?}");
}

#[tokio::test]
async fn the_log_names_the_client_and_not_its_proxy() {
    let environment = [("SHOP_TRUSTED_PROXIES", "127.0.0.0/8"), ("SHOP_LOG", "shop=debug")];
    let shop = Shop::start(&Backend::embedded(), &["serve"], &environment);
    let client = shop.client();
    statuses(&client, 1, &[("X-Forwarded-For", "203.0.113.7")]).await;
    statuses(&client, 1, &[]).await;

    let clients = |log: &str| -> Vec<String> {
        let lines = log
            .lines()
            .filter_map(|line| serde_json::from_str::<serde_json::Value>(line).ok());
        let answered = lines.filter(|line| line["message"] == "answered");
        answered
            .filter_map(|line| line["client"].as_str().map(str::to_owned))
            .collect()
    };
    eventually("both requests are logged", || async {
        (clients(&shop.log()).len() >= 2).then_some(())
    })
    .await;
    assert_eq!(clients(&shop.log()), ["203.0.113.7", "127.0.0.1"]);
}

#[tokio::test]
async fn browsers_may_call_from_the_configured_origins_only() {
    let backend = Backend::embedded();
    let origins = [("SHOP_CORS_ORIGINS", "HTTPS://Shop.Example:443/, http://localhost:3000")];
    let (open, closed) = (
        Shop::start(&backend, &["serve"], &origins),
        Shop::serve(&Backend::embedded()),
    );
    let preflight = |client: &Client, origin: &str| {
        let request = client.request(Method::OPTIONS, "/orders");
        let request = request
            .header("Origin", origin)
            .header("Access-Control-Request-Method", "POST")
            .header("Access-Control-Request-Headers", "content-type,idempotency-key");
        Answer::of(request)
    };

    let allowed = preflight(&open.client(), "https://shop.example").await;
    assert_eq!(
        allowed.header("access-control-allow-origin"),
        Some("https://shop.example"),
        "{allowed:?}"
    );
    for (client, origin) in [
        (open.client(), "https://evil.example"),
        (closed.client(), "https://shop.example"),
    ] {
        let refused = preflight(&client, origin).await;
        assert_eq!(refused.header("access-control-allow-origin"), None, "{refused:?}");
        assert!(refused.status < 500);
    }

    // A simple request is served whatever its origin; only the header tells the browser whether a page may read it.
    for origin in ["http://127.0.0.1:8080", "https://evil.example", "https://shop.example"] {
        let request = open.client().request(Method::GET, "/products").header("Origin", origin);
        let answer = Answer::of(request).await;
        assert_eq!(answer.status, 200, "{origin}");

        let varies: Vec<&str> = answer
            .headers
            .get_all("vary")
            .iter()
            .filter_map(|vary| vary.to_str().ok())
            .collect();
        assert_eq!(varies, ["accept-encoding", "origin"], "{origin}");
        let allowed = (origin == "https://shop.example").then_some(origin);
        assert_eq!(answer.header("access-control-allow-origin"), allowed);
    }
}

/// A header that is not named is kept from the page, or makes the browser refuse the whole request.
#[tokio::test]
async fn a_browser_may_send_and_read_every_header_of_the_document() {
    let origins = [("SHOP_CORS_ORIGINS", "https://shop.example")];
    let shop = Shop::start(&Backend::embedded(), &["serve"], &origins);
    let document = shop.client().get("/openapi.json").await.body;
    let preflight = shop.client().request(Method::OPTIONS, "/orders");
    let preflight = preflight.header("Origin", "https://shop.example");
    let allowed = Answer::of(preflight.header("Access-Control-Request-Method", "POST")).await;
    let lists = |header: &str, name: &str| {
        let mut names = allowed.header(header).unwrap_or_default().split(", ");
        names.any(|listed| listed.eq_ignore_ascii_case(name))
    };

    let (mut sent, mut received) = (0, 0);
    let paths = document["paths"].as_object().expect("paths");
    for (method, operation) in paths.values().flat_map(|path| path.as_object().expect("operations")) {
        assert!(
            method == "get" || lists("access-control-allow-methods", method),
            "{method}"
        );
        for parameter in operation["parameters"].as_array().into_iter().flatten() {
            let name = parameter["name"].as_str().expect("a name");
            if parameter["in"] == "header" {
                assert!(lists("access-control-allow-headers", name), "{name}");
                sent += 1;
            }
        }
        for answer in operation["responses"].as_object().expect("answers").values() {
            for name in answer["headers"]
                .as_object()
                .into_iter()
                .flatten()
                .map(|(name, _)| name)
            {
                // Every page may read these.
                let always = ["Access-Control-Allow-Origin", "Cache-Control"].contains(&name.as_str());
                assert!(always || lists("access-control-expose-headers", name), "{name}");
                received += 1;
            }
        }
    }
    assert!(sent > 10 && received > 100, "{sent}, {received}");
}

#[test]
fn an_origin_that_no_browser_sends_is_refused() {
    let backend = Backend::embedded();
    for origin in ["https://shop.example/front", "https://müller.example", "shop.example"] {
        let output = run_to_end(&backend, &["health"], &[("SHOP_CORS_ORIGINS", origin)]);
        let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(2), "{origin}: {stderr}");
        assert!(
            stderr.contains("SHOP_CORS_ORIGINS") && stderr.contains(origin),
            "{stderr}"
        );
    }
}
