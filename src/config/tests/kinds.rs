//! Values of another kind than their key takes: each is refused, wherever it was set.

use std::{collections::BTreeMap, fs};

use super::{DEFAULTS, error, load, load_file, load_with};

/// Every key, so that none is left to what the crate `config` makes of such a value.
#[test]
fn no_value_of_another_kind_is_taken_for_one_of_the_right_kind() {
    let numbers = [
        "true", "false", "yes", "off", "5.7", "5.0", "1e3", "0x10", "007", "+5", " 5", "5 ", "1_000", "\"5\"", "",
    ];
    let booleans = ["yes", "no", "on", "1", "0", "TRUE", "True", "false ", "\"true\"", ""];
    let in_file = [
        "true",
        "5",
        "5.7",
        "\"5\"",
        "\"true\"",
        "[]",
        "[5]",
        "[\"x\"]",
        "{ x = 1 }",
        "1979-05-27",
    ];
    let documented: BTreeMap<String, toml::Value> = toml::from_str(DEFAULTS).expect("valid TOML");
    let folder = tempfile::tempdir().expect("a temporary folder can be made");
    let file = folder.path().join("shop.toml");

    for (key, default) in &documented {
        let (variables, right_kinds): (&[&str], &[&str]) = match default {
            toml::Value::Integer(_) => (&numbers, &["5"]),
            toml::Value::Boolean(_) => (&booleans, &["true"]),
            _ => (&[], &["\"5\"", "\"true\""]),
        };

        let variable = format!("SHOP_{}", key.to_uppercase());
        for value in variables {
            let Err(error) = load(&[], &[(&variable, value)]) else {
                panic!("{variable}={value} is accepted");
            };
            let error = error.to_string();
            assert!(error.contains(&format!("{variable} (`{key}`)")), "{value}: {error}");
        }
        for value in in_file.iter().filter(|value| !right_kinds.contains(value)) {
            fs::write(&file, format!("{key} = {value}")).expect("the folder is ours");
            let Err(error) = load_file(&file) else {
                panic!("{key} = {value} is accepted");
            };
            let error = error.to_string();
            assert!(error.contains(&format!("line 1: `{key}` ")), "{value}: {error}");
        }
    }
}

#[test]
fn a_value_of_another_kind_is_answered_with_what_is_expected() {
    let folder = tempfile::tempdir().expect("a temporary folder can be made");
    let file = folder.path().join("shop.toml");
    for (text, expected) in [
        (
            "cart_ttl_seconds = true",
            "is `true` or `false`, but must be a whole number from 1 to 31536000",
        ),
        (
            "database_pool = 5.7",
            "is a number with a fraction or an exponent, but must be a whole number from 1 to 1000",
        ),
        (
            "database_pool = \"5\"",
            "must be a whole number from 1 to 1000, in plain digits without quotes",
        ),
        ("database_pool = 99999999999999999999", "must"),
        (
            "allow_anonymous = 1",
            "is a whole number, but must be `true` or `false`",
        ),
        (
            "allow_anonymous = \"true\"",
            "must be `true` or `false`, in small letters without quotes",
        ),
        ("jwt_audience = 5", "is a whole number, but must be a text in quotes"),
        (
            "cors_origins = [\"https://a.example\"]",
            "is a list, but must be a text in quotes",
        ),
    ] {
        fs::write(&file, text).expect("the folder is ours");
        let error = load_file(&file).expect_err(text).to_string();
        assert!(error.contains(expected), "{error}");
    }

    for (variable, value, expected) in [
        (
            "SHOP_MAX_CONNECTIONS",
            "",
            "is empty, but must be a whole number from 1 to 1000000",
        ),
        (
            "SHOP_LOW_STOCK_AT",
            "99999999999999999999",
            "is 99999999999999999999, but must be a whole number from 0 to",
        ),
        ("SHOP_ALLOW_ANONYMOUS", "", "is empty, but must be `true` or `false`"),
        (
            "SHOP_TRUSTED_PROXIES",
            "10.0.0.1,,10.0.0.2",
            "has a comma with no value before or behind it",
        ),
        (
            "SHOP_CORS_ORIGINS",
            "https://a.example,",
            "has a comma with no value before or behind it",
        ),
        (
            "SHOP_Bind",
            "127.0.0.1:1",
            "SHOP_Bind is not a setting; did you mean SHOP_BIND?",
        ),
    ] {
        let error = error(&[], &[(variable, value)]);
        assert!(error.contains(variable) && error.contains(expected), "{error}");
    }
}

/// The kind goes by the default: a value of another kind in the file does not change how the variable is read.
#[test]
fn a_bad_value_in_the_file_does_not_spoil_the_variable_that_overrides_it() {
    let folder = tempfile::tempdir().expect("a temporary folder can be made");
    let file = folder.path().join("shop.toml");
    fs::write(&file, "database_pool = \"many\"\nallow_anonymous = 1").expect("the folder is ours");
    let environment = [("SHOP_DATABASE_POOL", "7"), ("SHOP_ALLOW_ANONYMOUS", "true")];

    let config = load_with(Some(&file), &[], &environment).expect("valid");
    assert!(config.database.pool == 7 && config.auth.allow_anonymous);
}

#[test]
fn the_url_memory_is_complete_by_itself() {
    for key in ["queue_url", "cache_url"] {
        for url in ["memory:foo", "memory://", "memory:?x=hunter2", "memory: "] {
            let error = error(&[(key, url)], &[]);
            assert!(
                error.contains(&format!("(`{key}`) must be `memory:` with nothing behind it")),
                "{error}"
            );
            assert!(!error.contains("hunter2"), "{error} shows a secret");
        }
    }
}
