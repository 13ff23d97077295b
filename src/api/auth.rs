//! Who is calling: bearer tokens (RFC 6750) that are JSON Web Tokens (RFC 7519, RFC 8725). One configuration knows one
//! key and one algorithm; what a token says of its own algorithm is compared with that and never obeyed.

use std::{
    fs,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use jsonwebtoken::{Algorithm, DecodingKey, EncodingKey, Header, Validation, decode, encode};
use poem::{
    Request,
    http::header::{AUTHORIZATION, HeaderValue},
};
use serde::{Deserialize, Serialize};

use super::problem::{Kind, Problem};
use crate::{
    config::{Auth, Config, ConfigError},
    domain::{Caller, UserId},
};

/// The scope that allows catalogue changes and every order.
pub const ADMIN: &str = "shop:admin";
/// The largest token that is looked at, in bytes.
const MAX_TOKEN: usize = 8 * 1024;

/// Tells who sends a request.
pub enum Gate {
    /// Everybody is trusted.
    Open,
    Tokens(Box<Tokens>),
}

pub struct Tokens {
    key: DecodingKey,
    validation: Validation,
}

/// Who sent a request, as far as the shop asks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Identity {
    pub user_id: Option<UserId>,
    pub caller: Caller,
}

#[derive(Debug, Serialize, Deserialize)]
struct Claims {
    sub: String,
    exp: u64,
    #[serde(default)]
    scope: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    iat: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none", skip_deserializing)]
    aud: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none", skip_deserializing)]
    iss: Option<String>,
}

impl Gate {
    /// # Errors
    /// When the key cannot be used, naming the configuration's key and never its value.
    pub fn new(config: &Config) -> Result<Self, ConfigError> {
        if config.auth == Auth::None {
            return Ok(Self::Open);
        }
        let (key, algorithm) = if config.jwt_public_key_file.is_empty() {
            (DecodingKey::from_secret(config.jwt_secret.as_bytes()), Algorithm::HS256)
        } else {
            public_key(&config.jwt_public_key_file)?
        };
        let mut validation = Validation::new(algorithm);
        validation.leeway = 0;
        validation.validate_nbf = true;
        let mut required = vec!["exp", "sub"];
        if config.jwt_audience.is_empty() {
            validation.validate_aud = false;
        } else {
            validation.set_audience(&[&config.jwt_audience]);
            required.push("aud");
        }
        if !config.jwt_issuer.is_empty() {
            validation.set_issuer(&[&config.jwt_issuer]);
            required.push("iss");
        }
        validation.set_required_spec_claims(&required);
        Ok(Self::Tokens(Box::new(Tokens { key, validation })))
    }

    /// # Errors
    /// 401 without a token that holds.
    pub fn identify(&self, request: &Request) -> Result<Identity, Problem> {
        match self {
            Self::Open => Ok(Identity {
                user_id: None,
                caller: Caller::Trusted,
            }),
            Self::Tokens(tokens) => tokens.identify(request),
        }
    }
}

impl Tokens {
    fn identify(&self, request: &Request) -> Result<Identity, Problem> {
        let unauthorized = |detail: &str| Problem::new(Kind::Unauthorized, detail);
        let mut values = request.headers().get_all(AUTHORIZATION).iter();
        let (Some(value), None) = (values.next(), values.next()) else {
            return Err(unauthorized("send one header `Authorization: Bearer` with a token"));
        };
        let token = bearer(value).ok_or_else(|| unauthorized("send `Authorization: Bearer` with a token"))?;
        let refused = |_| unauthorized("the token is not valid, not for this shop, or has expired");
        let claims = decode::<Claims>(token, &self.key, &self.validation)
            .map_err(refused)?
            .claims;
        let user_id = claims.sub.parse().ok().filter(|user_id| *user_id >= 1);
        let user_id: UserId = user_id.ok_or_else(|| unauthorized("the token's `sub` is not a user id"))?;
        let admin = claims.scope.split(' ').any(|scope| scope == ADMIN);
        Ok(Identity {
            user_id: Some(user_id),
            caller: if admin { Caller::Trusted } else { Caller::User(user_id) },
        })
    }
}

/// The token after `Bearer`, whose case does not matter (RFC 9110, section 11.1).
fn bearer(value: &HeaderValue) -> Option<&str> {
    let (scheme, token) = value.to_str().ok()?.split_once(' ')?;
    let token = token.trim();
    (scheme.eq_ignore_ascii_case("bearer") && (1..=MAX_TOKEN).contains(&token.len())).then_some(token)
}

/// The kind of key decides the algorithm.
fn public_key(file: &str) -> Result<(DecodingKey, Algorithm), ConfigError> {
    let bad = |problem: String| ConfigError::Value {
        key: "jwt_public_key_file",
        problem,
    };
    let pem = fs::read(file).map_err(|error| bad(format!("cannot be read: {file}: {error}")))?;
    let rsa = DecodingKey::from_rsa_pem(&pem).map(|key| (key, Algorithm::RS256));
    let ec = || DecodingKey::from_ec_pem(&pem).map(|key| (key, Algorithm::ES256));
    let ed = || DecodingKey::from_ed_pem(&pem).map(|key| (key, Algorithm::EdDSA));
    rsa.or_else(|_| ec()).or_else(|_| ed()).map_err(|_| {
        let wanted = "an RSA, P-256 or Ed25519 public key (-----BEGIN PUBLIC KEY-----)";
        bad(format!("{file} does not hold {wanted} in PEM form"))
    })
}

/// A token for trying the API out, signed with the configured secret.
///
/// # Errors
/// When there is no secret to sign with.
pub fn mint(config: &Config, user_id: UserId, admin: bool, ttl: Duration) -> Result<String, ConfigError> {
    if config.auth == Auth::None || config.jwt_secret.is_empty() {
        return Err(ConfigError::Value {
            key: "jwt_secret",
            problem: "is not set: tokens are minted with SHOP_AUTH=jwt and SHOP_JWT_SECRET; with \
                      SHOP_JWT_PUBLIC_KEY_FILE whoever holds the private key mints them"
                .to_owned(),
        });
    }
    let now = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default()
        .as_secs();
    let some = |text: &str| (!text.is_empty()).then(|| text.to_owned());
    let claims = Claims {
        sub: user_id.to_string(),
        exp: now.saturating_add(ttl.as_secs()),
        scope: if admin { ADMIN.to_owned() } else { String::new() },
        iat: Some(now),
        aud: some(&config.jwt_audience),
        iss: some(&config.jwt_issuer),
    };
    let key = EncodingKey::from_secret(config.jwt_secret.as_bytes());
    encode(&Header::new(Algorithm::HS256), &claims, &key).map_err(|error| ConfigError::Value {
        key: "jwt_secret",
        problem: format!("cannot sign: {error}"),
    })
}
