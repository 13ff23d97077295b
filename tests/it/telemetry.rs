//! Telemetry: metrics, messages, traces and logs, compared with what is documented of them.

use std::{
    collections::BTreeSet,
    fmt::Write as _,
    fs,
    io::Write as _,
    process::{Command, Stdio},
    sync::{Arc, Mutex},
};

use opentelemetry_proto::tonic::{
    collector::trace::v1::ExportTraceServiceRequest,
    trace::v1::{Span, span::SpanKind},
};
use poem::{EndpointExt as _, Server, listener::TcpListener, web::Data};
use prost::Message as _;
use serde_json::{Value, json};
use shop::entities::Timestamp;

use crate::{
    alerts,
    servers::{self, Postgres},
    support::{Answer, Backend, Client, EventListener, Shop, end_holds, eventually, run_to_end},
};

const OBSERVABILITY: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/config/observability");

/// One order PAID, one FAILED, a page read twice.
pub async fn some_business(client: &Client) {
    for quantity in [1, 1_000] {
        let id = client.order(&[(1, quantity)]).await;
        client.pay(&id).await;
        client.settled(&id).await;
        client.get(&format!("/orders/{id}")).await;
    }
    client.get("/products").await;
    client.get("/products").await;
}

/// Asserts that `promtool` accepts `input` without a warning.
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
    let report = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && !report.contains("should"), "{report}");
}

#[tokio::test(flavor = "multi_thread")]
async fn metrics_are_well_formed_and_dashboard_and_alerts_use_only_existing_ones() {
    let backend = Backend::servers();
    backend.stock(&[(100, 100)]).await;
    let shop = Shop::serve(&backend);
    let workers = Shop::workers(&backend, 1);
    some_business(&shop.client()).await;

    let mut names = BTreeSet::new();
    for management in [shop.management(), workers[0].management()] {
        // Gauges are sampled every few seconds, so they appear after the first sample.
        let text = eventually("the gauges are sampled", || async {
            let text = management.get("/metrics").await.body.as_str().expect("text").to_owned();
            ["shop_dead_letters_waiting", "shop_dependency_up{dependency=\"cache\"}"]
                .iter()
                .all(|gauge| text.contains(gauge))
                .then_some(text)
        })
        .await;
        promtool(&["check", "metrics"], &text);
        names.extend(
            text.lines()
                .filter_map(|line| Some(line.strip_prefix("# TYPE ")?.split(' ').next()?.to_owned())),
        );
    }
    let text = shop.management().get("/metrics").await.body;
    let text = text.as_str().expect("text");
    assert!(
        text.contains("route=\"/orders/{id}\"") && !text.contains("route=\"/orders/0"),
        "{text}"
    );

    promtool(&["check", "rules", &format!("{OBSERVABILITY}/rules.yml")], "");
    // Where the rules are in the container is not where they are here.
    let config = format!("{OBSERVABILITY}/prometheus.yml");
    promtool(&["check", "config", "--syntax-only", &config], "");
    let expression = |rule: &Value| rule["expr"].as_str().expect("an expression").to_owned();
    let rules: Vec<String> = alerts::rules().iter().map(expression).collect();
    let panels = dashboard_expressions();
    assert!(panels.len() > 20 && rules.len() > 12);
    let is_name = |letter: char| letter.is_ascii_alphanumeric() || letter == '_';
    for expression in panels.iter().chain(&rules) {
        let words = expression.split(|letter| !is_name(letter));
        for name in words.filter(|word| word.starts_with("shop_") || word.starts_with("process_")) {
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

fn dashboard_expressions() -> Vec<String> {
    let dashboard = fs::read_to_string(format!("{OBSERVABILITY}/dashboard.json")).expect("the dashboard");
    let dashboard: Value = serde_json::from_str(&dashboard).expect("JSON");
    let panels = dashboard["panels"].as_array().expect("panels");
    let targets = panels
        .iter()
        .flat_map(|panel| panel["targets"].as_array().expect("targets"));
    targets
        .map(|target| target["expr"].as_str().expect("an expression").to_owned())
        .collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_published_is_what_the_asyncapi_document_says() {
    let backend = Backend::servers();
    let app = backend.stock(&[(100, 6)]).await;
    let mut events = EventListener::on(&backend).await;
    let shop = Shop::serve(&backend);
    let _workers = Shop::workers(&backend, 1);
    let client = shop.client();
    for quantity in [2, 100] {
        let id = client.order(&[(1, quantity)]).await;
        client.pay(&id).await;
        client.settled(&id).await;
    }

    let paid = client.order(&[(1, 1)]).await;
    client.pay(&paid).await;
    client.settled(&paid).await;
    let items = json!([{ "product_id": 1, "quantity": 1, "restock": true }]);
    let refund = json!({ "items": items, "reason": "returned" });
    let refunded = client
        .post_with_key(&format!("/orders/{paid}/refunds"), "return", &refund)
        .await;
    assert_eq!(refunded.status, 201, "{refunded:?}");

    let cancelled = client.held_order(&[(1, 1)]).await;
    client.cancel(&cancelled).await;
    let expired = client.held_order(&[(1, 1)]).await;
    end_holds(&app, Timestamp::now(), &[expired.parse().expect("an id")]).await;

    let printed = run_to_end(&backend, &["openapi", "--async"], &[]);
    let document: Value = serde_json::from_slice(&printed.stdout).expect("JSON");
    assert_eq!(document["asyncapi"], "3.0.0");
    let messages = document["components"]["messages"].as_object().expect("messages");

    let mut kinds = BTreeSet::new();
    while kinds.len() < 6 {
        let event = events.next().await;
        let described = messages
            .values()
            .find(|message| message["name"] == event["type"])
            .expect("it is described");
        let errors: Vec<String> = jsonschema::validator_for(&described["payload"])
            .expect("a schema")
            .iter_errors(&event)
            .map(|error| format!("{}: {error}", error.instance_path()))
            .collect();
        assert!(errors.is_empty(), "{event}: {errors:?}");
        let reason = event["data"]["failure"]["reason"].as_str().unwrap_or_default();
        kinds.insert((event["type"].as_str().expect("text").to_owned(), reason.to_owned()));
    }
}

/// The endpoint of a collector, and the spans that it has received.
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

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
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
    assert_eq!(Answer::of(pay).await.status, 202);
    client.settled(&id).await;
    // Spans that are still buffered are exported at the end of a process.
    assert!(shop.terminate().success() && work.terminate().success());

    let spans = spans.lock().expect("not poisoned").clone();
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
    Answer::of(pay).await.problem(503, "database-unavailable");

    shop.wait_for("answered 503");
    let log = shop.log();
    let lines = log.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    let line = lines
        .into_iter()
        .find(|line| line["message"] == "answered 503")
        .expect("it was logged");
    assert_eq!(
        (&line["request_id"], &line["trace_id"]),
        (&json!("my-own-id"), &json!(trace)),
        "{line}"
    );
    assert_eq!(line["order_id"], id.as_str());
    assert!(!log.contains("hunter2"));
}
