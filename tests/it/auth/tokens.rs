//! Tokens and keys: which are accepted, and which are not.

use std::{
    fs,
    time::{SystemTime, UNIX_EPOCH},
};

use jsonwebtoken::{Algorithm, EncodingKey, Header, crypto, encode};
use reqwest::Method;
use rstest::rstest;
use serde_json::{Value, json};

use super::{JWT, SECRET, get, hs256, in_seconds, send, sign, signer};
use crate::support::{Answer, Backend, Shop, eventually, run_to_end};

/// Keys for these tests alone.
const RSA_PUBLIC: &str = include_str!("../keys/rsa.pub.pem");
const RSA_PRIVATE: &str = include_str!("../keys/rsa.pem");
const EC_PUBLIC: &str = include_str!("../keys/ec.pub.pem");
const EC_PRIVATE: &str = include_str!("../keys/ec.pem");
const ED_PUBLIC: &str = include_str!("../keys/ed.pub.pem");
const ED_PRIVATE: &str = include_str!("../keys/ed.pem");

/// The claims that the strict server below accepts.
fn valid_claims() -> Value {
    json!({
        "sub": "7", "exp": in_seconds(600), "aud": ["other", "shop"], "iss": "https://id.example", "scope": "",
    })
}

fn with(claim: &str, value: Value) -> Value {
    let mut claims = valid_claims();
    claims[claim] = value;
    claims
}

fn without(claim: &str) -> Value {
    let mut claims = valid_claims();
    claims.as_object_mut().expect("an object").remove(claim);
    claims
}

