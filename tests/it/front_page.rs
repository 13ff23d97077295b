//! What a browser finds: the front page, pages with a slash behind them, and Swagger UI, which is stored and compressed.
//! And HEAD, wherever there is GET.

use reqwest::{Method, redirect};
use serde_json::{Value, json};

use crate::support::{Answer, Backend, Shop};

#[tokio::test]
async fn the_front_page_leads_to_the_documentation_and_loads_nothing() {
    let shop = Shop::serve(&Backend::embedded());
    let client = shop.client();

    let page = client.get("/").await;
    assert_eq!(
        (page.status, page.header("content-type")),
        (200, Some("text/html; charset=utf-8"))
    );
    let policy = page.header("content-security-policy").expect("a policy");
    assert!(
        policy.starts_with("default-src 'none'") && !policy.contains("script-src"),
        "{policy}"
    );

    let text = page.body.as_str().expect("HTML");
    assert!(
        !text.contains("http:") && !text.contains("https:") && !text.contains("<script"),
        "{text}"
    );
    for path in ["/docs", "/openapi.json", "/openapi.yaml", "/healthz", "/readyz"] {
        assert!(text.contains(&format!("href=\"{path}\"")), "no way to {path}");
        assert_eq!(client.get(path).await.status, 200, "{path}");
    }

    let put = Answer::of(client.request(Method::PUT, "/")).await;
    put.problem(405, "method-not-allowed");
    assert_eq!(put.header("allow"), Some("GET, HEAD"));
}

#[tokio::test]
async fn a_slash_at_the_end_leads_to_the_page_without_it() {
    let shop = Shop::serve(&Backend::embedded());
    let address = shop.wait_for("serving");
    // Brings the provider that the builder below asks for.
    shop.client();
    let client = reqwest::Client::builder().redirect(redirect::Policy::none());
    let client = client.build().expect("a client");

    for (method, path, location) in [
        (Method::GET, "/docs/", Some("/docs")),
        (
            Method::GET,
            "/products/?limit=1&q=a%2F",
            Some("/products?limit=1&q=a%2F"),
        ),
        (Method::HEAD, "/healthz/", Some("/healthz")),
        (Method::POST, "/orders/", Some("/orders")),
        (Method::GET, "/products/1/", Some("/products/1")),
        (Method::GET, "/nowhere/", None),
        (Method::GET, "/products//", None),
        (Method::GET, "//evil.example/", None),
    ] {
        let answer = Answer::of(client.request(method, format!("http://{address}{path}"))).await;
        let status = if location.is_some() { 308 } else { 404 };
        assert_eq!((answer.status, answer.header("location")), (status, location), "{path}");
    }
}

#[tokio::test]
async fn head_is_answered_as_get_without_a_body_wherever_there_is_get() {
    let backend = Backend::embedded();
    backend.stock(&[(100, 10)]).await;
    let shop = Shop::serve(&backend);
    let client = shop.client();
    let order = client.order(&[(1, 1)]).await;
    client.pay(&order).await;
    client.settled(&order).await;

    let document = client.get("/openapi.json").await.body;
    let paths = document["paths"].as_object().expect("paths").iter();
    let documented = paths.filter(|(_, operations)| operations["get"].is_object());
    let mut paths: Vec<String> = documented.map(|(path, _)| path.clone()).collect();
    paths.extend(["/", "/docs", "/openapi.json", "/openapi.yaml"].map(str::to_owned));
    assert!(paths.len() > 9, "{paths:?}");

    for path in paths {
        let id = if path.starts_with("/orders") {
            order.as_str()
        } else {
            "1"
        };
        let path = path.replace("{id}", id);
        let get = client.get(&path).await;
        let head = Answer::of(client.request(Method::HEAD, &path)).await;

        assert_eq!((head.status, &head.body), (get.status, &json!("")), "{path}");
        for header in [
            "content-length",
            "content-type",
            "etag",
            "vary",
            "cache-control",
            "allow",
        ] {
            assert_eq!(head.header(header), get.header(header), "{path}: {header}");
        }
    }
    let post = Answer::of(client.request(Method::HEAD, &format!("/orders/{order}/pay"))).await;
    assert_eq!((post.status, post.header("allow")), (405, Some("POST")));
}

#[tokio::test]
async fn the_documentation_is_stored_and_compressed_for_those_who_take_that() {
    let shop = Shop::serve(&Backend::embedded());
    let client = shop.client();
    for path in ["/", "/docs", "/openapi.json", "/openapi.yaml"] {
        let get = |encoding: &'static str, known: Option<String>| {
            let mut request = client.request(Method::GET, path).header("Accept-Encoding", encoding);
            if let Some(known) = known {
                request = request.header("If-None-Match", known);
            }
            request
        };

        let mut tags = Vec::new();
        for (encoding, gzip) in [
            ("gzip", true),
            ("br;q=1.0, gzip;q=0.8, *;q=0.1", true),
            ("*", true),
            ("identity", false),
            ("gzip;q=0", false),
            ("gzip;q=0.2, identity;q=0.5", false),
            ("br", false),
        ] {
            let answer = Answer::of(get(encoding, None)).await;
            assert_eq!(
                answer.header("content-encoding"),
                gzip.then_some("gzip"),
                "{path}: {encoding}"
            );
            assert_eq!(answer.header("vary"), Some("accept-encoding"), "{path}: {encoding}");
            let stored = answer.header("cache-control").expect("it says so");
            assert!(stored.contains("max-age"), "{path}: {stored}");
            let tag = answer.header("etag").expect("a tag").to_owned();

            let known = Answer::of(get(encoding, Some(tag.clone()))).await;
            assert_eq!(
                (known.status, known.header("etag")),
                (304, Some(tag.as_str())),
                "{path}: {encoding}"
            );
            assert_eq!(known.body, Value::String(String::new()));
            tags.push(tag);
        }
        tags.sort();
        tags.dedup();
        assert_eq!(tags.len(), 2, "each form has a tag of its own");
    }

    let length = |answer: Answer| {
        answer
            .header("content-length")
            .and_then(|length| length.parse::<u64>().ok())
    };
    let whole = length(Answer::of(client.request(Method::HEAD, "/docs")).await).expect("a length");
    let zipped = client.request(Method::HEAD, "/docs").header("Accept-Encoding", "gzip");
    assert!(length(Answer::of(zipped).await).expect("a length") * 2 < whole);
}
