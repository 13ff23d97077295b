//! Bad input: a clear answer with every error, and nothing stored.

use reqwest::{Method, header::HeaderValue};
use rstest::rstest;
use sea_orm::{EntityTrait as _, PaginatorTrait as _};
use serde_json::{Value, json};
use shop::entities::{order, order_item};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use crate::support::{Answer, Backend, Client, Shop};

async fn shop_with_products() -> (Backend, shop::app::App, Shop, Client) {
    let backend = Backend::embedded();
    let app = backend
        .stock(&[(100, 10), (i64::MAX / 2, 10), (i64::MAX / 2, 10)])
        .await;
    let shop = Shop::serve(&backend);
    let client = shop.client();
    (backend, app, shop, client)
}

#[tokio::test]
async fn every_error_in_a_body_is_reported_in_one_answer_and_nothing_is_stored() {
    let (_backend, app, _shop, client) = shop_with_products().await;
    let item = |product: Value, quantity: Value| json!({ "product_id": product, "quantity": quantity });
    let one = || item(json!(1), json!(1));
    let order = |items: Value| json!({ "user_id": 1, "items": items });
    let cases: Vec<(Value, &[&str])> = vec![
        (order(json!([])), &["/items"]),
        (order(json!([item(json!(1), json!(0))])), &["/items/0/quantity"]),
        (order(json!([item(json!(1), json!(-1))])), &["/items/0/quantity"]),
        (order(json!([item(json!(1), json!(10_001))])), &["/items/0/quantity"]),
        (order(json!([item(json!(1), json!("2"))])), &["/items/0/quantity"]),
        (order(json!([item(json!(1), json!(true))])), &["/items/0/quantity"]),
        (order(json!([item(json!(1), json!(1.5))])), &["/items/0/quantity"]),
        (order(json!([item(json!(1), json!(null))])), &["/items/0/quantity"]),
        (
            order(json!([item(json!(u64::MAX), json!(1))])),
            &["/items/0/product_id"],
        ),
        // Larger than any whole number that JSON readers tell from others, beside other faults.
        (
            json!({ "user_id": 1, "items": [item(json!(1e20), json!(0))], "hold_seconds": 1 }),
            &["/hold_seconds", "/items/0/product_id", "/items/0/quantity"],
        ),
        (order(json!([item(json!(-1e300), json!(1))])), &["/items/0/product_id"]),
        (order(json!([item(json!(9.1e15), json!(1))])), &["/items/0/product_id"]),
        // An empty text is blank as well.
        (
            json!({ "user_id": 1, "items": [one()], "reference": "" }),
            &["/reference"],
        ),
        (order(json!([one(), one()])), &["/items/1/product_id"]),
        (order(json!([one(), 7, "x"])), &["/items/1", "/items/2"]),
        (json!({ "user_id": 0, "items": [one()] }), &["/user_id"]),
        (
            json!({ "user_id": "1", "items": [item(json!("1"), json!(0))], "coupon": 1 }),
            &["/coupon", "/items/0/product_id", "/items/0/quantity", "/user_id"],
        ),
        (
            order(json!([one(), item(json!(2), json!(0)), one()])),
            &["/items/1/quantity", "/items/2/product_id"],
        ),
        (
            json!({ "items": [one()], "a/b": 1, "~": 2 }),
            &["/a~1b", "/user_id", "/~0"],
        ),
        (json!({}), &["/items", "/user_id"]),
        (order(json!([{}])), &["/items/0/product_id", "/items/0/quantity"]),
        (json!([]), &[""]),
        (json!(null), &[""]),
    ];

    let too_many: Vec<Value> = (1..=101).map(|product| item(json!(product), json!(1))).collect();
    let too_many = (order(json!(too_many)), &["/items"][..]);

    for (body, pointers) in cases.into_iter().chain([too_many]) {
        let answer = client.post("/orders", &body).await;
        let mut found = answer.problem(400, "invalid-request");
        let mut pointers: Vec<String> = pointers.iter().map(|pointer| (*pointer).to_owned()).collect();
        found.sort();
        pointers.sort();
        assert_eq!(found, pointers, "{body} → {answer:?}");
    }
    assert_eq!(stored(&app).await, (0, 0));
}

