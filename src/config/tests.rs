//! Layers, bounds, errors, and secrets that errors must not show.

use std::{collections::BTreeMap, fs, path::Path, time::Duration};

use super::*;

mod kinds;

fn load(flags: &[(&'static str, &str)], environment: &[(&str, &str)]) -> Result<Config, ConfigError> {
    load_with(None, flags, environment)
}

fn load_file(file: &Path) -> Result<Config, ConfigError> {
    load_with(Some(file), &[], &[])
}

fn load_with(
    file: Option<&Path>,
    flags: &[(&'static str, &str)],
    environment: &[(&str, &str)],
) -> Result<Config, ConfigError> {
    let owned = |(name, value): &(&str, &str)| ((*name).to_owned(), (*value).to_owned());
    let overrides = Overrides {
        file: file.map(Path::to_owned),
        flags: flags.iter().map(|(key, value)| (*key, (*value).to_owned())).collect(),
    };
    Config::from_layers(DEFAULTS, &overrides, environment.iter().map(owned).collect())
}

fn error(flags: &[(&'static str, &str)], environment: &[(&str, &str)]) -> String {
    load(flags, environment).expect_err("it is refused").to_string()
}

#[test]
fn the_defaults_are_complete_and_valid() {
    let config = load(&[], &[]).expect("the defaults load");
    assert_eq!(config.database.url, "sqlite://shop.db?mode=rwc");
    assert_eq!(config.database.wait, Duration::from_secs(30));
    assert_eq!(
        config.management_bind(8082).ok(),
        Some(Bind::At(([127, 0, 0, 1], 8082).into()))
    );
}

#[test]
fn a_flag_beats_the_environment_which_beats_the_file_which_beats_the_defaults() {
    let folder = tempfile::tempdir().expect("a temporary folder can be made");
    let file = folder.path().join("shop.toml");
    fs::write(
        &file,
        "bind = \"127.0.0.1:3\"\ncurrency = \"CHF\"\nbatch_max = 5\nmax_waiting = 6",
    )
    .expect("the folder is ours");
    let environment = [
        ("SHOP_BIND", "127.0.0.1:1"),
        ("SHOP_CURRENCY", "EUR"),
        ("SHOP_BATCH_MAX", "7"),
    ];

    let config = load_with(Some(&file), &[("bind", "127.0.0.1:2")], &environment).expect("valid");

    assert_eq!(config.server.bind, "127.0.0.1:2");
    assert_eq!((config.catalog.currency.as_str(), config.batch.max), ("EUR", 7));
    assert_eq!((config.limits.max_waiting, config.batch.queued), (6, 4_000));
}

#[test]
fn the_file_of_the_image_is_valid() {
    let file = concat!(env!("CARGO_MANIFEST_DIR"), "/config/docker.toml");
    load_file(Path::new(file)).expect("valid");
}

#[test]
fn every_error_names_the_variable_and_the_key_and_no_secret() {
    let cases: [(&str, &str, &str); 13] = [
        ("SHOP_DATABASE_URL", "mysql://root:hunter2@db/shop", "`database_url`"),
        ("SHOP_BATCH_MAX", "many hunter2", "`batch_max`"),
        ("SHOP_BATCH_MAX", "0", "`batch_max`"),
        ("SHOP_BATCH_MAX", "-1", "`batch_max`"),
        ("SHOP_DATABASE_STATEMENT_CACHE", "0", "`database_statement_cache`"),
        ("SHOP_CURRENCY", "dollars", "`currency`"),
        ("SHOP_LOG_FORMAT", "xml", "`log_format`"),
        ("SHOP_AUTH", "basic", "`auth`"),
        ("SHOP_LOG", "shop=loud=very", "`log`"),
        ("SHOP_LOG", "verbose", "`log`"),
        ("SHOP_ALLOW_ANONYMOUS", "hunter2", "`allow_anonymous`"),
        ("SHOP_CORS_ORIGINS", "https://a.example, *", "`cors_origins`"),
        ("SHOP_QUEUE_PREFIX", "a b", "`queue_prefix`"),
    ];

    for (variable, value, key) in cases {
        let error = error(&[], &[(variable, value)]);
        assert!(error.contains(variable), "{error} does not name {variable}");
        assert!(error.contains(key), "{error} does not name {key}");
        assert!(!error.contains("hunter2"), "{error} shows a secret");
    }

    assert!(error(&[], &[("SHOP_AUTH", "jwt")]).contains("`jwt_secret`"));
}

#[test]
fn a_value_out_of_bounds_is_answered_with_its_place_and_its_bounds() {
    assert_eq!(
        error(&[], &[("SHOP_BATCH_MAX", "0")]),
        "configuration: SHOP_BATCH_MAX (`batch_max`) is 0, but must be a whole number from 1 to 5000"
    );
    assert_eq!(
        error(&[("currency", "euro")], &[]),
        "configuration: --currency (`currency`) must be three capital letters, as in ISO 4217 (USD)"
    );

    let nowhere = load(&[("management_bind", "nowhere")], &[]).expect("resolved later");
    let error = nowhere.management_bind(8081).expect_err("it is refused").to_string();
    assert!(error.contains("--management-bind (`management_bind`) is"), "{error}");
}

/// A typing error in a variable is answered by the variable that it probably stands for.
#[test]
fn an_unknown_variable_is_answered_with_the_nearest_one() {
    assert_eq!(
        error(&[], &[("SHOP_DATABSE_URL", "postgres://u:hunter2@h/d")]),
        "configuration: SHOP_DATABSE_URL is not a setting; did you mean SHOP_DATABASE_URL?"
    );
    assert_eq!(
        error(&[], &[("SHOP_XYLOPHONE", "hunter2")]),
        "configuration: SHOP_XYLOPHONE is not a setting: config/default.toml lists all of them"
    );

    for (mistyped, meant) in [
        ("SHOP_DATABASEURL", "SHOP_DATABASE_URL"),
        ("SHOP_DATABASE_UR", "SHOP_DATABASE_URL"),
        ("SHOP_QUEUE_RUL", "SHOP_QUEUE_URL"),
        ("SHOP_BNID", "SHOP_BIND"),
        ("SHOP_MANAGMENT_BIND", "SHOP_MANAGEMENT_BIND"),
        ("SHOP_LOGFORMAT", "SHOP_LOG_FORMAT"),
        ("SHOP_RATE_LIMIT", "SHOP_RATE_LIMIT_PER_SECOND"),
        ("SHOP_CACHE_TTL", "SHOP_CACHE_TTL_SECONDS"),
        ("SHOP_CATALOG_PUBLIC", "SHOP_CATALOGUE_PUBLIC"),
        ("SHOP_JWT_SECRETS", "SHOP_JWT_SECRET"),
        ("SHOP_BATCHMAX", "SHOP_BATCH_MAX"),
    ] {
        let error = error(&[], &[(mistyped, "x")]);
        assert!(
            error.contains(&format!("{mistyped} is not a setting; did you mean {meant}?")),
            "{error}"
        );
    }
}

#[test]
fn an_error_in_the_file_names_the_file_the_line_and_no_secret() {
    let folder = tempfile::tempdir().expect("a temporary folder can be made");
    let file = folder.path().join("shop.toml");
    for (text, place, expected) in [
        ("currency = \"EUR\"\njwt_secret = \"hunter2", "line 2", ""),
        ("jwt_secret = hunter2", "line 1", ""),
        ("jwt_secret = \"hunter2\"\njwt_secret = \"hunter3\"", "line 2", ""),
        ("jwt_secret = [\"hunter2\"]", "line 1", "`jwt_secret`"),
        ("\n[jwt_secret]\nhunter2 = 1", "line 2", "`jwt_secret`"),
        ("database_pool = \"hunter2\"", "line 1", "`database_pool`"),
        (
            "\n\ndatabase_pool = 1001",
            "line 3",
            "`database_pool` is 1001, but must",
        ),
        ("cache_url = \"http://hunter2\"", "line 1", "`cache_url`"),
        (
            "jwt_secrets = \"hunter2\"",
            "line 1",
            "`jwt_secrets` is not a setting; did you mean `jwt_secret`?",
        ),
        (
            "[database]\nurl = \"postgres://u:hunter2@h/d\"",
            "line 1",
            "`database` is not a setting",
        ),
    ] {
        fs::write(&file, text).expect("the folder is ours");
        let error = load_file(&file).expect_err(text).to_string();
        let place = format!("{}, {place}: ", file.display());
        assert!(error.contains(&place), "{error} does not name {place}");
        assert!(error.contains(expected), "{error} does not say {expected}");
        assert_eq!(error.lines().count(), 1, "{error}");
        assert!(!error.contains("hunter"), "{error} shows a secret");
    }

    let missing = load_file(&folder.path().join("missing.toml")).expect_err("it does not exist");
    assert!(missing.to_string().contains("missing.toml"), "{missing}");
}

/// Read as a number, such a secret would be another one.
#[test]
fn a_value_of_digits_stays_as_it_was_written() {
    let secret = "01234567890123456789012345678901";
    let config = load(&[], &[("SHOP_AUTH", "jwt"), ("SHOP_JWT_SECRET", secret)]).expect("valid");
    assert_eq!(config.auth.jwt_secret, secret);

    let short = error(&[], &[("SHOP_AUTH", "jwt"), ("SHOP_JWT_SECRET", "hunter2")]);
    assert!(short.contains("SHOP_JWT_SECRET (`jwt_secret`)") && !short.contains("hunter2"));
}

#[test]
fn without_authentication_the_api_stays_on_loopback() {
    let open = load(&[("bind", "0.0.0.0:8080")], &[]).expect("valid by itself");
    let refused = open.api_bind().expect_err("others can reach it").to_string();
    assert!(refused.contains("SHOP_ALLOW_ANONYMOUS") && refused.contains("--bind"));

    let meant = load(&[("bind", "0.0.0.0:8080"), ("allow_anonymous", "true")], &[]).expect("valid");
    assert!(meant.api_bind().is_ok());
}

/// Without one of its keys the configuration cannot be read, which shows that a section reads that key.
#[test]
fn every_documented_key_is_read_by_a_section() {
    let documented: BTreeMap<String, toml::Value> = toml::from_str(DEFAULTS).expect("valid TOML");
    for key in documented.keys() {
        let without = DEFAULTS.replace(&format!("\n{key} = "), &format!("\nunread_{key} = "));
        let error = Config::from_layers(&without, &Overrides::default(), Vec::new())
            .expect_err(key)
            .to_string();
        assert!(error.contains(&format!("\"{key}\"")), "{error} does not name {key}");
    }
}

/// "1 to 1000" in the comment above a key of `config/default.toml`, or "0 or more".
#[test]
fn the_documented_bounds_are_the_bounds() {
    let mut bounded = 0;
    let mut comment = String::new();

    for line in DEFAULTS.lines() {
        if let Some(text) = line.strip_prefix('#') {
            comment.push_str(text);
        } else if let Some((key, default)) = line.split_once(" = ") {
            let is_number = default.parse::<i64>().is_ok();
            let documented = bounds(&comment);
            assert_eq!(documented.is_some(), is_number, "the bounds of {key} in: {comment}");
            if let Some((min, max)) = documented {
                let is_valid = |value: i64| {
                    let variable = format!("SHOP_{}", key.to_uppercase());
                    load(&[], &[(&variable, &value.to_string())]).is_ok()
                };
                assert!(is_valid(min) && !is_valid(min - 1), "the lower bound of {key}");
                assert!(
                    max.is_none_or(|max| is_valid(max) && !is_valid(max + 1)),
                    "the upper bound of {key}"
                );
                bounded += 1;
            }
        } else {
            comment.clear();
        }
    }

    assert_eq!(bounded, 14, "numbers with bounds");
}

/// The first bounds of a number in a comment. Bounds of a text's length do not count.
fn bounds(comment: &str) -> Option<(i64, Option<i64>)> {
    let words: Vec<&str> = comment.split([' ', ',', ';', '.', ':']).collect();
    words.windows(4).find_map(|words| match words {
        [_, _, _, "letters"] => None,
        [min, "to", max, unit] if *unit != "letters" => Some((min.parse().ok()?, Some(max.parse().ok()?))),
        [min, "or", "more", _] => Some((min.parse().ok()?, None)),
        _ => None,
    })
}
