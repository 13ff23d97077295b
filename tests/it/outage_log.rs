//! What an operator reads and sees of an outage: one line when it begins, one when it ends, and a gauge; and what the log
//! holds besides.

use std::{net::TcpListener, process::Command};

use rstest::rstest;
use serde_json::Value;

use crate::{
    proxy::Proxy,
    servers::{Postgres, Redis},
    support::{Backend, Client, Shop, eventually},
};

/// The lines of the log that are JSON.
fn lines(shop: &Shop) -> Vec<Value> {
    let log = shop.log();
    log.lines().filter_map(|line| serde_json::from_str(line).ok()).collect()
}

/// The lines of a level about a dependency.
fn about(shop: &Shop, dependency: &str, level: &str) -> Vec<Value> {
    let mut lines = lines(shop);
    lines.retain(|line| line["dependency"] == dependency && line["level"] == level);
    lines
}

/// Waits until the log has said so often that an outage is over, and asserts that it has said as often that one has begun.
async fn over(shop: &Shop, dependency: &str, times: usize) -> Vec<Value> {
    let ends = eventually(&format!("the outage of the {dependency} ends"), || async {
        let ends = about(shop, dependency, "INFO");
        (ends.len() == times).then_some(ends)
    })
    .await;

    assert_eq!(about(shop, dependency, "WARN").len(), times, "{}", shop.log());
    for end in &ends {
        assert_eq!(end["message"], format!("the {dependency} is reachable again"));
        assert!(end["duration_ms"].as_f64().is_some_and(|took| took > 0.0), "{end}");
        assert!(end["failures"].as_u64().is_some_and(|failures| failures > 0), "{end}");
    }
    ends
}

/// Waits until the process shows the dependency as up (1) or down (0).
async fn shows(management: &Client, dependency: &str, is_up: u8) {
    let sample = format!("shop_dependency_up{{dependency=\"{dependency}\"}} {is_up}\n");
    eventually(&format!("the metrics have {sample}"), || async {
        let text = management.get("/metrics").await.body;
        text.as_str().is_some_and(|text| text.contains(&sample)).then_some(())
    })
    .await;
}

#[rstest]
#[case::password(&["CONFIG", "SET", "requirepass", "hunter2"], &["-a", "hunter2", "CONFIG", "SET", "requirepass", ""], "NOAUTH")]
#[case::right(&["ACL", "SETUSER", "default", "-get"], &["ACL", "SETUSER", "default", "+get"], "NOPERM")]
#[case::memory(&["CONFIG", "SET", "maxmemory", "1"], &["CONFIG", "SET", "maxmemory", "0"], "OOM")]
#[tokio::test(flavor = "multi_thread")]
async fn a_redis_that_refuses_everybody_is_down(
    #[case] refuse: &[&str],
    #[case] allow: &[&str],
    #[case] cause: &str,
    #[values(true, false)] from_the_start: bool,
) {
    let redis = Redis::start();
    let mut backend = Backend::embedded();
    backend.cache_url = redis.url();
    if from_the_start {
        redis.cli(refuse);
    }
    let shop = Shop::start(&backend, &["serve"], &[("SHOP_LOG", "debug")]);
    let management = shop.management();
    if !from_the_start {
        shows(&management, "cache", 1).await;
        redis.cli(refuse);
        // Who is connected need not give a password.
        redis.cli(&["-a", "hunter2", "CLIENT", "KILL", "TYPE", "normal"]);
    }

    shows(&management, "cache", 0).await;
    let ready = management.get("/readyz").await;
    assert_eq!((ready.status, &ready.body["cache"]), (200, &"down".into()));
    assert_eq!(shop.client().get("/products").await.status, 200);
    let begins = about(&shop, "cache", "WARN");
    assert_eq!(begins.len(), 1, "{}", shop.log());
    assert_eq!(begins[0]["message"], "the cache is unreachable; reconnecting");
    eventually("the log names the cause", || async {
        let mut lines = lines(&shop);
        lines.retain(|line| line["error"].as_str().is_some_and(|error| error.contains(cause)));
        (!lines.is_empty()).then_some(())
    })
    .await;

    redis.cli(allow);
    shows(&management, "cache", 1).await;
    over(&shop, "cache", 1).await;
    assert!(!shop.log().contains("hunter2"));
}