/// RFC 8259, section 4: a proxy that checks the first of two values would let the second pass.
#[tokio::test]
async fn a_name_that_comes_twice_is_rejected_at_its_place() {
    let (_backend, app, _shop, client) = shop_with_products().await;
    let cases: [(&str, &str, &[&str]); 7] = [
        (
            "/orders",
            r#"{"user_id":1,"items":[{"product_id":1,"quantity":1,"quantity":9}]}"#,
            &["/items/0/quantity"],
        ),
        (
            "/orders",
            r#"{"user_id":1,"items":[{"product_id":1,"quantity":1,"qu\u0061ntity":1}]}"#,
            &["/items/0/quantity"],
        ),
        (
            "/orders",
            r#"{"user_id":1,"user_id":0,"items":[{"product_id":1,"quantity":0}],"user_id":0}"#,
            &["/items/0/quantity", "/user_id", "/user_id"],
        ),
        (
            "/orders",
            r#"{"user_id":1,"items":[{"product_id":1,"quantity":1}],"metadata":{"a/b":"1","a\/b":"2"}}"#,
            &["/metadata/a~1b"],
        ),
        (
            "/products",
            r#"{"name":"Mug","name":"Cup","price":1,"stock":1}"#,
            &["/name"],
        ),
        (
            "/products/1/stock",
            r#"{"delta":1,"reason":"x","delta":1}"#,
            &["/delta"],
        ),
        (
            "/orders/019bc0d2-3b7a-7c3e-9d52-5f0c7a4e8b11/pay",
            r#"{"payment_method":"pm_card_declined","payment_method":"pm_card_visa"}"#,
            &["/payment_method"],
        ),
    ];

    for (path, body, pointers) in cases {
        let request = client
            .request(Method::POST, path)
            .header("content-type", "application/json");
        let answer = Answer::of(request.body(body)).await;
        let mut found = answer.problem(400, "invalid-request");
        found.sort();
        assert_eq!(found, pointers, "{body} → {answer:?}");
    }
    assert_eq!(stored(&app).await, (0, 0));
}

#[tokio::test]
async fn unknown_products_are_all_named_and_nothing_is_stored() {
    let (_backend, app, _shop, client) = shop_with_products().await;
    let items = json!([
        { "product_id": 77, "quantity": 1 }, { "product_id": 1, "quantity": 1 }, { "product_id": 78, "quantity": 1 },
    ]);
    let answer = client.post("/orders", &json!({ "user_id": 1, "items": items })).await;
    assert_eq!(
        answer.problem(422, "unknown-product"),
        ["/items/0/product_id", "/items/2/product_id"]
    );
    let items = json!([{ "product_id": 2, "quantity": 1 }, { "product_id": 3, "quantity": 2 }]);
    let answer = client.post("/orders", &json!({ "user_id": 1, "items": items })).await;
    answer.problem(422, "total-too-large");
    assert_eq!(stored(&app).await, (0, 0));
}

/// An ignored key would be worse than none: the client believes that it may safely repeat the order.
#[tokio::test]
async fn an_invalid_idempotency_key_is_rejected() {
    let (_backend, app, _shop, client) = shop_with_products().await;
    let order = json!({ "user_id": 1, "items": [{ "product_id": 1, "quantity": 1 }] });
    let with_key = |key: &[u8]| {
        let key = HeaderValue::from_bytes(key).expect("a header can hold it");
        client.request(Method::POST, "/orders").header("idempotency-key", key)
    };
    let too_long = vec![b'k'; 256];
    for key in [&b""[..], b"two words", b"caf\xc3\xa9", &too_long] {
        let pointers = Answer::of(with_key(key).json(&order))
            .await
            .problem(400, "invalid-request");
        assert_eq!(pointers, ["/header/Idempotency-Key"]);
    }
    let twice = with_key(b"one").header("idempotency-key", "other").json(&order);
    Answer::of(twice).await.problem(400, "invalid-request");
    assert_eq!(stored(&app).await, (0, 0));
}

#[tokio::test]
async fn of_more_than_a_hundred_errors_the_first_hundred_are_reported_outermost_first() {
    let (_backend, app, _shop, client) = shop_with_products().await;
    let line = |product: i64| json!({ "product_id": product, "quantity": 0, "colour": "red" });
    let lines: Vec<Value> = (1..=100).map(line).collect();
    let body = json!({ "user_id": 0, "coupon": 1, "items": lines });
    let request = client
        .request(Method::POST, "/orders")
        .header("idempotency-key", "two words");

    let answer = Answer::of(request.json(&body)).await;
    let pointers = answer.problem(400, "invalid-request");
    assert_eq!(pointers.len(), 100);
    for named in ["/user_id", "/coupon", "/header/Idempotency-Key"] {
        assert!(pointers.iter().any(|pointer| pointer == named), "{named}: {pointers:?}");
    }
    assert!(
        answer.body["detail"]
            .as_str()
            .is_some_and(|detail| detail.contains("more than 100"))
    );
    assert_eq!(stored(&app).await, (0, 0));
}

