//! What an operator relies on: figures that exist, traces that hang together, roles that may do no more than they need,
//! restarts and upgrades that nobody notices.

use std::{
    collections::{BTreeSet, HashMap},
    fmt::Write as _,
    fs,
    io::Write as _,
    process::{Command, Stdio},
    sync::{Arc, Mutex},
    time::Duration,
};

use opentelemetry_proto::tonic::{
    collector::trace::v1::ExportTraceServiceRequest,
    trace::v1::{Span, span::SpanKind},
};
use poem::{EndpointExt as _, Server, listener::TcpListener, web::Data};
use prost::Message as _;
use sea_orm::ConnectionTrait as _;
use serde_json::{Value, json};
use shop::db::Db;
use tokio::time::sleep;

use crate::{
    queue::Spy,
    servers::{self, PgBouncer, Postgres},
    support::{Backend, Client, Crowd, Shop, all_settled, books, eventually, run_to_end},
};

/// One order PAID, one FAILED, a page read twice.
async fn some_business(client: &Client) {
    for quantity in [1, 1_000] {
        let id = client.order(&[(1, quantity)]).await;
        client.pay(&id).await;
        client.settled(&id).await;
        client.get(&format!("/orders/{id}")).await;
    }
    client.get("/products").await;
    client.get("/products").await;
}

/// `promtool` finds nothing to complain about.
fn promtool(arguments: &[&str], input: &str) {
    let mut promtool = Command::new("promtool")
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("promtool is missing: apt-get install prometheus");
    let mut stdin = promtool.stdin.take().expect("piped");
    stdin.write_all(input.as_bytes()).expect("sent");
    drop(stdin);
    let output = promtool.wait_with_output().expect("it ends");
    let said = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && !said.contains("should"), "{said}");
}

