//! The command line: help, exit codes, one clear sentence, health, and a clean end.

use rstest::rstest;

use crate::support::{Backend, Shop, run_to_end};

#[test]
fn every_command_has_help_with_an_example() {
    let backend = Backend::embedded();
    for command in [
        "serve",
        "work",
        "migrate",
        "seed",
        "verify",
        "dead-letters",
        "openapi",
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
#[case(&["serve"], &[("SHOP_DATABSE_URL", "x")], 2, "databse_url")]
#[case(&["serve"], &[("SHOP_DATABASE_URL", "mysql://u:hunter2@h/d")], 2, "database_url")]
#[case(&["serve"], &[("SHOP_QUEUE_URL", "kafka://u:hunter2@h")], 2, "queue_url")]
#[case(&["work"], &[("SHOP_QUEUE_URL", "memory:")], 2, "shop serve")]
#[case(&["serve"], &[("SHOP_DATABASE_URL", "sqlite:///nowhere/at/all.db?mode=rwc")], 1, "database_url")]
#[case(&["migrate"], &[("SHOP_DATABASE_URL", "postgres://u:hunter2@127.0.0.1:1/d"), ("SHOP_DATABASE_WAIT_SECONDS", "0")], 1, "database_url")]
#[case(&["health"], &[("SHOP_MANAGEMENT_BIND", "127.0.0.1:1")], 1, "127.0.0.1:1")]
#[case(&["verify", "--max-age", "5"], &[], 2, "5m")]
fn what_is_wrong_is_said_in_one_sentence(
    #[case] arguments: &[&str],
    #[case] environment: &[(&str, &str)],
    #[case] code: i32,
    #[case] told: &str,
) {
    let output = run_to_end(&Backend::embedded(), arguments, environment);
    let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(code), "{stderr}");
    assert!(stderr.contains(told), "{stderr}");
    assert!(!stderr.contains("hunter2") && !stderr.contains("panicked"), "{stderr}");
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
