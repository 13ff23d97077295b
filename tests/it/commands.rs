//! The command line: help, exit codes, one clear sentence about an error, health, and a clean end.

use std::{
    ffi::OsStr,
    fs,
    os::unix::ffi::OsStrExt as _,
    process::{Command, Stdio},
};

use rstest::rstest;
use serde_json::Value;

use crate::support::{Backend, Shop, eventually, ledger_report, run_to_end};

#[test]
fn every_command_has_help_with_an_example() {
    let backend = Backend::embedded();
    for command in [
        "serve",
        "work",
        "migrate",
        "seed",
        "verify",
        "prune",
        "dead-letters",
        "openapi",
        "token",
        "health",
    ] {
        let help = run_to_end(&backend, &[command, "--help"], &[]);
        assert!(help.status.success());
        let text = String::from_utf8_lossy(&help.stdout).into_owned();
        assert!(text.contains("Example:\n  shop "), "{command}: {text}");
        assert!(
            run_to_end(&backend, &[command, "--version"], &[]).status.success(),
            "{command}"
        );
    }
    assert!(run_to_end(&backend, &["--version"], &[]).status.success());
}

#[rstest]
#[case(&["sell"], &[], 2, "sell")]
#[case(&["migrate", "sideways"], &[], 2, "sideways")]
#[case(&["serve", "--bind", "0.0.0.0:0"], &[], 2, "SHOP_ALLOW_ANONYMOUS")]
#[case(&["serve", "--bind", "nowhere"], &[], 2, "bind")]
#[case(&["serve", "--config", "missing.toml"], &[], 2, "missing.toml")]
#[case(&["serve"], &[("SHOP_DATABSE_URL", "x")], 2, "SHOP_DATABSE_URL is not a setting; did you mean SHOP_DATABASE_URL?")]
#[case(&["serve"], &[("SHOP_DATABASE_URL", "mysql://u:hunter2@h/d")], 2, "database_url")]
#[case(&["serve"], &[("SHOP_QUEUE_URL", "kafka://u:hunter2@h")], 2, "queue_url")]
#[case(&["work"], &[("SHOP_QUEUE_URL", "memory:")], 2, "shop serve")]
#[case(&["serve"], &[("SHOP_DATABASE_URL", "sqlite:///nowhere/at/all.db?mode=rwc")], 1, "database_url")]
#[case(&["migrate"], &[("SHOP_DATABASE_URL", "postgres://u:hunter2@127.0.0.1:1/d"), ("SHOP_DATABASE_WAIT_SECONDS", "0")], 1, "database_url")]
#[case(&["migrate"], &[("SHOP_DATABASE_URL", "postgres://u:hunter2@127.0.0.1:port/d")], 2, "database_url")]
#[case(&["serve"], &[("SHOP_DATABASE_URL", "postgres://u:hun/ter2@127.0.0.1/d")], 2, "database_url")]
#[case(&["work"], &[("SHOP_DATABASE_URL", "postgres://u@127.0.0.1/d?pasword=hunter2"), ("SHOP_QUEUE_URL", "amqp://h")], 2, "`pasword`")]
#[case(&["serve"], &[("SHOP_DATABASE_URL", "sqlite://shop.db?mode=rwz")], 2, "database_url")]
#[case(&["verify"], &[("SHOP_DATABASE_URL", "sqlite://missing.db")], 1, "?mode=rwc")]
#[case(&["verify"], &[], 1, "shop migrate")]
#[case(&["prune", "--older-than", "23h"], &[], 2, "1d")]
#[case(&["prune", "--older-than", "400d"], &[], 1, "shop migrate")]
#[case(&["serve"], &[("SHOP_AUTH", "basic")], 2, "`none` or `jwt`")]
#[case(&["serve", "--config", "."], &[], 2, "the file .")]
#[case(&["seed", "--products", "0", "--orders", "5"], &[], 1, "--products")]
#[case(&["health"], &[("SHOP_MANAGEMENT_BIND", "127.0.0.1:1")], 1, "127.0.0.1:1")]
#[case(&["verify", "--max-age", "5"], &[], 2, "5m")]
#[case(&["token", "--user", "1", "--ttl", "0s"], &[], 2, "1s to 365d")]
#[case(&["token", "--user", "1", "--ttl", "366d"], &[], 2, "1s to 365d")]
#[case(&["serve"], &[("SHOP_CART_TTL_SECONDS", "true")], 2, "(`cart_ttl_seconds`) must be a whole number")]
#[case(&["serve"], &[("SHOP_LOW_STOCK_AT", "5.7")], 2, "(`low_stock_at`) must be a whole number")]
#[case(&["serve", "--bind", "0.0.0.0:0"], &[("SHOP_ALLOW_ANONYMOUS", "yes")], 2, "(`allow_anonymous`) must be `true` or `false`")]
#[case(&["serve", "--queue-url", "memory:foo"], &[], 2, "--queue-url (`queue_url`) must be `memory:`")]
#[case(&["serve"], &[("SHOP_CACHE_URL", "memory:foo")], 2, "SHOP_CACHE_URL (`cache_url`) must be `memory:`")]
fn a_wrong_command_is_answered_in_one_sentence(
    #[case] arguments: &[&str],
    #[case] environment: &[(&str, &str)],
    #[case] code: i32,
    #[case] expected: &str,
) {
    let output = run_to_end(&Backend::embedded(), arguments, environment);
    let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(code), "{stderr}");
    assert!(stderr.contains(expected), "{stderr}");
    assert!(!stderr.contains("ter2") && !stderr.contains("panicked"), "{stderr}");
}

