//! Who may do what: tokens, ownership, and limits.

use std::{
    fs,
    time::{SystemTime, UNIX_EPOCH},
};

use jsonwebtoken::{Algorithm, EncodingKey, Header, encode};
use reqwest::Method;
use rstest::rstest;
use serde_json::{Value, json};

use crate::support::{Answer, Backend, Client, Shop, run_to_end};

const SECRET: &str = "0123456789 is not much of a secret";
const JWT: [(&str, &str); 2] = [("SHOP_AUTH", "jwt"), ("SHOP_JWT_SECRET", SECRET)];
/// Made for these tests alone.
const RSA_PUBLIC: &str = include_str!("keys/rsa.pub.pem");
const RSA_PRIVATE: &str = include_str!("keys/rsa.pem");
const EC_PUBLIC: &str = include_str!("keys/ec.pub.pem");
const EC_PRIVATE: &str = include_str!("keys/ec.pem");
const ED_PUBLIC: &str = include_str!("keys/ed.pub.pem");
const ED_PRIVATE: &str = include_str!("keys/ed.pem");

fn in_seconds(seconds: i64) -> i64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970");
    i64::try_from(now.as_secs()).expect("before 2262") + seconds
}

fn sign(algorithm: Algorithm, key: &EncodingKey, claims: &Value) -> String {
    encode(&Header::new(algorithm), claims, key).expect("signed")
}

fn hs256(claims: &Value) -> String {
    sign(Algorithm::HS256, &EncodingKey::from_secret(SECRET.as_bytes()), claims)
}

fn user(id: i64) -> String {
    hs256(&json!({ "sub": id.to_string(), "exp": in_seconds(600) }))
}

