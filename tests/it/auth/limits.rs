//! Limits on callers: the rate of their requests, and the origins that browsers may call from.

use reqwest::Method;

use super::{JWT, get, user};
use crate::support::{Answer, Backend, Client, Shop};

#[tokio::test]
async fn a_client_over_its_rate_limit_gets_429_and_others_do_not() {
    let backend = Backend::embedded();
    let limited = [&JWT[..], &[("SHOP_RATE_LIMIT_PER_SECOND", "5")]].concat();
    let shop = Shop::start(&backend, &["serve"], &limited);
    let client = shop.client();

    let mut refused = 0;
    for _ in 0..40 {
        let answer = get(&client, "/orders", &user(7)).await;
        if answer.status != 200 {
            answer.problem(429, "too-many-requests");
            assert!(
                answer
                    .header("retry-after")
                    .is_some_and(|seconds| seconds.parse::<u64>().is_ok())
            );
            refused += 1;
        }
    }
    assert!(refused > 0);
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

#[tokio::test]
async fn browsers_may_call_from_the_configured_origins_only() {
    let backend = Backend::embedded();
    let origins = [("SHOP_CORS_ORIGINS", "https://shop.example, http://localhost:3000")];
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