#[tokio::test]
async fn a_request_needs_one_host_header_and_head_is_get_without_a_body() {
    let (_backend, _app, shop, client) = shop_with_products().await;
    let address = shop.wait_for("serving");
    let get_with = |headers: &'static str| {
        let address = address.clone();
        async move {
            let mut stream = tokio::net::TcpStream::connect(address).await.expect("connects");
            let request = format!("GET /products HTTP/1.1\r\n{headers}connection: close\r\n\r\n");
            stream.write_all(request.as_bytes()).await.expect("sent");
            let mut answer = String::new();
            stream.read_to_string(&mut answer).await.expect("answered");
            answer
        }
    };

    assert!(get_with("host: shop\r\n").await.starts_with("HTTP/1.1 200"));
    for wrong in ["", "host: a\r\nhost: b\r\n"] {
        let answer = get_with(wrong).await;
        assert!(
            answer.starts_with("HTTP/1.1 400") && answer.contains("/header/Host"),
            "{answer}"
        );
    }

    for path in ["/products", "/products/1", "/healthz", "/openapi.json"] {
        let (get, head) = (
            client.get(path).await,
            Answer::of(client.request(Method::HEAD, path)).await,
        );
        assert_eq!(
            (head.status, &head.body),
            (200, &Value::String(String::new())),
            "{path}"
        );
        for header in ["etag", "vary", "content-type", "cache-control"] {
            assert_eq!(head.header(header), get.header(header), "{path}: {header}");
        }
    }

    let zipped = client
        .request(Method::POST, "/orders")
        .header("content-encoding", "gzip");
    Answer::of(zipped.json(&json!({})))
        .await
        .problem(415, "unsupported-media-type");
}

#[tokio::test]
async fn a_body_that_is_not_json_gets_a_problem_document() {
    let (_backend, app, _shop, client) = shop_with_products().await;
    let post = |body: Vec<u8>| {
        client
            .request(Method::POST, "/orders")
            .header("content-type", "application/json")
            .body(body)
    };

    for body in [
        &b"{\"user_id\": 1"[..],
        b"",
        b"\xff\xfe",
        b"{\"user_id\": 1, \"items\": [], \"\xff\": 1}",
        b"NaN",
        b"1e999",
    ] {
        Answer::of(post(body.to_vec())).await.problem(400, "invalid-request");
    }

    let deep = [vec![b'['; 10_000], vec![b']'; 10_000]].concat();
    Answer::of(post(deep)).await.problem(400, "invalid-request");
    Answer::of(post(vec![b' '; 64 * 1024 + 1]))
        .await
        .problem(413, "payload-too-large");
    let chunked = reqwest::Body::wrap_stream(futures_util::stream::iter(
        (0..100).map(|_| Ok::<_, std::io::Error>(vec![b' '; 1024])),
    ));
    let request = client
        .request(Method::POST, "/orders")
        .header("content-type", "application/json");
    Answer::of(request.body(chunked))
        .await
        .problem(413, "payload-too-large");

    let text = client
        .request(Method::POST, "/orders")
        .header("content-type", "text/plain")
        .body("{}");
    Answer::of(text).await.problem(415, "unsupported-media-type");
    Answer::of(client.request(Method::POST, "/orders").body("{}"))
        .await
        .problem(415, "unsupported-media-type");
    Answer::of(client.request(Method::POST, "/orders"))
        .await
        .problem(400, "invalid-request");

    assert_eq!(stored(&app).await, (0, 0));
}