/// Tokens whose claims or form are wrong, each with the reason.
fn invalid_tokens() -> Vec<(&'static str, String)> {
    let valid = hs256(&valid_claims());
    let [_, claims, signature] = *valid.split('.').collect::<Vec<_>>() else {
        panic!("a token has three parts: {valid}");
    };
    let secret = EncodingKey::from_secret(SECRET.as_bytes());
    let other_key = EncodingKey::from_secret(b"another secret that is long enough");
    let critical = Header {
        crit: Some(vec!["b64".to_owned()]),
        ..Header::new(Algorithm::HS256)
    };
    let header = json!({ "alg": "HS256" }).to_string();
    // {"alg":"none"}, with and without a signature.
    let none = "eyJhbGciOiJub25lIn0";

    vec![
        ("expired", hs256(&with("exp", json!(in_seconds(-1))))),
        ("without exp", hs256(&without("exp"))),
        ("not valid yet", hs256(&with("nbf", json!(in_seconds(60))))),
        ("not issued yet", hs256(&with("iat", json!(in_seconds(60))))),
        ("issued at no time", hs256(&with("iat", json!("now")))),
        ("valid from no time", hs256(&with("nbf", Value::Null))),
        ("a claim twice", signed(&header, &claims_with("\"sub\":\"7\""))),
        (
            "a claim twice, spelled otherwise",
            signed(&header, &claims_with("\"s\\u0075b\":\"8\"")),
        ),
        (
            "an unknown claim twice",
            signed(&header, &claims_with("\"x\":{\"y\":1,\"y\":2}")),
        ),
        (
            "a header twice",
            signed(r#"{"alg":"HS256","alg":"HS256"}"#, &valid_claims().to_string()),
        ),
        (
            "an unknown header twice",
            signed(r#"{"x":1,"alg":"HS256","\u0078":2}"#, &valid_claims().to_string()),
        ),
        ("wrong audience", hs256(&with("aud", json!("other")))),
        ("no audience", hs256(&without("aud"))),
        ("wrong issuer", hs256(&with("iss", json!("https://evil.example")))),
        (
            "several issuers",
            hs256(&with("iss", json!(["https://id.example", "x"]))),
        ),
        ("no subject", hs256(&without("sub"))),
        ("subject is not an id", hs256(&with("sub", json!("root")))),
        ("subject is zero", hs256(&with("sub", json!("0")))),
        ("subject with a sign", hs256(&with("sub", json!("+7")))),
        ("another key", sign(Algorithm::HS256, &other_key, &valid_claims())),
        ("another algorithm", sign(Algorithm::HS512, &secret, &valid_claims())),
        (
            "an unknown critical header",
            encode(&critical, &valid_claims(), &secret).expect("signed"),
        ),
        ("no algorithm", format!("{none}.{claims}.")),
        ("no algorithm, signed", format!("{none}.{claims}.{signature}")),
        ("not a token", "let-me-in".to_owned()),
        ("too long", "a".repeat(20_000)),
    ]
}

/// Valid claims and one more, written as it is.
fn claims_with(more: &str) -> String {
    valid_claims().to_string().replacen('{', &format!("{{{more},"), 1)
}

/// A token of these texts with a signature that holds.
fn signed(header: &str, claims: &str) -> String {
    let message = format!("{}.{}", base64url(header), base64url(claims));
    let secret = EncodingKey::from_secret(SECRET.as_bytes());
    signer::install();
    let signature = crypto::sign(message.as_bytes(), &secret, Algorithm::HS256).expect("signed");
    format!("{message}.{signature}")
}

/// RFC 4648, section 5, without padding.
fn base64url(text: &str) -> String {
    const LETTERS: &[u8] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    let groups = text.as_bytes().chunks(3).map(|group| {
        let bits = [0, 1, 2].map(|index| u32::from(group.get(index).copied().unwrap_or(0)));
        let bits = bits[0] << 16 | bits[1] << 8 | bits[2];
        let letters = [18, 12, 6, 0].map(|shift| char::from(LETTERS[(bits >> shift & 63) as usize]));
        letters.into_iter().take(group.len() + 1).collect::<String>()
    });
    groups.collect()
}

#[tokio::test]
async fn an_invalid_token_is_answered_with_401() {
    let backend = Backend::embedded();
    backend.stock(&[(100, 10)]).await;
    let strict = [("SHOP_JWT_AUDIENCE", "shop"), ("SHOP_JWT_ISSUER", "https://id.example")];
    let shop = Shop::start(&backend, &["serve"], &[&JWT[..], &strict].concat());
    let client = shop.client();

    // A fraction of a second in `exp` is valid (RFC 7519, section 2).
    let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970");
    let fraction = with("exp", json!(since_epoch.as_secs_f64() + 600.5));
    // The clock of the issuer may be a little ahead.
    let ahead = ["nbf", "iat"].map(|claim| with(claim, json!(in_seconds(5))));
    for valid in [valid_claims(), fraction].iter().chain(&ahead) {
        assert_eq!(get(&client, "/products", &hs256(valid)).await.status, 200, "{valid}");
    }
    let written = signed(r#"{"alg":"HS256"}"#, &claims_with("\"x\":{\"sub\":1}"));
    assert_eq!(get(&client, "/products", &written).await.status, 200);

    for (why, token) in invalid_tokens() {
        let answer = get(&client, "/products", &token).await;
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

    // What holds no data of the shop needs no token.
    for path in ["/healthz", "/readyz", "/openapi.json", "/docs"] {
        assert_eq!(send(&client, Method::GET, path, None, None).await.status, 200, "{path}");
    }
}

#[rstest]
#[case("rsa", RSA_PUBLIC, Algorithm::RS256, EncodingKey::from_rsa_pem(RSA_PRIVATE.as_bytes()).expect("a key"))]
#[case("ec", EC_PUBLIC, Algorithm::ES256, EncodingKey::from_ec_pem(EC_PRIVATE.as_bytes()).expect("a key"))]
#[case("ed", ED_PUBLIC, Algorithm::EdDSA, EncodingKey::from_ed_pem(ED_PRIVATE.as_bytes()).expect("a key"))]
#[tokio::test]
async fn a_public_key_accepts_only_its_own_algorithm_and_is_never_taken_as_a_secret(
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

/// With such a key no token would ever be valid, or forged ones would be.
#[rstest]
#[case("a private key", RSA_PRIVATE)]
#[case("a private key", EC_PRIVATE)]
#[case("another curve", include_str!("../keys/p384.pub.pem"))]
#[case("too short", include_str!("../keys/rsa1024.pub.pem"))]
#[case("no key", "-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----\n")]
fn an_unusable_key_stops_the_start(#[case] why: &str, #[case] pem: &str) {
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

#[tokio::test]
async fn a_minted_token_is_accepted_until_it_expires() {
    let backend = Backend::embedded();
    let shop = Shop::start(&backend, &["serve"], &JWT);
    let client = shop.client();
    let mint = |arguments: &[&str], environment: &[(&str, &str)]| {
        run_to_end(&backend, &[&["token"], arguments].concat(), environment)
    };

    let token = mint(&["--user", "7", "--admin", "--ttl", "5m"], &JWT);
    let token = String::from_utf8(token.stdout).expect("text");
    assert_eq!(get(&client, "/orders?user_id=9", token.trim()).await.status, 200);

    let brief = mint(&["--user", "7", "--ttl", "1s"], &JWT);
    let brief = String::from_utf8(brief.stdout).expect("text");
    eventually("the token has expired", async || {
        let status = get(&client, "/orders", brief.trim()).await.status;
        (status == 401).then_some(())
    })
    .await;

    let refused = mint(&["--user", "7"], &[]);
    assert_eq!(refused.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&refused.stderr).contains("SHOP_JWT_SECRET"));
}
