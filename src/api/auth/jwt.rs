//! Who is calling: bearer tokens (RFC 6750) that are JSON Web Tokens (RFC 7519, RFC 8725). A configuration has one key
//! and one algorithm; a token whose header names another algorithm is refused.

use std::{
    fs,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use jsonwebtoken::{Algorithm, DecodingKey, EncodingKey, Header, Validation, decode, encode};
use poem::{Request, http::header::AUTHORIZATION};
use serde::{Deserialize, Deserializer, Serialize, de::Error as _};

use crate::{
    config::{AuthMode, Config, ConfigError},
    domain::{Caller, UserId},
    entities::Timestamp,
    http::{
        jws,
        problem::{Problem, types::UNAUTHORIZED},
        strict_json::StrictJson,
    },
};

/// The scope that allows catalogue changes and every order.
pub const ADMIN: &str = "shop:admin";
/// The largest token that is decoded, in bytes.
const MAX_TOKEN: usize = 8 * 1024;
/// How far the clock of whoever issues tokens may be ahead, in seconds. A token that has expired has expired: its issuer
/// chose how long it lives.
const LEEWAY: f64 = 10.0;
/// A request without a token is answered by this `WWW-Authenticate` (RFC 6750, section 3).
const CHALLENGE: &str = "Bearer realm=\"shop\"";
/// One with a token that does not hold, by this.
const CHALLENGE_INVALID: &str = "Bearer realm=\"shop\", error=\"invalid_token\"";

/// Finds out who sends a request.
pub enum Authenticator {
    /// Everybody is trusted.
    Trusting,
    Tokens(Box<Tokens>),
}

pub struct Tokens {
    key: DecodingKey,
    validation: Validation,
}

/// Who sent a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Identity {
    pub user_id: Option<UserId>,
    pub caller: Caller,
}

/// The claims of a token that the library does not check. Times are in seconds since the Unix epoch, with a fraction (RFC
/// 7519, section 2).
#[derive(Debug, Deserialize)]
struct Claims {
    sub: String,
    exp: f64,
    #[serde(default, deserialize_with = "number")]
    nbf: Option<f64>,
    #[serde(default, deserialize_with = "number")]
    iat: Option<f64>,
    #[serde(default)]
    scope: String,
    /// A single issuer: the library would take any of several.
    #[serde(default, rename = "iss")]
    _iss: Option<String>,
}

/// A claim that is there is a number.
fn number<'de, D: Deserializer<'de>>(value: D) -> Result<Option<f64>, D::Error> {
    f64::deserialize(value).map(Some)
}

/// Claims of which none comes twice (RFC 7519, section 4).
struct UniqueClaims(Claims);

impl<'de> Deserialize<'de> for UniqueClaims {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let json = StrictJson::deserialize(deserializer)?;
        if !json.repeated.is_empty() {
            return Err(D::Error::custom("a claim comes twice"));
        }
        serde_json::from_value(json.value).map(Self).map_err(D::Error::custom)
    }
}

/// The claims of a token for trying things out.
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
            return Ok(Self::Trusting);
        }
        jws::install();

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
            Self::Trusting => Ok(Identity {
                user_id: None,
                caller: Caller::Admin,
            }),
            Self::Tokens(tokens) => tokens.identify(request),
        }
    }
}

impl Tokens {
    fn identify(&self, request: &Request) -> Result<Identity, Problem> {
        let encoded = bearer(request)?;

        let token = decode::<UniqueClaims>(encoded, &self.key, &self.validation).map_err(|_| not_valid())?;
        let UniqueClaims(claims) = token.claims;
        // A token with `crit` asks for an extension that is not understood here (RFC 7515, section 4.1.11).
        if token.header.crit.is_some() || !has_unique_header(encoded) || !claims.are_current(now()) {
            return Err(not_valid());
        }

        let user_id: Option<UserId> = claims.sub.parse().ok();
        let user_id = user_id.filter(|id| *id >= 1 && id.to_string() == claims.sub);
        let user_id = user_id.ok_or_else(|| invalid_token("the token's `sub` is not a user id"))?;

        let admin = claims.scope.split(' ').any(|scope| scope == ADMIN);
        Ok(Identity {
            user_id: Some(user_id),
            caller: if admin { Caller::Admin } else { Caller::User(user_id) },
        })
    }
}