fn admin() -> String {
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

fn order_of(user_id: i64) -> Value {
    json!({ "user_id": user_id, "items": [{ "product_id": 1, "quantity": 1 }] })
}

#[tokio::test]
async fn a_token_that_does_not_hold_is_answered_by_401() {
    let backend = Backend::embedded();
    backend.stock(&[(100, 10)]).await;
    let strict = [("SHOP_JWT_AUDIENCE", "shop"), ("SHOP_JWT_ISSUER", "https://id.example")];
    let shop = Shop::start(&backend, &["serve"], &[&JWT[..], &strict].concat());
    let client = shop.client();
    let good = json!({
        "sub": "7", "exp": in_seconds(600), "aud": ["other", "shop"], "iss": "https://id.example", "scope": "",
    });
    let with = |key: &str, value: Value| {
        let mut claims = good.clone();
        claims[key] = value;
        claims
    };
    let without = |key: &str| {
        let mut claims = good.clone();
        claims.as_object_mut().expect("an object").remove(key);
        claims
    };
    assert_eq!(get(&client, "/products", &hs256(&good)).await.status, 200);
    let soon = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .expect("after 1970")
        .as_secs_f64()
        + 600.5;
    assert_eq!(
        get(&client, "/products", &hs256(&with("exp", json!(soon))))
            .await
            .status,
        200
    );
    let [_, claims, signature]: [String; 3] = hs256(&good)
        .split('.')
        .map(str::to_owned)
        .collect::<Vec<_>>()
        .try_into()
        .expect("three parts");
    // {"alg":"none"}, with and without a signature.
    let none = "eyJhbGciOiJub25lIn0";
    let other_key = EncodingKey::from_secret(b"another secret that is long enough");
    let refused = [
        ("expired", hs256(&with("exp", json!(in_seconds(-1))))),
        ("without exp", hs256(&without("exp"))),
        ("not valid yet", hs256(&with("nbf", json!(in_seconds(60))))),
        ("wrong audience", hs256(&with("aud", json!("other")))),
        ("no audience", hs256(&without("aud"))),
        ("wrong issuer", hs256(&with("iss", json!("https://evil.example")))),
        ("no subject", hs256(&without("sub"))),
        ("subject is no user", hs256(&with("sub", json!("root")))),
        ("subject is nobody", hs256(&with("sub", json!("0")))),
        ("another key", sign(Algorithm::HS256, &other_key, &good)),
        (
            "another algorithm",
            sign(Algorithm::HS512, &EncodingKey::from_secret(SECRET.as_bytes()), &good),
        ),
        (
            "several issuers",
            hs256(&with("iss", json!(["https://id.example", "x"]))),
        ),
        ("a subject written otherwise", hs256(&with("sub", json!("+7")))),
        ("a condition that is not understood", {
            let header = Header {
                crit: Some(vec!["b64".to_owned()]),
                ..Header::new(Algorithm::HS256)
            };
            encode(&header, &good, &EncodingKey::from_secret(SECRET.as_bytes())).expect("signed")
        }),
        ("no algorithm", format!("{none}.{claims}.")),
        ("no algorithm, signed", format!("{none}.{claims}.{signature}")),
        ("not a token", "let-me-in".to_owned()),
        ("too long", "a".repeat(20_000)),
    ];
    for (why, token) in &refused {
        let answer = get(&client, "/products", token).await;
        assert_eq!(answer.status, 401, "{why}");
        answer.problem(401, "unauthorized");
        assert!(
            answer
                .header("www-authenticate")
                .is_some_and(|value| value.starts_with("Bearer") && value.contains("invalid_token")),
            "{why}"
        );
    }
    for path in ["/products", "/products/1", "/orders", "/nowhere"] {
        send(&client, Method::GET, path, None, None)
            .await
            .problem(401, "unauthorized");
    }
    let basic = client.request(Method::GET, "/products").basic_auth("7", Some("x"));
    Answer::of(basic).await.problem(401, "unauthorized");
    // What tells nothing of the shop's own needs no token.
    for path in ["/healthz", "/readyz", "/openapi.json", "/docs"] {
        assert_eq!(send(&client, Method::GET, path, None, None).await.status, 200, "{path}");
    }
}

#[rstest]
#[case("rsa", RSA_PUBLIC, Algorithm::RS256, EncodingKey::from_rsa_pem(RSA_PRIVATE.as_bytes()).expect("a key"))]
#[case("ec", EC_PUBLIC, Algorithm::ES256, EncodingKey::from_ec_pem(EC_PRIVATE.as_bytes()).expect("a key"))]
#[case("ed", ED_PUBLIC, Algorithm::EdDSA, EncodingKey::from_ed_pem(ED_PRIVATE.as_bytes()).expect("a key"))]
#[tokio::test]
async fn a_public_key_accepts_its_own_algorithm_and_never_itself_as_a_secret(
    #[case] name: &str,
    #[case] public: &str,
    #[case] algorithm: Algorithm,
    #[case] private: EncodingKey,
) {
    let backend = Backend::embedded();
    let file = backend.folder.join(format!("{name}.pem"));
    fs::write(&file, public).expect("written");
    let key = [
        ("SHOP_AUTH", "jwt"),
        ("SHOP_JWT_PUBLIC_KEY_FILE", file.to_str().expect("text")),
    ];
    let shop = Shop::start(&backend, &["serve"], &key);
    let client = shop.client();
    let claims = json!({ "sub": "7", "exp": in_seconds(600) });
    assert_eq!(
        get(&client, "/orders", &sign(algorithm, &private, &claims))
            .await
            .status,
        200
    );
    for secret in [public, public.trim()] {
        let confused = sign(Algorithm::HS256, &EncodingKey::from_secret(secret.as_bytes()), &claims);
        get(&client, "/orders", &confused).await.problem(401, "unauthorized");
    }
}

/// Nothing would ever hold against such a key, or too much.
#[rstest]
#[case("a private key", RSA_PRIVATE)]
#[case("a private key", EC_PRIVATE)]
#[case("another curve", include_str!("keys/p384.pub.pem"))]
#[case("too short", include_str!("keys/rsa1024.pub.pem"))]
#[case("no key", "-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----\n")]
fn a_key_that_is_no_good_stops_the_start(#[case] why: &str, #[case] pem: &str) {
    let backend = Backend::embedded();
    let file = backend.folder.join("key.pem");
    fs::write(&file, pem).expect("written");
    let key = [
        ("SHOP_AUTH", "jwt"),
        ("SHOP_JWT_PUBLIC_KEY_FILE", file.to_str().expect("text")),
    ];
    let output = run_to_end(&backend, &["serve"], &key);
    let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(2), "{why}: {stderr}");
    assert!(stderr.contains("jwt_public_key_file"), "{why}: {stderr}");
}