#[rstest]
#[case(Method::GET, "/nowhere", 404, "not-found")]
#[case(Method::GET, "/orders/019bc0d2-3b7a-7c3e-9d52-5f0c7a4e8b11", 404, "not-found")]
#[case(Method::POST, "/orders/019bc0d2-3b7a-7c3e-9d52-5f0c7a4e8b11/pay", 404, "not-found")]
#[case(Method::GET, "/orders/1", 400, "invalid-request")]
#[case(Method::POST, "/orders/1/pay", 400, "invalid-request")]
#[case(Method::GET, "/products/999", 404, "not-found")]
#[case(Method::GET, "/products/-1", 404, "not-found")]
#[case(Method::GET, "/products/one", 400, "invalid-request")]
#[case(Method::GET, "/products/9223372036854775808", 400, "invalid-request")]
#[case(Method::GET, "/products?limit=0", 400, "invalid-request")]
#[case(Method::GET, "/products?limit=201", 400, "invalid-request")]
#[case(Method::GET, "/products?limit=x", 400, "invalid-request")]
#[case(Method::GET, "/products?q=%00", 400, "invalid-request")]
#[case(Method::GET, "/products?cursor=-5", 400, "invalid-request")]
#[case(Method::GET, "/products?cursor=99999999999999999999", 400, "invalid-request")]
#[case(Method::DELETE, "/products", 405, "method-not-allowed")]
#[case(Method::PUT, "/orders", 405, "method-not-allowed")]
#[tokio::test]
async fn unknown_paths_and_wrong_methods_get_a_problem_document(
    #[case] method: Method,
    #[case] path: &str,
    #[case] status: u16,
    #[case] slug: &str,
) {
    let (_backend, _app, _shop, client) = shop_with_products().await;
    let answer = Answer::of(client.request(method, path)).await;
    answer.problem(status, slug);
    let allowed = match (status, path) {
        (405, "/products" | "/orders") => Some("GET, HEAD, POST"),
        _ => None,
    };
    assert_eq!(answer.header("allow"), allowed);
}

#[rstest]
#[case("/products?limit=0&cursor=one&q=a%07b", &["cursor", "limit", "q"])]
#[case("/products?limit=x&q=fine&colour=red", &["colour", "limit"])]
#[case("/orders?user_id=0&status=DONE&limit=201&cursor=1", &["cursor", "limit", "status", "user_id"])]
#[case("/orders?status=PAID&user_id=99999999999999999999&limit=5", &["user_id"])]
#[tokio::test]
async fn every_error_in_a_query_is_reported_in_one_answer(#[case] path: &str, #[case] invalid: &[&str]) {
    let (_backend, _app, _shop, client) = shop_with_products().await;
    let answer = client.get(path).await;
    answer.problem(400, "invalid-request");
    let errors = answer.body["errors"].as_array().expect("a list");
    let mut pointers: Vec<&str> = errors.iter().filter_map(|error| error["pointer"].as_str()).collect();
    pointers.sort_unstable();
    let expected: Vec<String> = invalid.iter().map(|name| format!("/query/{name}")).collect();
    assert_eq!(pointers, expected, "{}", answer.body);
    let is_sentence = |error: &Value| {
        error["detail"]
            .as_str()
            .is_some_and(|detail| detail.starts_with("the value ") || detail.starts_with("there is no such parameter"))
    };
    assert!(errors.iter().all(is_sentence), "{}", answer.body);
}

#[tokio::test]
async fn the_openapi_document_describes_what_is_served() {
    let (backend, _app, _shop, client) = shop_with_products().await;
    let served = client.get("/openapi.json").await.body;
    let printed = crate::support::run_to_end(&backend, &["openapi"], &[]);
    let printed: Value = serde_json::from_slice(&printed.stdout).expect("JSON");
    assert_eq!(served, printed);

    let yaml = crate::support::run_to_end(&backend, &["openapi", "--yaml"], &[]);
    let yaml: Value = serde_norway::from_slice(&yaml.stdout).expect("YAML");
    assert_eq!(served, yaml);

    for (path, method) in [
        ("/products", "get"),
        ("/products/{id}", "get"),
        ("/orders", "post"),
        ("/orders/{id}", "get"),
        ("/orders/{id}/pay", "post"),
    ] {
        assert!(served["paths"][path][method]["summary"].is_string(), "{method} {path}");
    }
    assert_eq!(
        served["components"]["schemas"]["NewOrder"]["additionalProperties"],
        false
    );

    let docs = client.get("/docs").await;
    assert!(docs.body.as_str().is_some_and(|page| page.contains("SwaggerUIBundle")));
}

async fn stored(app: &shop::app::App) -> (u64, u64) {
    let orders = order::Entity::find().count(app.db.read()).await.expect("counts");
    let items = order_item::Entity::find().count(app.db.read()).await.expect("counts");
    (orders, items)
}