/// The connection to Redis is made in the background, and is not there at once.
#[tokio::test(flavor = "multi_thread")]
async fn a_start_with_everything_there_is_no_outage() {
    let backend = Backend::servers();
    backend.stock(&[(100, 10)]).await;

    for shop in [Shop::work(&backend), Shop::serve(&backend)] {
        for dependency in ["database", "queue", "cache"] {
            shows(&shop.management(), dependency, 1).await;
            assert_eq!(about(&shop, dependency, "WARN"), Vec::<Value>::new());
        }
    }
}

/// With every line that the shop's own level shows, since a library's would be among them.
#[tokio::test(flavor = "multi_thread")]
async fn an_outage_is_one_line_when_it_begins_and_one_when_it_ends() {
    let redis = Redis::start();
    let mut backend = Backend::servers();
    backend.stock(&[(100, 10)]).await;
    let queue = Proxy::before(&backend.queue_url).await;
    let database = Proxy::before(&backend.database_url).await;
    backend.queue_url = queue.url(&backend.queue_url);
    backend.database_url = database.url(&backend.database_url);
    backend.cache_url = redis.url();

    // Queue and cache are away when the processes start, and come back.
    queue.cut();
    redis.kill();
    let debug = [("SHOP_LOG", "debug")];
    let (serve, work) = (
        Shop::start(&backend, &["serve"], &debug),
        Shop::start(&backend, &["work"], &debug),
    );
    for shop in [&serve, &work] {
        let management = shop.management();
        for (dependency, is_up) in [("database", 1), ("queue", 0), ("cache", 0)] {
            shows(&management, dependency, is_up).await;
        }
    }
    queue.heal();
    redis.start_again();
    for shop in [&serve, &work] {
        for dependency in ["queue", "cache"] {
            shows(&shop.management(), dependency, 1).await;
            over(shop, dependency, 1).await;
        }
    }

    // The database goes while customers come.
    database.cut();
    let client = serve.client();
    for number in 0..50 {
        let answer = client.get(&format!("/products?limit={}", number + 1)).await;
        answer.problem(503, "database-unavailable");
    }
    for shop in [&serve, &work] {
        shows(&shop.management(), "database", 0).await;
    }
    database.heal();
    for shop in [&serve, &work] {
        shows(&shop.management(), "database", 1).await;
        over(shop, "database", 1).await;
        assert_own_lines(shop);
    }

    assert!(over(&serve, "database", 1).await[0]["failures"].as_u64() >= Some(50));
    let mut failed = lines(&serve);
    failed.retain(|line| line["message"] == "answered 503");
    assert_eq!(failed.len(), 10, "the first ones");
    failed.iter().for_each(assert_request_line);
}

fn assert_own_lines(shop: &Shop) {
    for line in lines(shop) {
        let target = line["target"].as_str().expect("a target");
        assert!(target == "shop" || target.starts_with("shop::"), "{line}");
        let text = line.to_string();
        assert!(!text.contains(" at line ") && !text.contains(".rs"), "{line}");
    }
}