#[rstest]
#[tokio::test]
async fn somebody_elses_order_is_neither_seen_nor_changed(#[values("embedded", "servers")] backend: &str) {
    let backend = Backend::named(backend);
    backend.stock(&[(100, 10)]).await;
    let shop = Shop::start(&backend, &["serve"], &JWT);
    let _workers = Shop::workers(&backend, 1);
    let client = shop.client();
    let (own, stranger, admin) = (user(7), user(8), admin());
    let create = |token: String, user_id: i64| {
        let request = client
            .request(Method::POST, "/orders")
            .header("Idempotency-Key", "k1")
            .bearer_auth(token);
        Answer::of(request.json(&order_of(user_id)))
    };
    let made = create(own.clone(), 7).await;
    assert_eq!(made.status, 201);
    let id = made.body["order_id"].as_str().expect("an id").to_owned();
    create(stranger.clone(), 7).await.problem(403, "forbidden");
    // The same key of another user is another key.
    let theirs = create(stranger.clone(), 8).await;
    assert_eq!((theirs.status, theirs.header("idempotent-replayed")), (201, None));
    assert_ne!(theirs.body["order_id"], made.body["order_id"]);

    let unknown = "01900000-0000-7000-8000-000000000000";
    for settled in [false, true] {
        for (method, path) in [(Method::GET, ""), (Method::POST, "/pay"), (Method::GET, "/events")] {
            let answers = [&id, unknown].map(|id| {
                let path = format!("/orders/{id}{path}");
                let (client, method, token) = (&client, method.clone(), &stranger);
                async move { (send(client, method, &path, Some(token), None).await, id) }
            });
            let mut bodies = Vec::new();
            for answer in answers {
                let (answer, id) = answer.await;
                answer.problem(404, "not-found");
                bodies.push(answer.body.to_string().replace(id, "ID"));
            }
            assert_eq!(bodies[0], bodies[1], "nothing tells them apart");
        }
        let declined = json!({ "payment_method": "pm_card_declined" });
        let path = format!("/orders/{id}/pay");
        send(&client, Method::POST, &path, Some(&stranger), Some(declined))
            .await
            .problem(404, "not-found");
        if !settled {
            let order = get(&client, &format!("/orders/{id}"), &own).await;
            assert_eq!(
                (&order.body["status"], &order.body["accepted_at"]),
                (&json!("PENDING"), &Value::Null)
            );
            let waiting = client
                .request(Method::POST, &path)
                .header("Prefer", "wait=20")
                .bearer_auth(&own);
            assert_eq!(Answer::of(waiting).await.body["status"], "PAID");
            // From now on it is in the cache as well.
            assert_eq!(get(&client, &format!("/orders/{id}"), &own).await.status, 200);
        }
    }
    let ids = |answer: &Answer| -> Vec<Value> {
        let items = answer.body["items"].as_array().expect("a list");
        items.iter().map(|order| order["order_id"].clone()).collect()
    };
    assert_eq!(
        ids(&get(&client, "/orders", &own).await),
        [made.body["order_id"].clone()]
    );
    assert_eq!(
        ids(&get(&client, "/orders?user_id=8", &stranger).await),
        [theirs.body["order_id"].clone()]
    );
    get(&client, "/orders?user_id=7", &stranger)
        .await
        .problem(403, "forbidden");
    assert_eq!(ids(&get(&client, "/orders", &admin).await).len(), 2);
    assert_eq!(get(&client, &format!("/orders/{id}"), &admin).await.status, 200);
}

#[tokio::test]
async fn only_an_administrator_changes_the_catalogue() {
    let backend = Backend::embedded();
    backend.stock(&[(100, 10)]).await;
    let shop = Shop::start(
        &backend,
        &["serve"],
        &[&JWT[..], &[("SHOP_CATALOGUE_PUBLIC", "true")]].concat(),
    );
    let client = shop.client();
    let changes = [
        (
            Method::POST,
            "/products",
            json!({ "name": "Mug", "price": 1, "stock": 1 }),
            201,
        ),
        (Method::PATCH, "/products/1", json!({ "price": 200 }), 200),
        (
            Method::POST,
            "/products/1/stock",
            json!({ "delta": 5, "reason": "delivery" }),
            200,
        ),
    ];
    for (method, path, body, done) in changes {
        let send = |token: Option<String>| {
            let (client, method, body) = (&client, method.clone(), body.clone());
            async move { send(client, method, path, token.as_deref(), Some(body)).await }
        };
        send(None).await.problem(401, "unauthorized");
        send(Some(user(7))).await.problem(403, "forbidden");
        // A scope that only looks like it.
        let almost = hs256(&json!({ "sub": "7", "exp": in_seconds(600), "scope": "shop:admins xshop:admin" }));
        send(Some(almost)).await.problem(403, "forbidden");
        assert_eq!(send(Some(admin())).await.status, done);
    }
    // Made public, the catalogue is read without a token, but not with a wrong one.
    let product = client.get("/products/1").await;
    assert_eq!(
        (&product.body["price"], &product.body["stock"]),
        (&json!(200), &json!(15))
    );
    assert_eq!(client.get("/products").await.status, 200);
    get(&client, "/products", "junk").await.problem(401, "unauthorized");
    client.get("/orders").await.problem(401, "unauthorized");
}

#[tokio::test]
async fn a_minted_token_opens_the_door() {
    let backend = Backend::embedded();
    let shop = Shop::start(&backend, &["serve"], &JWT);
    let client = shop.client();
    let mint = |arguments: &[&str], environment: &[(&str, &str)]| {
        run_to_end(&backend, &[&["token"], arguments].concat(), environment)
    };
    let token = mint(&["--user", "7", "--admin", "--ttl", "5m"], &JWT);
    let token = String::from_utf8(token.stdout).expect("text");
    assert_eq!(get(&client, "/orders?user_id=9", token.trim()).await.status, 200);
    let stale = mint(&["--user", "7", "--ttl", "0s"], &JWT);
    let stale = String::from_utf8(stale.stdout).expect("text");
    tokio::time::sleep(std::time::Duration::from_millis(1_100)).await;
    assert_eq!(get(&client, "/orders", stale.trim()).await.status, 401);
    let refused = mint(&["--user", "7"], &[]);
    assert_eq!(refused.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&refused.stderr).contains("SHOP_JWT_SECRET"));
}

#[tokio::test]
async fn who_asks_too_often_is_told_to_wait_and_others_are_not() {
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
    // Nor can tokens be tried out as fast as anybody likes.
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
    // The server's own pages are of no other origin, and what is no browser's business is served as ever.
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