#[test]
fn an_environment_variable_that_is_not_utf8_is_rejected() {
    let mut command = Command::new(env!("CARGO_BIN_EXE_shop"));
    let output = command
        .args(["serve"])
        .env("SHOP_BIND", OsStr::from_bytes(b"127.0.0.1:\xff"))
        .output()
        .expect("it can be run");
    let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(2), "{stderr}");
    assert!(stderr.contains("SHOP_BIND"), "{stderr}");
}

/// As in `shop openapi | head -1`, and on a full disk.
#[test]
fn a_closed_pipe_is_no_failure_and_a_full_disk_is_one() {
    let openapi = || {
        let mut command = Command::new(env!("CARGO_BIN_EXE_shop"));
        command.args(["openapi"]).stderr(Stdio::piped());
        command
    };
    let mut cut_off = openapi().stdout(Stdio::piped()).spawn().expect("it can be run");
    drop(cut_off.stdout.take());
    let cut_off = cut_off.wait_with_output().expect("it ends");
    assert!(cut_off.status.success() && cut_off.stderr.is_empty(), "{cut_off:?}");

    let full = fs::File::options().write(true).open("/dev/full").expect("Linux has it");
    let full = openapi().stdout(full).output().expect("it can be run");
    let stderr = String::from_utf8_lossy(&full.stderr).into_owned();
    assert_eq!(full.status.code(), Some(1), "{stderr}");
    assert!(
        stderr.contains("standard output") && !stderr.contains("panicked"),
        "{stderr}"
    );
}

#[rstest]
#[tokio::test(flavor = "multi_thread")]
async fn concurrent_seeds_add_nothing_twice(#[values("embedded", "servers")] backend: &str) {
    let backend = Backend::named(backend);
    let app = backend.app().await;

    std::thread::scope(|scope| {
        let seeds: Vec<_> = (0..3)
            .map(|_| scope.spawn(|| run_to_end(&backend, &["seed", "--products", "300", "--orders", "300"], &[])))
            .collect();
        let outputs: Vec<String> = seeds
            .into_iter()
            .map(|seed| {
                let output = seed.join().expect("it ends");
                assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
                String::from_utf8_lossy(&output.stdout).trim().to_owned()
            })
            .collect();

        let added = |what: &str| -> u32 {
            let numbers = outputs.iter().map(|output| {
                let words: Vec<&str> = output.split(' ').collect();
                let index = words
                    .iter()
                    .position(|word| *word == what)
                    .expect("the output names it");
                words[index - 1].parse::<u32>().expect("a number")
            });
            numbers.sum()
        };

        assert_eq!((added("products"), added("orders")), (300, 300), "{outputs:?}");
    });

    let report = ledger_report(&app).await;
    assert_eq!((report.products, report.orders), (300, 300));
    assert!(report.is_clean());
}

#[tokio::test]
async fn on_postgresql_serve_refuses_to_start_before_migrate() {
    let backend = Backend::servers();
    let refused = run_to_end(&backend, &["serve"], &[]);
    assert_eq!(refused.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&refused.stderr).contains("shop migrate"));
    assert!(run_to_end(&backend, &["migrate"], &[]).status.success());
    let status = run_to_end(&backend, &["migrate", "status"], &[]);
    assert!(!String::from_utf8_lossy(&status.stdout).contains("pending"));
    Shop::serve(&backend);
}

