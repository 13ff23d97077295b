//! Layers, faults and secrets.

use super::*;

fn load(flags: &[(&'static str, &str)], environment: &[(&str, &str)]) -> Result<Config, ConfigError> {
    let overrides = Overrides {
        file: None,
        flags: flags.iter().map(|(key, value)| (*key, (*value).to_owned())).collect(),
    };
    let source = environment
        .iter()
        .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()))
        .collect();
    Config::from_layers(&overrides, Environment::with_prefix("SHOP").source(Some(source)))
}

#[test]
fn the_defaults_are_complete_and_valid() {
    let config = load(&[], &[]).expect("the defaults load");
    assert_eq!(config.database_url, "sqlite://shop.db?mode=rwc");
    assert_eq!(
        config.management_bind(8082).ok(),
        Some(Bind::At(([127, 0, 0, 1], 8082).into()))
    );
}

#[test]
fn a_flag_beats_the_environment_and_the_environment_beats_the_defaults() {
    let environment = [
        ("SHOP_BIND", "127.0.0.1:1"),
        ("SHOP_CURRENCY", "EUR"),
        ("SHOP_BATCH_MAX", "7"),
    ];
    let config = load(&[("bind", "127.0.0.1:2")], &environment).expect("valid");
    assert_eq!(
        (config.bind.as_str(), config.currency.as_str(), config.batch_max),
        ("127.0.0.1:2", "EUR", 7)
    );
}

#[test]
fn the_file_of_the_image_is_valid() {
    let file = concat!(env!("CARGO_MANIFEST_DIR"), "/config/docker.toml");
    let overrides = Overrides {
        file: Some(file.into()),
        flags: Vec::new(),
    };
    let nothing = Environment::with_prefix("SHOP").source(Some(config::Map::new()));
    Config::from_layers(&overrides, nothing).expect("valid");
}

#[test]
fn every_fault_names_its_key_and_no_secret() {
    let faults: [(&str, &str, &str); 12] = [
        ("SHOP_DATABSE_URL", "sqlite::memory:", "databse_url"),
        ("SHOP_DATABASE_URL", "mysql://root:hunter2@db/shop", "database_url"),
        ("SHOP_BATCH_MAX", "many", "batch_max"),
        ("SHOP_BATCH_MAX", "0", "batch_max"),
        ("SHOP_DATABASE_STATEMENT_CACHE", "0", "database_statement_cache"),
        ("SHOP_CURRENCY", "dollars", "currency"),
        ("SHOP_LOG_FORMAT", "xml", "log_format"),
        ("SHOP_AUTH", "basic", "auth"),
        ("SHOP_LOG", "shop=loud=very", "log"),
        ("SHOP_AUTH", "jwt", "jwt_secret"),
        ("SHOP_CORS_ORIGINS", "https://a.example, *", "cors_origins"),
        ("SHOP_QUEUE_PREFIX", "a b", "queue_prefix"),
    ];
    for (variable, value, key) in faults {
        let error = load(&[], &[(variable, value)]).expect_err(variable).to_string();
        assert!(error.contains(key), "{error} does not name {key}");
        assert!(!error.contains("hunter2"), "{error} tells a secret");
    }
}

#[test]
fn a_fault_in_the_file_is_told_by_its_place_and_no_secret() {
    let folder = tempfile::tempdir().expect("a temporary folder can be made");
    let file = folder.path().join("shop.toml");
    let nothing = || Environment::with_prefix("SHOP").source(Some(config::Map::new()));
    for (text, told) in [
        ("currency = \"EUR\"\njwt_secret = \"hunter2", "line 2"),
        ("jwt_secret = hunter2", "line 1"),
        ("jwt_secret = \"hunter2\"\njwt_secret = \"hunter3\"", "line 2"),
        ("jwt_secret = [\"hunter2\"]", "jwt_secret"),
        ("[jwt_secret]\nhunter2 = 1", "jwt_secret"),
        ("database_pool = \"hunter2\"", "database_pool"),
        ("jwt_secrets = \"hunter2\"", "jwt_secrets"),
    ] {
        fs::write(&file, text).expect("the folder is ours");
        let overrides = Overrides {
            file: Some(file.clone()),
            flags: Vec::new(),
        };
        let error = Config::from_layers(&overrides, nothing()).expect_err(text).to_string();
        assert!(
            error.contains(told) && error.lines().count() == 1,
            "{error} does not name {told}"
        );
        assert!(!error.contains("hunter"), "{error} tells a secret");
    }
}

/// Taken for a number, such a secret would be another one.
#[test]
fn a_value_of_digits_stays_as_it_was_written() {
    let secret = "01234567890123456789012345678901";
    let config = load(&[], &[("SHOP_AUTH", "jwt"), ("SHOP_JWT_SECRET", secret)]).expect("valid");
    assert_eq!(config.jwt_secret, secret);
    let short = load(&[], &[("SHOP_AUTH", "jwt"), ("SHOP_JWT_SECRET", "hunter2")]).expect_err("too short");
    assert!(short.to_string().contains("jwt_secret") && !short.to_string().contains("hunter2"));
}

#[test]
fn without_authentication_the_api_stays_on_loopback() {
    let open = load(&[("bind", "0.0.0.0:8080")], &[]).expect("valid by itself");
    assert!(
        open.api_bind()
            .expect_err("open to all")
            .to_string()
            .contains("SHOP_ALLOW_ANONYMOUS")
    );
    let meant = load(&[("bind", "0.0.0.0:8080"), ("allow_anonymous", "true")], &[]).expect("valid");
    assert!(meant.api_bind().is_ok());
}