#[tokio::test(flavor = "multi_thread")]
async fn figures_are_well_formed_and_dashboard_and_alarms_name_only_those_that_exist() {
    let backend = Backend::servers();
    backend.stock(&[(100, 100)]).await;
    let shop = Shop::serve(&backend);
    let workers = Shop::workers(&backend, 1);
    some_business(&shop.client()).await;
    let mut names = BTreeSet::new();
    for management in [shop.management(), workers[0].management()] {
        // What is taken every few seconds is there after the first of them.
        let text = eventually("the figures are there", || async {
            let text = management.get("/metrics").await.body.as_str().expect("text").to_owned();
            text.contains("shop_database_connections").then_some(text)
        })
        .await;
        promtool(&["check", "metrics"], &text);
        names.extend(
            text.lines()
                .filter_map(|line| Some(line.strip_prefix("# TYPE ")?.split(' ').next()?.to_owned())),
        );
        assert!(
            !text.contains("7\"") || !text.contains("user"),
            "no label grows with users"
        );
    }
    let text = shop.management().get("/metrics").await.body;
    let text = text.as_str().expect("text");
    assert!(
        text.contains("route=\"/orders/{id}\"") && !text.contains("route=\"/orders/0"),
        "{text}"
    );
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/config/observability");
    let rules = fs::read_to_string(format!("{folder}/rules.yml")).expect("the rules");
    let dashboard = fs::read_to_string(format!("{folder}/dashboard.json")).expect("the dashboard");
    promtool(&["check", "rules", &format!("{folder}/rules.yml")], "");
    let expressions: Value = serde_json::from_str(&dashboard).expect("JSON");
    let panels = expressions["panels"].as_array().expect("panels");
    let asked = panels
        .iter()
        .flat_map(|panel| panel["targets"].as_array().expect("targets"));
    let asked: Vec<&str> = asked
        .map(|target| target["expr"].as_str().expect("an expression"))
        .collect();
    let rules: Vec<&str> = rules
        .lines()
        .filter(|line| line.contains("expr:") || line.contains("sum("))
        .collect();
    assert!(asked.len() > 10 && rules.len() > 6);
    let is_name = |letter: char| letter.is_ascii_alphanumeric() || letter == '_';
    for expression in asked.iter().chain(&rules) {
        let words = expression.split(|letter| !is_name(letter));
        for name in words.filter(|word| word.starts_with("shop_")) {
            let base = ["_bucket", "_sum", "_count"]
                .iter()
                .find_map(|part| name.strip_suffix(part))
                .unwrap_or(name);
            assert!(
                names.contains(name) || names.contains(base),
                "{name} does not exist, but: {names:?}"
            );
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_published_is_what_the_asyncapi_document_says() {
    let backend = Backend::servers();
    backend.stock(&[(100, 6)]).await;
    let mut spy = Spy::on(&backend).await;
    let shop = Shop::serve(&backend);
    let _workers = Shop::workers(&backend, 1);
    let client = shop.client();
    for quantity in [2, 100] {
        let id = client.order(&[(1, quantity)]).await;
        client.pay(&id).await;
        client.settled(&id).await;
    }
    let printed = run_to_end(&backend, &["openapi", "--async"], &[]);
    let document: Value = serde_json::from_slice(&printed.stdout).expect("JSON");
    assert_eq!(document["asyncapi"], "3.0.0");
    let messages = document["components"]["messages"].as_object().expect("messages");
    let mut kinds = BTreeSet::new();
    while kinds.len() < 3 {
        let event = spy.next().await;
        let described = messages
            .values()
            .find(|message| message["name"] == event["type"])
            .expect("it is described");
        let faults: Vec<String> = jsonschema::validator_for(&described["payload"])
            .expect("a schema")
            .iter_errors(&event)
            .map(|fault| format!("{}: {fault}", fault.instance_path()))
            .collect();
        assert!(faults.is_empty(), "{event}: {faults:?}");
        kinds.insert(event["type"].as_str().expect("text").to_owned());
    }
}

/// A collector that remembers every span.
fn collector() -> (String, Arc<Mutex<Vec<Span>>>) {
    #[poem::handler]
    #[expect(clippy::needless_pass_by_value, reason = "extractors are values")]
    fn receive(body: Vec<u8>, spans: Data<&Arc<Mutex<Vec<Span>>>>) {
        let request = ExportTraceServiceRequest::decode(&*body).expect("OTLP");
        let received = request
            .resource_spans
            .into_iter()
            .flat_map(|resource| resource.scope_spans);
        spans
            .lock()
            .expect("not poisoned")
            .extend(received.flat_map(|scope| scope.spans));
    }
    let spans = Arc::new(Mutex::new(Vec::new()));
    let port = servers::run::free_port();
    let route = poem::Route::new()
        .at("/v1/traces", poem::post(receive))
        .data(Arc::clone(&spans));
    tokio::spawn(Server::new(TcpListener::bind(format!("127.0.0.1:{port}"))).run(route));
    (format!("http://127.0.0.1:{port}"), spans)
}

#[tokio::test(flavor = "multi_thread")]
async fn one_trace_leads_from_the_request_through_the_message_to_the_workers_sql() {
    let (endpoint, spans) = collector();
    let backend = Backend::servers();
    backend.stock(&[(100, 10)]).await;
    let traced = [
        ("OTEL_EXPORTER_OTLP_ENDPOINT", endpoint.as_str()),
        ("OTEL_BSP_SCHEDULE_DELAY", "200"),
    ];
    let mut shop = Shop::start(&backend, &["serve"], &traced);
    let mut work = Shop::start(&backend, &["work"], &traced);
    work.wait_for("working");
    let client = shop.client();
    let id = client.order(&[(1, 1)]).await;
    let trace = "4bf92f3577b34da6a3ce929d0e0e4736";
    let pay = client.request(reqwest::Method::POST, &format!("/orders/{id}/pay"));
    let pay = pay.header("traceparent", format!("00-{trace}-00f067aa0ba902b7-01"));
    assert_eq!(crate::support::Answer::of(pay).await.status, 202);
    client.settled(&id).await;
    // What is still in hand is exported at the end.
    assert!(shop.terminate().success() && work.terminate().success());
    let spans = spans.lock().expect("not poisoned").clone();
    let hex = |bytes: &[u8]| {
        bytes.iter().fold(String::new(), |mut text, byte| {
            let _ = write!(text, "{byte:02x}");
            text
        })
    };
    assert!(
        spans
            .iter()
            .all(|span| span.end_time_unix_nano >= span.start_time_unix_nano && span.end_time_unix_nano > 0)
    );
    let own: Vec<&Span> = spans.iter().filter(|span| hex(&span.trace_id) == trace).collect();
    let of_kind = |kind: SpanKind| own.iter().filter(move |span| span.kind == kind as i32).copied();
    let one = |kind: SpanKind| {
        of_kind(kind)
            .next()
            .unwrap_or_else(|| panic!("no {kind:?} among {own:#?}"))
    };
    let (server, producer, consumer) = (one(SpanKind::Server), one(SpanKind::Producer), one(SpanKind::Consumer));
    assert_eq!(server.name, "POST /orders/{id}/pay");
    assert_eq!(hex(&server.parent_span_id), "00f067aa0ba902b7");
    assert_eq!(producer.parent_span_id, server.span_id);
    assert_eq!(consumer.parent_span_id, producer.span_id);
    assert!(
        consumer.links.iter().any(|link| link.span_id == producer.span_id),
        "{consumer:#?}"
    );
    for parent in [server, consumer] {
        let mut below: Vec<&[u8]> = vec![&parent.span_id];
        // Statements may be below the span of their transaction.
        for _ in 0..3 {
            let children = own.iter().filter(|span| below.contains(&&*span.parent_span_id));
            below.extend(children.map(|span| &*span.span_id).collect::<Vec<_>>());
        }
        let sql = of_kind(SpanKind::Client)
            .filter(|span| below.contains(&&*span.span_id))
            .count();
        assert!(sql >= 2, "{} has {sql} SQL spans: {own:#?}", parent.name);
    }
    let known: BTreeSet<&[u8]> = spans.iter().map(|span| &*span.span_id).collect();
    for span in &own {
        let parent = &*span.parent_span_id;
        assert!(
            known.contains(parent) || hex(parent) == "00f067aa0ba902b7",
            "a parent is missing: {span:#?}"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_log_line_names_its_request_its_order_and_its_trace_and_no_secret() {
    let mut backend = Backend::servers();
    let postgres = Postgres::start();
    postgres.require_password("keeper", "hunter2");
    backend.database_url = postgres.create_database().replace("postgres@", "keeper:hunter2@");
    backend.stock(&[(100, 10)]).await;
    let shop = Shop::serve(&backend);
    let client = shop.client();
    let id = client.order(&[(1, 1)]).await;
    postgres.kill();
    let trace = "4bf92f3577b34da6a3ce929d0e0e4736";
    let pay = client.request(reqwest::Method::GET, &format!("/orders/{id}"));
    let pay = pay
        .header("traceparent", format!("00-{trace}-00f067aa0ba902b7-01"))
        .header("x-request-id", "my-own-id");
    crate::support::Answer::of(pay)
        .await
        .problem(503, "database-unavailable");
    shop.wait_for("answered 503");
    let log = shop.log();
    let lines = log.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    let line = lines
        .into_iter()
        .find(|line| line["message"] == "answered 503")
        .expect("it was logged");
    let span = &line;
    assert_eq!(
        (&span["request_id"], &span["trace_id"]),
        (&json!("my-own-id"), &json!(trace)),
        "{line}"
    );
    assert_eq!(span["order_id"], id.as_str());
    assert!(!log.contains("hunter2"));
}

#[tokio::test(flavor = "multi_thread")]
async fn every_role_works_with_the_rights_it_has_and_has_no_others() {
    let backend = Backend::servers();
    let postgres = &servers::shared().postgres;
    let roles =
        fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/config/postgres/roles.sql")).expect("the script");
    let as_role = |role: &str| {
        let mut own = Backend { ..backend.clone() };
        own.database_url = backend.database_url.replace("postgres@", &format!("{role}@"));
        own
    };
    postgres.psql(&backend.database_url, &roles);
    let migrated = run_to_end(&as_role("shop_migrate"), &["migrate"], &[]);
    assert!(
        migrated.status.success(),
        "{}",
        String::from_utf8_lossy(&migrated.stderr)
    );
    // Before the rights are granted, it says so.
    let refused = run_to_end(&as_role("shop_serve"), &["serve"], &[]);
    let said = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert_eq!(refused.status.code(), Some(1));
    assert!(
        said.contains("roles.sql") && said.contains("permission denied"),
        "{said}"
    );
    postgres.psql(&backend.database_url, &roles);

    let shop = Shop::serve(&as_role("shop_serve"));
    let _worker = Shop::work(&as_role("shop_work"));
    let client = shop.client();
    let made = client
        .post("/products", &json!({ "name": "Mug", "price": 500, "stock": 5 }))
        .await;
    assert_eq!(made.status, 201, "{made:?}");
    assert_eq!(
        client
            .post("/products/1/stock", &json!({ "delta": 5, "reason": "delivery" }))
            .await
            .status,
        200
    );
    for (quantity, outcome) in [(3, "PAID"), (100, "FAILED")] {
        let id = client.order(&[(1, quantity)]).await;
        assert_eq!(client.pay(&id).await.status, 202);
        assert_eq!(client.settled(&id).await["status"], outcome);
    }
    let verified = run_to_end(&as_role("shop_serve"), &["verify"], &[]);
    assert!(
        verified.status.success(),
        "{}",
        String::from_utf8_lossy(&verified.stderr)
    );

    let everybody = [
        "DELETE FROM orders",
        "DELETE FROM stock_movements",
        "TRUNCATE orders CASCADE",
        "DROP TABLE orders",
        "ALTER TABLE orders ADD COLUMN x int",
        "ALTER TABLE products DROP CONSTRAINT products_stock_check",
        "CREATE TABLE mine (x int)",
        "UPDATE seaql_migrations SET version = 'x'",
        "UPDATE order_items SET unit_price = 0",
    ];
    let serve = ["UPDATE orders SET status = 'PAID'", "UPDATE orders SET total_price = 0"];
    let work = [
        "INSERT INTO orders SELECT * FROM orders",
        "UPDATE products SET price = 0",
        "INSERT INTO stock_movements (product_id, delta, reason, created_at) VALUES (1, 1, 'x', 1)",
        "UPDATE orders SET accepted_at = 1",
    ];
    for (role, own) in [("shop_serve", &serve[..]), ("shop_work", &work)] {
        let db = Db::connect(&as_role(role).database_url, 1, 10).await.expect("connects");
        for statement in everybody.iter().chain(own) {
            let refused = db.write().execute_unprepared(statement).await;
            let said = refused.expect_err(statement).to_string();
            assert!(
                said.contains("permission denied") || said.contains("must be owner"),
                "{statement}: {said}"
            );
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_process_is_restarted_twice_under_load_and_no_request_fails() {
    let backend = Backend::servers();
    let app = backend.stock(&[(100, 100_000); 4]).await;
    let mut serves = [Shop::serve(&backend), Shop::serve(&backend)];
    let mut works = [Shop::work(&backend), Shop::work(&backend)];
    let crowd = Arc::new(Crowd::new(serves.iter().map(Shop::client).collect(), 4));
    let customers: Vec<_> = (0..8)
        .map(|number| {
            let crowd = Arc::clone(&crowd);
            tokio::spawn(async move { crowd.customer(8, number).await })
        })
        .collect();
    for _ in 0..2 {
        for place in 0..2 {
            sleep(Duration::from_millis(300)).await;
            // As a load balancer does it: the new one is there before the old one goes.
            let new = Shop::serve(&backend);
            crowd.replace(place, new.client());
            assert!(std::mem::replace(&mut serves[place], new).terminate().success());
            let new = Shop::work(&backend);
            assert!(std::mem::replace(&mut works[place], new).terminate().success());
        }
    }
    sleep(Duration::from_millis(300)).await;
    crowd.stop.cancel();
    for customer in customers {
        customer.await.expect("no customer was lied to");
    }
    all_settled(&app).await;
    let memory = crowd.remembered();
    eprintln!("answers {:?}, {} connections broken", memory.statuses, memory.broken);
    assert!(!memory.statuses.contains_key(&503), "{:?}", memory.statuses);
    memory.reconcile(&app).await;
    assert!(books(&app).await.is_clean());
}

/// A newer version has added to the schema, and this one goes on beside it.
#[tokio::test(flavor = "multi_thread")]
async fn an_older_version_goes_on_beside_a_schema_that_has_been_added_to() {
    let backend = Backend::servers();
    let app = backend.stock(&[(100, 10)]).await;
    for change in [
        "ALTER TABLE orders ADD COLUMN gift_wrap integer",
        "ALTER TABLE products ADD COLUMN colour text DEFAULT 'blue'",
        "CREATE TABLE vouchers (id bigint PRIMARY KEY)",
    ] {
        app.db.write().execute_unprepared(change).await.expect("added");
    }
    let applied = "INSERT INTO seaql_migrations (version, applied_at) VALUES ('m9999_future', 1)";
    app.db.write().execute_unprepared(applied).await.expect("recorded");
    let shop = Shop::serve(&backend);
    let _workers = Shop::workers(&backend, 1);
    some_business(&shop.client()).await;
    assert!(run_to_end(&backend, &["verify"], &[]).status.success());
}

#[tokio::test(flavor = "multi_thread")]
async fn it_works_behind_pgbouncer() {
    let mut backend = Backend::servers();
    let app = backend.stock(&[(100, 10_000); 4]).await;
    let bouncer = PgBouncer::before(&servers::shared().postgres);
    backend.database_url = bouncer.url(&backend.database_url);
    let shops = [Shop::serve(&backend), Shop::serve(&backend)];
    let _workers = Shop::workers(&backend, 2);
    let crowd = Arc::new(Crowd::new(shops.iter().map(Shop::client).collect(), 4));
    let customers: Vec<_> = (0..8)
        .map(|number| {
            let crowd = Arc::clone(&crowd);
            tokio::spawn(async move { crowd.customer(9, number).await })
        })
        .collect();
    sleep(Duration::from_secs(3)).await;
    crowd.stop.cancel();
    for customer in customers {
        customer.await.expect("no customer was lied to");
    }
    all_settled(&app).await;
    let memory = crowd.remembered();
    eprintln!("answers {:?}", memory.statuses);
    assert!(!memory.statuses.contains_key(&503) && memory.broken == 0);
    memory.reconcile(&app).await;
    assert!(books(&app).await.is_clean());
}

/// Started with what is wrong, it says in one sentence what, and what to do.
#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_start_names_the_key_and_the_remedy_and_no_secret() {
    let postgres = Postgres::start();
    postgres.require_password("keeper", "hunter2");
    let mut backend = Backend::servers();
    backend.database_url = postgres.create_database();
    let wrong = backend.database_url.replace("postgres@", "keeper:hunter3@");
    let missing = backend
        .database_url
        .rsplit_once('/')
        .map(|(server, _)| format!("{server}/nowhere"))
        .expect("a URL");
    let taken = std::net::TcpListener::bind("127.0.0.1:0").expect("bound");
    let taken = taken.local_addr().expect("bound").to_string();
    let pending = run_to_end(&backend, &["work"], &[]);
    backend.app().await;
    let with = |environment: &[(&str, &str)], role: &str| run_to_end(&backend, &[role], environment);
    let cases: HashMap<&str, (std::process::Output, i32, Vec<&str>)> = HashMap::from([
        ("pending", (pending, 1, vec!["shop migrate"])),
        (
            "wrong password",
            (
                with(&[("SHOP_DATABASE_URL", &wrong)], "serve"),
                1,
                vec!["database_url", "password"],
            ),
        ),
        (
            "no such database",
            (
                with(&[("SHOP_DATABASE_URL", &missing)], "work"),
                1,
                vec!["database_url", "nowhere"],
            ),
        ),
        (
            "port taken",
            (with(&[("SHOP_BIND", &taken)], "serve"), 1, vec!["`bind`", &taken]),
        ),
        (
            "port taken",
            (
                with(&[("SHOP_MANAGEMENT_BIND", &taken)], "work"),
                1,
                vec!["`management_bind`"],
            ),
        ),
        (
            "bad AMQP",
            (
                with(&[("SHOP_QUEUE_URL", "amqp://u:hunter2@h:port")], "work"),
                2,
                vec!["queue_url"],
            ),
        ),
        (
            "bad Redis",
            (
                with(&[("SHOP_CACHE_URL", "redis://:hunter2@h:port")], "serve"),
                2,
                vec!["cache_url"],
            ),
        ),
        (
            "key file",
            (
                with(
                    &[("SHOP_AUTH", "jwt"), ("SHOP_JWT_PUBLIC_KEY_FILE", "/nowhere.pem")],
                    "serve",
                ),
                2,
                vec!["jwt_public_key_file", "/nowhere.pem"],
            ),
        ),
    ]);
    for (case, (output, code, told)) in cases {
        let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
        let last = stderr.lines().last().unwrap_or_default();
        assert_eq!(output.status.code(), Some(code), "{case}: {stderr}");
        assert!(last.starts_with("shop: "), "{case}: {stderr}");
        for word in told {
            assert!(last.contains(word), "{case} does not say {word}: {last}");
        }
        assert!(
            !stderr.contains("hunter") && !stderr.contains("panicked"),
            "{case}: {stderr}"
        );
    }
}
