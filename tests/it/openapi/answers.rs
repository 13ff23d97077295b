//! Answers of the server held against the document.

use jsonschema::Validator;
use reqwest::{Method, redirect::Policy};
use serde_json::{Value, json};

use super::{document, operations};
use crate::support::{Answer, Backend, Client, Shop};

/// Whether answers are as the document says.
struct Checker {
    document: Value,
    client: Client,
}

impl Checker {
    async fn send(&self, operation: &str, path: &str, headers: &[(&str, &str)], body: Option<Value>) -> Answer {
        let method = operation.split(' ').next().expect("a method");
        let mut request = self.client.request(method.parse::<Method>().expect("a method"), path);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        if let Some(body) = body {
            request = request.json(&body);
        }

        let answer = Answer::of(request).await;
        self.check(operation, &answer);
        answer
    }

    fn check(&self, operation: &str, answer: &Answer) {
        let (_, described) = operations(&self.document)
            .into_iter()
            .find(|(name, _)| name == operation)
            .unwrap_or_else(|| panic!("no {operation}"));
        let status = answer.status.to_string();
        let response = &described["responses"][&status];
        assert!(response.is_object(), "{operation} does not say {status}: {answer:?}");

        for (name, header) in response["headers"].as_object().into_iter().flatten() {
            let value = answer.header(&name.to_lowercase());
            assert!(
                value.is_some() || self.resolve(header)["required"] != true,
                "{operation} {status} has no {name}"
            );
            if let Some(value) = value {
                let schema = &self.resolve(header)["schema"];
                let number = value.parse::<i64>().ok().filter(|_| schema["type"] == "integer");
                self.validate(schema, &number.map_or_else(|| json!(value), |number| json!(number)));
            }
        }

        let content = answer.header("content-type").unwrap_or_default();
        if response["content"].is_object() {
            let schema = &response["content"][content]["schema"];
            assert!(schema.is_object(), "{operation} {status} is {content}");
            self.validate(schema, &answer.body);
        }
    }

    fn resolve<'a>(&'a self, value: &'a Value) -> &'a Value {
        let reference = value["$ref"].as_str().and_then(|reference| reference.strip_prefix('#'));
        reference.map_or(value, |pointer| self.document.pointer(pointer).expect("it exists"))
    }

