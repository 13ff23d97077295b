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

use crate::{
    config::{AuthMode, Config, ConfigError},
    domain::{Caller, UserId},
    entities::Timestamp,
    http::problem::{Kind, Problem},
};

/// The scope that allows catalogue changes and every order.
pub const ADMIN: &str = "shop:admin";
/// The largest token that is looked at, in bytes.
const MAX_TOKEN: usize = 8 * 1024;

/// Tells who sends a request.
pub enum Authenticator {
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

/// What a token says, as far as the library does not look at it.
#[derive(Debug, Deserialize)]
struct Claims {
    sub: String,
    /// Seconds since the Unix epoch, and parts of them (RFC 7519, section 2).
    exp: f64,
    #[serde(default)]
    scope: String,
    /// One, where the library would take any of several.
    #[serde(default, rename = "iss")]
    _iss: Option<String>,
}

#[derive(Debug, Serialize)]
struct Minted<'a> {
    sub: String,
    exp: u64,
    scope: &'a str,
    iat: u64,
    #[serde(skip_serializing_if = "str::is_empty")]
    aud: &'a str,
    #[serde(skip_serializing_if = "str::is_empty")]
    iss: &'a str,
}

impl Authenticator {
    /// # Errors
    /// When the key cannot be used, naming the configuration's key and never its value.
    pub fn new(config: &Config) -> Result<Self, ConfigError> {
        if config.auth.mode == AuthMode::None {
            return Ok(Self::Open);
        }
        let (key, algorithm) = if config.auth.jwt_public_key_file.is_empty() {
            (
                DecodingKey::from_secret(config.auth.jwt_secret.as_bytes()),
                Algorithm::HS256,
            )
        } else {
            public_key(config)?
        };
        let mut validation = Validation::new(algorithm);
        validation.leeway = 0;
        validation.validate_nbf = true;
        let mut required = vec!["exp", "sub"];
        if config.auth.jwt_audience.is_empty() {
            validation.validate_aud = false;
        } else {
            validation.set_audience(&[&config.auth.jwt_audience]);
            required.push("aud");
        }
        if !config.auth.jwt_issuer.is_empty() {
            validation.set_issuer(&[&config.auth.jwt_issuer]);
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
                caller: Caller::Admin,
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
        let token =
            bearer(value).ok_or_else(|| unauthorized("send `Authorization: Bearer` with a token").invalid_token())?;
        let refused = || unauthorized("the token is not valid, not for this shop, or has expired").invalid_token();
        let token = decode::<Claims>(token, &self.key, &self.validation).map_err(|_| refused())?;
        let claims = token.claims;
        // What must be understood is not (RFC 7515, section 4.1.11); and it holds until `exp`, not with it.
        if token.header.crit.is_some() || claims.exp <= now() {
            return Err(refused());
        }
        let user_id = claims.sub.parse().ok();
        let user_id = user_id.filter(|user_id: &UserId| *user_id >= 1 && user_id.to_string() == claims.sub);
        let user_id: UserId =
            user_id.ok_or_else(|| unauthorized("the token's `sub` is not a user id").invalid_token())?;
        let admin = claims.scope.split(' ').any(|scope| scope == ADMIN);
        Ok(Identity {
            user_id: Some(user_id),
            caller: if admin { Caller::Admin } else { Caller::User(user_id) },
        })
    }
}

/// The token after `Bearer`, whose case does not matter (RFC 9110, section 11.1).
fn bearer(value: &HeaderValue) -> Option<&str> {
    let (scheme, token) = value.to_str().ok()?.split_once(' ')?;
    let token = token.trim();
    (scheme.eq_ignore_ascii_case("bearer") && (1..=MAX_TOKEN).contains(&token.len())).then_some(token)
}

/// A point of the curve P-256, uncompressed (SEC 1, section 2.3.3), in bytes: those of other curves are longer.
const P256: usize = 65;
/// The modulus of 2048 bits that RFC 7518, section 3.3, asks for at least, in bytes; a key is somewhat longer.
const LEAST_RSA: usize = 256;

/// The kind of key decides the algorithm.
fn public_key(config: &Config) -> Result<(DecodingKey, Algorithm), ConfigError> {
    let file = &config.auth.jwt_public_key_file;
    let bad = |problem: String| config.invalid("jwt_public_key_file", problem);
    let pem = fs::read(file).map_err(|error| bad(format!("cannot be read: {file}: {error}")))?;
    let is_private = String::from_utf8_lossy(&pem).contains("PRIVATE KEY");
    let rsa = DecodingKey::from_rsa_pem(&pem).map(|key| (key, Algorithm::RS256, LEAST_RSA..=usize::MAX));
    let ec = || DecodingKey::from_ec_pem(&pem).map(|key| (key, Algorithm::ES256, P256..=P256));
    let ed = || DecodingKey::from_ed_pem(&pem).map(|key| (key, Algorithm::EdDSA, 0..=usize::MAX));
    let key = rsa
        .or_else(|_| ec())
        .or_else(|_| ed())
        .ok()
        .filter(|(key, _, lengths)| {
            let length = key.try_get_as_bytes().map_or(0, <[u8]>::len);
            !is_private && lengths.contains(&length)
        });
    key.map(|(key, algorithm, _)| (key, algorithm)).ok_or_else(|| {
        let wanted = "an RSA (2048 bits or more), P-256 or Ed25519 public key (-----BEGIN PUBLIC KEY-----)";
        bad(format!("{file} does not hold {wanted} in PEM form"))
    })
}

/// In seconds since the Unix epoch.
fn now() -> f64 {
    Timestamp::now().to_seconds()
}

/// A token for trying the API out, signed with the configured secret.
///
/// # Errors
/// When there is no secret to sign with.
pub fn mint(config: &Config, user_id: UserId, admin: bool, ttl: Duration) -> Result<String, ConfigError> {
    if config.auth.mode == AuthMode::None || config.auth.jwt_secret.is_empty() {
        let problem = "is not set: tokens are minted with SHOP_AUTH=jwt and SHOP_JWT_SECRET; with \
                       SHOP_JWT_PUBLIC_KEY_FILE whoever holds the private key mints them";
        return Err(config.invalid("jwt_secret", problem));
    }
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let claims = Minted {
        sub: user_id.to_string(),
        exp: now.saturating_add(ttl).as_secs(),
        scope: if admin { ADMIN } else { "" },
        iat: now.as_secs(),
        aud: &config.auth.jwt_audience,
        iss: &config.auth.jwt_issuer,
    };
    let key = EncodingKey::from_secret(config.auth.jwt_secret.as_bytes());
    encode(&Header::new(Algorithm::HS256), &claims, &key)
        .map_err(|error| config.invalid("jwt_secret", format_args!("cannot sign: {error}")))
}
