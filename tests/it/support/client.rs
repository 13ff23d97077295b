//! A customer of the shop.

use reqwest::{Method, RequestBuilder, header::HeaderMap};
use serde_json::{Value, json};

use super::MAX_WAIT;

#[derive(Clone)]
pub struct Client {
    base: String,
    http: reqwest::Client,
}

#[derive(Clone, Debug)]
pub struct Answer {
    pub status: u16,
    pub headers: HeaderMap,
    pub body: Value,
}

impl Client {
    pub fn new(address: &str) -> Self {
        // The features of the program's own `reqwest` leave out a default provider, so the client needs one, although nothing
        // is encrypted here.
        let _ = rustls::crypto::ring::default_provider().install_default();
        Self {
            base: format!("http://{address}"),
            http: reqwest::Client::builder().timeout(MAX_WAIT).build().expect("a client"),
        }
    }

    pub fn request(&self, method: Method, path: &str) -> RequestBuilder {
        self.http.request(method, self.url(path))
    }

    pub fn url(&self, path: &str) -> String {
        format!("{}{path}", self.base)
    }

    pub async fn get(&self, path: &str) -> Answer {
        Answer::of(self.request(Method::GET, path)).await
    }

    pub async fn post(&self, path: &str, body: &Value) -> Answer {
        Answer::of(self.request(Method::POST, path).json(body)).await
    }

    /// Posts with an `Idempotency-Key`.
    pub async fn post_with_key(&self, path: &str, key: &str, body: &Value) -> Answer {
        let request = self.request(Method::POST, path).header("Idempotency-Key", key);
        Answer::of(request.json(body)).await
    }

    /// Creates an order of `(product, quantity)` lines and returns its id.
    pub async fn order(&self, lines: &[(i64, i64)]) -> String {
        let items: Vec<Value> = lines
            .iter()
            .map(|(product, quantity)| json!({ "product_id": product, "quantity": quantity }))
            .collect();
        let answer = self.post("/orders", &json!({ "user_id": 7, "items": items })).await;
        assert_eq!(answer.status, 201, "{answer:?}");
        answer.body["order_id"].as_str().expect("an id").to_owned()
    }

    /// Asks for an order whose units are set aside.
    pub async fn hold(&self, lines: &[(i64, i64)], seconds: u32) -> Answer {
        let line = |(product, quantity): &(i64, i64)| json!({ "product_id": product, "quantity": quantity });
        let items: Vec<Value> = lines.iter().map(line).collect();
        let order = json!({ "user_id": 7, "items": items, "hold_seconds": seconds });
        self.post("/orders", &order).await
    }

    /// Sets units aside and returns the order's id.
    pub async fn held_order(&self, lines: &[(i64, i64)]) -> String {
        let answer = self.hold(lines, 600).await;
        assert_eq!(answer.status, 201, "{answer:?}");
        answer.body["order_id"].as_str().expect("an id").to_owned()
    }

    pub async fn cancel(&self, order: &str) -> Answer {
        Answer::of(self.request(Method::POST, &format!("/orders/{order}/cancel"))).await
    }

    pub async fn pay(&self, order: &str) -> Answer {
        Answer::of(self.request(Method::POST, &format!("/orders/{order}/pay"))).await
    }

    /// The order once it is PAID or FAILED.
    pub async fn settled(&self, order: &str) -> Value {
        let path = format!("/orders/{order}");
        super::eventually(&format!("order {order} is settled"), || async {
            let answer = super::unless_busy(|| self.get(&path)).await;
            assert_eq!(answer.status, 200, "{answer:?}");
            (answer.body["status"] != "PENDING").then_some(answer.body)
        })
        .await
    }
}

impl Answer {
    pub async fn of(request: RequestBuilder) -> Self {
        Self::if_any(request).await.expect("the server answers")
    }

    /// The answer, unless the server dies before it is whole.
    pub async fn if_any(request: RequestBuilder) -> Result<Self, reqwest::Error> {
        let response = request.send().await?;
        let (status, headers) = (response.status().as_u16(), response.headers().clone());
        let text = response.text().await?;
        let body = serde_json::from_str(&text).unwrap_or(Value::String(text));
        Ok(Self { status, headers, body })
    }

    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).map(|value| value.to_str().expect("ASCII"))
    }

    /// Asserts that it is a problem document of this kind, and returns the pointers of its errors.
    pub fn problem(&self, status: u16, slug: &str) -> Vec<String> {
        assert_eq!(self.status, status, "{self:?}");
        assert_eq!(
            self.header("content-type"),
            Some("application/problem+json"),
            "{self:?}"
        );
        assert_eq!(self.body["type"], format!("urn:shop:problem:{slug}"), "{self:?}");
        assert_eq!(self.body["status"], status, "{self:?}");
        for field in ["title", "detail", "instance"] {
            assert!(
                self.body[field].as_str().is_some_and(|text| !text.is_empty()),
                "{field}: {self:?}"
            );
        }
        let errors = self.body["errors"].as_array().cloned().unwrap_or_default();
        let pointer = |error: &Value| error["pointer"].as_str().expect("a pointer").to_owned();
        errors.iter().map(pointer).collect()
    }
}
