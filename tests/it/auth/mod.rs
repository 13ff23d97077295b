//! Who may do what: tokens, ownership, and limits.

mod carts;
mod limits;
mod permissions;
mod signer;
mod tokens;

use std::time::{SystemTime, UNIX_EPOCH};

use jsonwebtoken::{Algorithm, EncodingKey, Header, encode};
use reqwest::Method;
use serde_json::{Value, json};

use crate::support::{Answer, Client};

const SECRET: &str = "0123456789 is not much of a secret";
pub const JWT: [(&str, &str); 2] = [("SHOP_AUTH", "jwt"), ("SHOP_JWT_SECRET", SECRET)];

fn in_seconds(seconds: i64) -> i64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970");
    i64::try_from(now.as_secs()).expect("before 2262") + seconds
}

fn sign(algorithm: Algorithm, key: &EncodingKey, claims: &Value) -> String {
    signer::install();
    encode(&Header::new(algorithm), claims, key).expect("signed")
}

fn hs256(claims: &Value) -> String {
    sign(Algorithm::HS256, &EncodingKey::from_secret(SECRET.as_bytes()), claims)
}

pub fn user(id: i64) -> String {
    hs256(&json!({ "sub": id.to_string(), "exp": in_seconds(600) }))
}

pub fn admin() -> String {
    hs256(&json!({ "sub": "1", "exp": in_seconds(600), "scope": "openid shop:admin" }))
}

async fn send(client: &Client, method: Method, path: &str, token: Option<&str>, body: Option<Value>) -> Answer {
    let mut request = client.request(method, path);
    if let Some(token) = token {
        request = request.bearer_auth(token);
    }
    if let Some(body) = body {
        request = request.json(&body);
    }
    Answer::of(request).await
}

async fn get(client: &Client, path: &str, token: &str) -> Answer {
    send(client, Method::GET, path, Some(token), None).await
}