fn assert_request_line(line: &Value) {
    for field in ["method", "route"] {
        assert!(line[field].as_str().is_some_and(|text| !text.is_empty()), "{line}");
    }
    assert!(line["status"].is_u64() && line["duration_ms"].is_f64(), "{line}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_process_that_waits_for_its_database_answers_for_itself() {
    let postgres = Postgres::start();
    let mut backend = Backend::servers();
    backend.database_url = postgres.create_database();
    backend.stock(&[(100, 10)]).await;
    postgres.stop();

    let debug = [("SHOP_LOG", "debug")];
    let processes = [
        Shop::start(&backend, &["serve"], &debug),
        Shop::start(&backend, &["work"], &debug),
    ];
    for shop in &processes {
        let management = shop.management();
        shows(&management, "database", 0).await;
        assert_eq!(management.get("/healthz").await.status, 200);
        let ready = management.get("/readyz").await;
        assert_eq!((ready.status, &ready.body["database"]), (503, &"down".into()));
        shop.wait_for("the database is still unreachable; retrying");
    }

    postgres.start_again();
    for shop in &processes {
        over(shop, "database", 1).await;
        shows(&shop.management(), "database", 1).await;
        eventually("it is ready", || async {
            (shop.management().get("/readyz").await.status == 200).then_some(())
        })
        .await;
        assert_own_lines(shop);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_answered_request_is_a_line_with_method_route_status_and_duration() {
    let shop = Shop::start(&Backend::embedded(), &["serve"], &[("SHOP_LOG", "debug")]);
    let client = shop.client();
    for path in ["/products", "/products/7", "/nowhere", "/orders/x"] {
        client.get(path).await;
    }

    let answered = eventually("four lines", || async {
        let mut answered = lines(&shop);
        answered.retain(|line| line["message"] == "answered");
        (answered.len() == 4).then_some(answered)
    })
    .await;
    answered.iter().for_each(assert_request_line);
    let routes: Vec<&str> = answered.iter().filter_map(|line| line["route"].as_str()).collect();
    assert_eq!(routes, ["/products", "/products/{id}", "other", "/orders/{id}"]);
    assert_own_lines(&shop);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_first_line_says_version_and_back_ends_and_a_later_one_the_address_that_was_bound() {
    let anonymous = [("SHOP_BIND", "0.0.0.0:0"), ("SHOP_ALLOW_ANONYMOUS", "true")];
    let shop = Shop::start(&Backend::embedded(), &["serve"], &anonymous);
    let address = shop.wait_for("serving");

    let lines = lines(&shop);
    assert_eq!(
        (&lines[0]["message"], &lines[0]["role"]),
        (&"starting".into(), &"serve".into())
    );
    assert_eq!(lines[0]["version"], env!("CARGO_PKG_VERSION"));
    for (part, scheme) in [("database", "sqlite"), ("queue", "memory"), ("cache", "memory")] {
        assert_eq!(lines[0][part], scheme);
    }
    let serving = lines.iter().find(|line| line["message"] == "serving").expect("found");
    assert!(address.starts_with("0.0.0.0:"), "{address}");
    let docs = address.replace("0.0.0.0", "http://127.0.0.1") + "/docs";
    assert_eq!(serving["docs"], docs, "where it is from here");
}

/// `script` gives the program a terminal. It ends at once, because its port is taken.
#[test]
fn a_terminal_gets_colours_unless_the_user_wants_none() {
    let listener = TcpListener::bind("127.0.0.1:0").expect("bound");
    let taken = listener.local_addr().expect("bound").to_string();
    let has_colours = |no_color: &str| {
        let backend = Backend::embedded();
        let mut script = Command::new("script");
        script
            .args(["-qc", &format!("{} serve", env!("CARGO_BIN_EXE_shop")), "/dev/null"])
            .current_dir(&backend.folder)
            .envs(backend.environment())
            .env_remove("SHOP_LOG_FORMAT")
            .env("SHOP_BIND", &taken)
            .env("NO_COLOR", no_color);
        let output = script.output().expect("script is part of util-linux");

        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(text.contains("starting"), "{text}");
        text.contains('\u{1b}')
    };

    assert!(has_colours(""));
    assert!(!has_colours("1"));
}

/// The probes succeed meanwhile.
#[tokio::test(flavor = "multi_thread")]
async fn a_right_that_a_task_lacks_is_an_outage_until_it_has_it() {
    const TRIES: usize = 8;
    let postgres = Postgres::start();
    let mut backend = Backend::servers();
    backend.database_url = postgres.create_database();
    backend.stock(&[(100, 10)]).await;
    let administrate = |sql: &str| {
        postgres.psql(&backend.database_url, sql);
    };
    administrate("CREATE ROLE clerk LOGIN");
    administrate(
        "GRANT ALL ON ALL TABLES IN SCHEMA public TO clerk; GRANT ALL ON ALL SEQUENCES IN SCHEMA public TO clerk",
    );
    let mut as_clerk = backend.clone();
    as_clerk.database_url = backend.database_url.replace("postgres@", "clerk@");
    let work = Shop::start(&as_clerk, &["work"], &[("SHOP_LOG", "debug")]);
    shows(&work.management(), "database", 1).await;

    administrate("REVOKE ALL ON outbox FROM clerk");
    eventually("the relay has tried again and again", || async {
        let mut refused = about(&work, "database", "DEBUG");
        refused.retain(|line| line["error"].to_string().contains("permission denied for table outbox"));
        (refused.len() >= TRIES).then_some(())
    })
    .await;
    shows(&work.management(), "database", 1).await;
    let begins = about(&work, "database", "WARN");
    assert_eq!(
        (begins.len(), about(&work, "database", "INFO").len()),
        (1, 0),
        "{}",
        work.log()
    );
    assert!(
        begins[0]["error"].to_string().contains("SQLSTATE 42501"),
        "{}",
        begins[0]
    );

    administrate("GRANT ALL ON outbox TO clerk");
    over(&work, "database", 1).await;
}