#[rstest]
#[tokio::test]
async fn a_running_process_answers_health_and_stops_cleanly(#[values("embedded", "servers")] backend: &str) {
    let backend = Backend::named(backend);
    backend.app().await;
    let mut processes = Shop::workers(&backend, 1);
    processes.push(Shop::serve(&backend));
    for process in &mut processes {
        let address = process.wait_for("management");
        let health = run_to_end(&backend, &["health"], &[("SHOP_MANAGEMENT_BIND", &address)]);
        let stderr = String::from_utf8_lossy(&health.stderr).into_owned();
        assert!(health.status.success(), "{stderr}");
        assert_eq!(process.management().get("/healthz").await.status, 200);
        assert!(process.terminate().success());
    }
}

#[tokio::test]
async fn a_demo_starts_on_an_empty_folder_and_shows_its_catalogue() {
    let backend = Backend::embedded();
    let demo = Shop::start(&backend, &["serve", "--demo"], &[]);
    let client = demo.client();
    let page = client.get("/products").await;
    assert_eq!(page.body["items"].as_array().map(Vec::len), Some(50));
    let id = client.order(&[(1, 2), (2, 1)]).await;
    client.pay(&id).await;
    assert_eq!(client.settled(&id).await["status"], "PAID");
}

/// The lines that the demo prints are run as a reader would run them.
#[rstest]
#[tokio::test(flavor = "multi_thread")]
async fn a_demo_walks_an_order_from_the_catalogue_to_a_refund(#[values("none", "jwt")] auth: &str) {
    let backend = Backend::embedded();
    let settings = [
        ("SHOP_AUTH", auth),
        ("SHOP_JWT_SECRET", "0123456789abcdef0123456789abcdef"),
    ];
    let demo = Shop::start(&backend, &["serve", "--demo"], &settings);
    demo.wait_for("serving");
    let lines = eventually("the lines are printed", || async {
        let printed = fs::read_to_string(backend.folder.join("stdout")).unwrap_or_default();
        let (_, lines) = printed.split_once("Try it")?.1.split_once('\n')?;
        lines.contains("/refunds").then(|| lines.to_owned())
    })
    .await;

    let walked = Command::new("timeout")
        .args(["60", "bash", "-euc", &lines])
        .output()
        .expect("bash");
    let answers = String::from_utf8_lossy(&walked.stdout).into_owned();
    let answers: Vec<&str> = answers.lines().collect();
    let [products, order, paid, refund] = answers.as_slice() else {
        panic!("{answers:?} {}", String::from_utf8_lossy(&walked.stderr));
    };
    let json = |text: &str| serde_json::from_str::<Value>(text).unwrap_or_else(|_| panic!("{text}"));
    assert_eq!(json(products)["items"].as_array().map(Vec::len), Some(3));
    assert_eq!(
        (&json(paid)["order_id"], &json(paid)["status"]),
        (&(*order).into(), &"PAID".into())
    );
    assert_eq!(json(refund)["amount"], json(paid)["items"][0]["unit_price"]);
}

#[test]
fn completions_and_manual_pages_are_printed_for_every_command() {
    let backend = Backend::embedded();
    for shell in ["bash", "zsh", "fish", "powershell", "elvish"] {
        let completions = run_to_end(&backend, &["completions", shell], &[]);
        let script = String::from_utf8_lossy(&completions.stdout).into_owned();
        assert!(
            completions.status.success() && script.contains("dead-letters"),
            "{shell}"
        );
    }

    let page = |command: &[&str]| {
        let man = run_to_end(&backend, &[&["man"], command].concat(), &[]);
        (man.status.code(), String::from_utf8_lossy(&man.stdout).into_owned())
    };
    let (_, program) = page(&[]);
    for command in ["serve", "work", "migrate", "dead-letters", "health"] {
        let (code, text) = page(&[command]);
        assert!(
            code == Some(0) && text.contains(&format!(".TH shop-{command} 1")),
            "{text}"
        );
        assert!(
            program.contains(&format!("shop\\-{}(1)", command.replace('-', "\\-"))),
            "{program}"
        );
    }
    assert_eq!(page(&["nothing"]).0, Some(2));
}