    fn validate(&self, schema: &Value, value: &Value) {
        let schema = json!({ "allOf": [schema], "components": self.document["components"] });
        let validator: Validator = jsonschema::draft202012::options()
            .should_validate_formats(true)
            .build(&schema)
            .expect("a schema");
        let errors: Vec<String> = validator
            .iter_errors(value)
            .map(|error| format!("{}: {error}", error.instance_path()))
            .collect();
        assert!(errors.is_empty(), "{value} is not as documented: {errors:#?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_kind_of_answer_is_as_the_document_says() {
    let backend = Backend::embedded();
    backend.stock(&[(100, 5), (200, 0)]).await;
    let shop = Shop::serve(&backend);
    let checker = Checker {
        document: document(),
        client: shop.client(),
    };
    let send = async |operation: &str, path: &str, headers: &[(&str, &str)], body: Option<Value>| {
        let answer = checker.send(operation, path, headers, body).await;
        (answer.status, answer)
    };

    // The catalogue.
    let product = json!({ "name": "Mug", "price": 500, "stock": 5 });
    assert_eq!(send("POST /products", "/products", &[], Some(product)).await.0, 201);
    let (status, page) = send("GET /products", "/products?limit=2", &[], None).await;
    let etag = page.header("etag").expect("a tag").to_owned();
    assert!(status == 200 && page.body["next_cursor"].is_string());
    let known = [("If-None-Match", etag.as_str())];
    assert_eq!(send("GET /products", "/products?limit=2", &known, None).await.0, 304);
    assert!(send("GET /products", "/products", &[], None).await.1.body["next_cursor"].is_null());
    assert_eq!(send("GET /products/{id}", "/products/1", &[], None).await.0, 200);
    let (path, change) = ("/products/3", Some(json!({ "price": 700 })));
    assert_eq!(send("PATCH /products/{id}", path, &[], change).await.0, 200);
    let (path, change) = ("/products/3/stock", |delta: i64| {
        Some(json!({ "delta": delta, "reason": "counted" }))
    });
    assert_eq!(send("POST /products/{id}/stock", path, &[], change(3)).await.0, 200);
    assert_eq!(send("POST /products/{id}/stock", path, &[], change(-300)).await.0, 409);

    // An order that is paid, one that fails, and what can be wrong with one.
    let order = |product: i64| Some(json!({ "user_id": 7, "items": [{ "product_id": product, "quantity": 2 }] }));
    for (product, settled) in [(1, 200), (2, 409)] {
        let (_, made) = send("POST /orders", "/orders", &[("Idempotency-Key", "k")], order(product)).await;
        assert_eq!(made.status, if product == 1 { 201 } else { 422 }, "{made:?}");
        let (_, made) = send("POST /orders", "/orders", &[], order(product)).await;
        let path = format!("/orders/{}", made.body["order_id"].as_str().expect("an id"));
        let pay = format!("{path}/pay");
        let declined = Some(json!({ "payment_method": "pm_card_declined" }));
        assert_eq!(send("POST /orders/{id}/pay", &pay, &[], declined).await.0, 402);
        let wait = [("Prefer", "wait=20")];
        assert_eq!(send("POST /orders/{id}/pay", &pay, &wait, None).await.0, settled);
        assert_eq!(send("GET /orders/{id}", &path, &wait, None).await.0, 200);
    }
    assert_eq!(send("GET /orders", "/orders?limit=1", &[], None).await.0, 200);
    assert_eq!(send("POST /orders", "/orders", &[], order(99)).await.0, 422);
    let odd = Some(json!({ "user_id": 0, "a/b~c": [], "items": {} }));
    assert_eq!(send("POST /orders", "/orders", &[], odd).await.0, 400);
    let unknown = "/orders/01900000-0000-7000-8000-000000000000";
    assert_eq!(send("GET /orders/{id}", unknown, &[], None).await.0, 404);
    assert_eq!(send("GET /healthz", "/healthz", &[], None).await.0, 200);
    assert_eq!(send("GET /readyz", "/readyz", &[], None).await.0, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_stands_around_an_order_is_answered_as_the_document_says() {
    let backend = Backend::embedded();
    backend.stock(&[(100, 50), (200, 50)]).await;
    let shop = Shop::serve(&backend);
    let checker = Checker {
        document: document(),
        client: shop.client(),
    };
    let send = async |operation: &str, path: &str, key: &str, body: Option<Value>| {
        let headers = [("Idempotency-Key", key), ("Prefer", "wait=20")];
        let headers = if key.is_empty() { &headers[1..] } else { &headers[..] };
        let answer = checker.send(operation, path, headers, body).await;
        (answer.status, answer.body)
    };

    // A cart becomes an order, which is paid and refunded.
    let (status, cart) = send("POST /carts", "/carts", "", None).await;
    assert_eq!(status, 201);
    let cart = format!("/carts/{}", cart["cart_id"].as_str().expect("an id"));
    let (item, two) = (format!("{cart}/items/1"), Some(json!({ "quantity": 2 })));
    assert_eq!(send("PUT /carts/{id}/items/{product_id}", &item, "", two).await.0, 200);
    let (other, one) = (format!("{cart}/items/2"), Some(json!({ "quantity": 1 })));
    assert_eq!(send("PUT /carts/{id}/items/{product_id}", &other, "", one).await.0, 200);
    assert_eq!(
        send("DELETE /carts/{id}/items/{product_id}", &other, "", None).await.0,
        200
    );
    assert_eq!(send("GET /carts/{id}", &cart, "", None).await.0, 200);
    let (path, buyer) = (format!("{cart}/checkout"), json!({ "user_id": 7, "hold_seconds": 60 }));
    let (status, order) = send("POST /carts/{id}/checkout", &path, "", Some(buyer)).await;
    assert_eq!(status, 201);

    let order = format!("/orders/{}", order["order_id"].as_str().expect("an id"));
    let (path, all) = (
        format!("{order}/refunds"),
        json!({ "amount": 200, "reason": "returned" }),
    );
    let refund = "POST /orders/{id}/refunds";
    assert_eq!(send(refund, &path, "early", Some(all.clone())).await.0, 409);
    assert_eq!(
        send("POST /orders/{id}/pay", &format!("{order}/pay"), "", None).await.0,
        200
    );
    assert_eq!(
        send("POST /orders/{id}/cancel", &format!("{order}/cancel"), "", None)
            .await
            .0,
        409
    );
    assert_eq!(send(refund, &path, "first", Some(all.clone())).await.0, 201);
    assert_eq!(send(refund, &path, "too-much", Some(all)).await.0, 409);
    assert_eq!(send("GET /orders/{id}/refunds", &path, "", None).await.0, 200);

    // An order that is cancelled, and stock that is changed.
    let body = json!({ "user_id": 7, "hold_seconds": 60, "items": [{ "product_id": 1, "quantity": 1 }] });
    let (_, order) = send("POST /orders", "/orders", "", Some(body)).await;
    let cancel = format!("/orders/{}/cancel", order["order_id"].as_str().expect("an id"));
    assert_eq!(send("POST /orders/{id}/cancel", &cancel, "", None).await.0, 200);
    let line = |expected: i64| {
        let line = json!({ "product_id": 1, "set_to": 40, "expected_stock": expected, "reason": "counted" });
        Some(json!([line]))
    };
    assert_eq!(send("POST /stock-changes", "/stock-changes", "", line(48)).await.0, 200);
    assert_eq!(send("POST /stock-changes", "/stock-changes", "", line(48)).await.0, 409);
    let movements = send("GET /products/{id}/movements", "/products/1/movements", "", None).await;
    assert_eq!(movements.0, 200);
}

/// What a server answers before it looks at the operation.
#[tokio::test(flavor = "multi_thread")]
async fn what_any_operation_can_be_answered_is_in_the_document_and_has_its_own_label() {
    let shop = Shop::serve(&Backend::embedded());
    let checker = Checker {
        document: document(),
        client: shop.client(),
    };
    let http = reqwest::Client::builder()
        .redirect(Policy::none())
        .build()
        .expect("a client");

    let metrics = shop.management();
    for (operation, path) in [
        ("GET /products", "/products"),
        (
            "POST /orders/{id}/refunds",
            "/orders/01900000-0000-7000-8000-000000000000/refunds",
        ),
        ("GET /readyz", "/readyz"),
    ] {
        let method: Method = operation
            .split(' ')
            .next()
            .and_then(|it| it.parse().ok())
            .expect("a method");
        let send = async |path: &str, header: (&'static str, &'static str)| {
            let request = http.request(method.clone(), checker.client.url(path)).body("{}");
            let answer = Answer::of(request.header(header.0, header.1)).await;
            checker.check(operation, &answer);
            answer
        };

        let moved = send(&format!("{path}/"), ("X", "y")).await;
        assert_eq!((moved.status, moved.header("location")), (308, Some(path)));
        send(path, ("Expect", "gold")).await.problem(417, "expectation-failed");
        send(path, ("Transfer-Encoding", "gzip, chunked"))
            .await
            .problem(501, "not-implemented");
    }
    let counted = metrics.get("/metrics").await.body.to_string();
    for status in ["308", "417", "501"] {
        assert!(
            counted.contains(&format!("status=\\\"{status}\\\"")),
            "{status}: {counted}"
        );
    }
}