impl Claims {
    /// A token is valid before `exp`, not at `exp`. One from the future is as doubtful as one that is not valid yet.
    fn are_current(&self, now: f64) -> bool {
        let has_come = |time: Option<f64>| time.is_none_or(|time| time <= now + LEEWAY);
        now < self.exp && has_come(self.nbf) && has_come(self.iat)
    }
}

/// Whether no name comes twice in the header of a token (RFC 7515, section 4). The library passes over some that do.
fn has_unique_header(token: &str) -> bool {
    let header = token.split('.').next().and_then(base64url);
    let header = header.and_then(|header| StrictJson::parse(&header).ok());
    header.is_some_and(|header| header.repeated.is_empty())
}

/// RFC 4648, section 5, without padding.
fn base64url(text: &str) -> Option<Vec<u8>> {
    let mut decoded = Vec::with_capacity(text.len());
    let (mut bits, mut count) = (0_u16, 0);

    for letter in text.bytes() {
        let value = match letter {
            b'A'..=b'Z' => letter - b'A',
            b'a'..=b'z' => letter - b'a' + 26,
            b'0'..=b'9' => letter - b'0' + 52,
            b'-' => 62,
            b'_' => 63,
            _ => return None,
        };
        bits = bits << 6 | u16::from(value);
        count += 6;
        if count >= 8 {
            count -= 8;
            let [_, byte] = (bits >> count).to_be_bytes();
            decoded.push(byte);
        }
    }
    Some(decoded)
}

/// The token of the one `Authorization: Bearer`; the case of `Bearer` does not matter (RFC 9110, section 11.1).
fn bearer(request: &Request) -> Result<&str, Problem> {
    let mut values = request.headers().get_all(AUTHORIZATION).iter();
    let (Some(value), None) = (values.next(), values.next()) else {
        let detail = "send one header `Authorization: Bearer` with a token";
        return Err(Problem::new(UNAUTHORIZED, detail).with_challenge(CHALLENGE));
    };

    let value = value.to_str().ok().and_then(|value| value.split_once(' '));
    let token = value.filter(|(scheme, _)| scheme.eq_ignore_ascii_case("bearer"));
    let token = token.map(|(_, token)| token.trim());
    token
        .filter(|token| (1..=MAX_TOKEN).contains(&token.len()))
        .ok_or_else(|| invalid_token("send `Authorization: Bearer` with a token"))
}

fn not_valid() -> Problem {
    invalid_token("the token is not valid, not for this shop, or has expired")
}

fn invalid_token(detail: &str) -> Problem {
    Problem::new(UNAUTHORIZED, detail).with_challenge(CHALLENGE_INVALID)
}

/// A point of the curve P-256, uncompressed (SEC 1, section 2.3.3), in bytes: those of other curves are longer.
const P256_LENGTH: usize = 65;
/// The modulus of 2048 bits that RFC 7518, section 3.3, asks for at least, in bytes; a key is somewhat longer.
const MIN_RSA_LENGTH: usize = 256;

/// The kind of key decides the algorithm.
fn public_key(config: &Config) -> Result<(DecodingKey, Algorithm), ConfigError> {
    let file = &config.auth.jwt_public_key_file;
    let invalid = |problem: String| config.invalid("jwt_public_key_file", problem);

    let pem = fs::read(file).map_err(|error| invalid(format!("cannot be read: {file}: {error}")))?;
    let is_private = String::from_utf8_lossy(&pem).contains("PRIVATE KEY");
    let rsa = DecodingKey::from_rsa_pem(&pem).map(|key| (key, Algorithm::RS256, MIN_RSA_LENGTH..=usize::MAX));
    let ec = || DecodingKey::from_ec_pem(&pem).map(|key| (key, Algorithm::ES256, P256_LENGTH..=P256_LENGTH));
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
        invalid(format!("{file} does not hold {wanted} in PEM form"))
    })
}

/// In seconds since the Unix epoch, by the clock of this machine: who issues tokens knows nothing of the database's, and a
/// token is checked also while the database is away.
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
                       SHOP_JWT_PUBLIC_KEY_FILE they are minted by whoever has the private key";
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

    jws::install();
    let key = EncodingKey::from_secret(config.auth.jwt_secret.as_bytes());
    encode(&Header::new(Algorithm::HS256), &claims, &key)
        .map_err(|error| config.invalid("jwt_secret", format_args!("cannot sign: {error}")))
}
