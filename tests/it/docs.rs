//! The documentation, held against the program: every link leads somewhere, every block marked `runnable` works as written
//! and prints what is shown below it, and the lists of settings, metrics, problems and promises are complete.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Write as _,
    fs,
    path::Path,
    process::Command,
};

use serde_json::Value;
use shop::entities::order::FailureReason;
use time::{OffsetDateTime, format_description::well_known::Rfc3339};
use uuid::Uuid;

pub mod pages;

use pages::{Block, ROOT, blocks, fault_of, files, is_word, links, normal, pages, read, rows};

use crate::{
    servers::run::program,
    support::{Backend, Shop, run_to_end},
};

/// What stands before the output of each block.
const MARK: &str = "@@ block";

#[test]
fn every_relative_link_leads_somewhere_and_every_page_is_reached() {
    let pages = pages();
    let mut faults = Vec::new();
    let mut reached = BTreeSet::from(["README.md".to_owned()]);
    let mut waiting = vec!["README.md".to_owned()];

    for page in &pages {
        for link in links(&read(page)) {
            faults.extend(fault_of(page, &link).map(|fault| format!("{page}: {link}: {fault}")));
        }
    }
    while let Some(page) = waiting.pop() {
        let folder = Path::new(&page).parent().unwrap_or(Path::new(""));
        for link in links(&read(&page)) {
            let target = normal(&folder.join(link.split('#').next().unwrap_or_default()));
            if pages.contains(&target) && reached.insert(target.clone()) {
                waiting.push(target);
            }
        }
    }

    let lost = pages
        .iter()
        .filter(|page| !page.starts_with(".github/") && !reached.contains(*page));
    faults.extend(lost.map(|page| format!("{page}: no way leads here from README.md")));
    assert!(faults.is_empty(), "{}", faults.join("\n"));
}

#[test]
fn the_readme_is_for_two_minutes() {
    let lines = read("README.md").lines().count();
    assert!(lines <= 130, "{lines} lines");
}

#[tokio::test(flavor = "multi_thread")]
async fn every_runnable_block_works_as_written_and_answers_what_is_shown() {
    let mut run = BTreeMap::new();
    for page in pages() {
        let blocks = blocks(&read(&page));
        if blocks.iter().any(|block| block.is("runnable")) {
            run.insert(page.clone(), run_page(&page, &blocks));
        }
    }
    let commands: String = run.values().flatten().cloned().collect();
    for expected in [
        "/pay",
        "--config",
        "shop verify",
        "shop openapi",
        "shop migrate status",
        "shop seed",
    ] {
        assert!(commands.contains(expected), "no runnable block has {expected}");
    }
    assert!(run.contains_key("README.md"));
}

#[test]
fn every_setting_is_documented_with_its_variable_default_and_bounds() {
    let rows = rows("docs/configuration.md");
    let defaults = read("config/default.toml");
    let is_key =
        |text: &str| !text.is_empty() && text.chars().all(|letter| letter.is_ascii_lowercase() || letter == '_');
    let keys: BTreeMap<&str, &str> = defaults
        .lines()
        .filter_map(|line| line.split_once(" = "))
        .filter(|(key, _)| is_key(key))
        .collect();

    let documented: BTreeSet<&str> = rows.iter().filter_map(|row| row[0].strip_prefix("SHOP_")).collect();
    let variables: BTreeSet<String> = keys.keys().map(|key| key.to_uppercase()).collect();
    let variables: BTreeSet<&str> = variables.iter().map(String::as_str).collect();
    assert_eq!(
        documented, variables,
        "the settings of docs/configuration.md and of config/default.toml"
    );

    let mut bounded = 0;
    for (key, default) in keys {
        let variable = format!("SHOP_{}", key.to_uppercase());
        let row = rows.iter().find(|row| row[0] == variable).expect("compared above");
        let default = default.trim_matches('"');
        let shown = if default.is_empty() { "empty" } else { default };
        assert_eq!(row[1], shown, "the default of {variable}");
        if let Some((min, max)) = row[2].split_once(" to ") {
            let [min, max] = [min, max].map(|bound| bound.replace(',', "").parse().expect(&variable));
            check_bounds(&variable, min, max);
            bounded += 1;
        }
    }
    assert!(bounded > 10, "{bounded}");
}

/// The program takes both bounds, and nothing beyond them.
fn check_bounds(variable: &str, min: i64, max: i64) {
    let backend = Backend::embedded();
    // Where nobody answers, so that what is taken ends with another exit code.
    let nobody = ("SHOP_MANAGEMENT_BIND", "127.0.0.1:1");
    for (value, code) in [(min - 1, 2), (min, 1), (max, 1), (max + 1, 2)] {
        let value = value.to_string();
        let output = run_to_end(&backend, &["health"], &[nobody, (variable, &value)]);
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(code), "{variable}={value}: {stderr}");
    }
}

fn is_metric(name: &str) -> bool {
    name.starts_with("shop_") || name.starts_with("process_")
}

#[test]
fn every_metric_is_documented_and_every_documented_metric_exists() {
    let mut names = BTreeSet::new();
    for file in files(&Path::new(ROOT).join("src"), "rs") {
        let text = fs::read_to_string(&file).expect("a source file");
        let quoted = text.split('"').filter(|text| is_metric(text));
        names.extend(quoted.filter(|name| name.chars().all(is_word)).map(str::to_owned));
    }
    let page = read("docs/operations.md");
    let documented = page.split('`').map(|code| code.split('{').next().unwrap_or_default());
    let documented: BTreeSet<String> = documented
        .filter(|name| is_metric(name) && name.chars().all(is_word))
        .filter(|name| !["shop_migrate", "shop_serve", "shop_work"].contains(name))
        .map(str::to_owned)
        .collect();
    assert!(names.len() > 15, "{names:?}");
    assert_eq!(documented, names, "the metrics of docs/operations.md and of the code");
}

#[test]
fn every_operation_and_every_problem_is_documented() {
    let page = read("docs/api.md");
    let printed = run_to_end(&Backend::embedded(), &["openapi"], &[]);
    let document: Value = serde_json::from_slice(&printed.stdout).expect("JSON");
    for (path, operations) in document["paths"].as_object().expect("paths") {
        for method in operations.as_object().expect("operations").keys() {
            let operation = format!("`{} {path}`", method.to_uppercase());
            assert!(page.contains(&operation), "docs/api.md does not have {operation}");
        }
    }

    // No operation answers these: they are for methods that a path does not have, and for what no operation reads.
    let mut problems = BTreeSet::from([
        ("method-not-allowed".to_owned(), "405".to_owned()),
        ("expectation-failed".to_owned(), "417".to_owned()),
        ("not-implemented".to_owned(), "501".to_owned()),
    ]);
    find_problems(&document, &mut problems);
    let documented: BTreeSet<(String, String)> = rows("docs/api.md")
        .into_iter()
        .map(|row| (row[0].clone(), row[1].clone()))
        .filter(|(_, status)| status.len() == 3 && status.parse::<u16>().is_ok())
        .collect();
    assert!(problems.len() > 15, "{problems:?}");
    assert_eq!(
        documented, problems,
        "the problems of docs/api.md and of the OpenAPI document"
    );
}

/// Every type of problem among the examples of the document, with its status.
fn find_problems(value: &Value, problems: &mut BTreeSet<(String, String)>) {
    let slug = value["type"]
        .as_str()
        .and_then(|kind| kind.strip_prefix("urn:shop:problem:"));
    if let Some(slug) = slug {
        problems.insert((slug.to_owned(), value["status"].to_string()));
    }
    match value {
        Value::Array(values) => values.iter().for_each(|value| find_problems(value, problems)),
        Value::Object(fields) => fields.values().for_each(|value| find_problems(value, problems)),
        _ => {}
    }
}

#[test]
fn every_way_out_of_an_order_is_in_the_diagram_and_in_the_api_description() {
    let printed = run_to_end(&Backend::embedded(), &["openapi"], &[]);
    let document: Value = serde_json::from_slice(&printed.stdout).expect("JSON");
    let description = document["info"]["description"].as_str().expect("text");
    let (_, life) = description
        .split_once("life of an order")
        .expect("the life of an order");
    let page = read("docs/architecture.md");
    let (_, diagram) = page.split_once("stateDiagram").expect("a diagram");
    let (diagram, _) = diagram.split_once("```").expect("its end");

    let reasons = [
        FailureReason::InsufficientStock,
        FailureReason::Cancelled,
        FailureReason::Expired,
    ];
    let words = reasons.map(FailureReason::as_str).into_iter();
    for word in words.chain([
        "PENDING",
        "PAID",
        "hold_seconds",
        "expires_at",
        "accepted_at",
        "/pay",
        "/cancel",
    ]) {
        assert!(life.contains(word), "{word} is missing in the description of the API");
        assert!(diagram.contains(word), "{word} is missing in the diagram");
    }
}

#[test]
fn every_promise_names_a_test_that_exists() {
    let mut named = 0;
    for row in read("docs/guarantees.md").lines().filter(|line| line.starts_with("| ")) {
        let mut tests = String::new();
        for code in row.split('`').skip(1).step_by(2) {
            if code.split('.').next_back() == Some("rs") {
                tests = read(&format!("tests/it/{code}"));
            } else if code.chars().all(is_word) && code.contains('_') {
                assert!(
                    tests.contains(&format!("fn {code}(")),
                    "no test is called {code}: {row}"
                );
                named += 1;
            }
        }
    }
    assert!(named > 30, "{named}");
}

/// Runs the runnable blocks of a page one after another in one shell beside a shop of their own, as a reader would, and
/// gives what was run. The shop listens elsewhere than the page says.
fn run_page(page: &str, blocks: &[Block]) -> Vec<String> {
    let backend = Backend::embedded();
    let demo = Shop::start(&backend, &["serve", "--demo"], &[]);
    let (api, management) = (demo.wait_for("serving"), demo.wait_for("management"));
    let here = |text: &str| {
        text.replace("127.0.0.1:8080", &api)
            .replace("127.0.0.1:8081", &management)
    };
    let mut script = String::new();
    let mut shown: Vec<(usize, Vec<&Block>)> = Vec::new();
    for block in blocks {
        if block.is("runnable") {
            let _ = write!(script, "printf '\\n{MARK}\\n'\n{}", here(&block.body));
            shown.push((block.line, Vec::new()));
        } else if block.is("answer") {
            let (_, answers) = shown.last_mut().expect("an answer follows what gives it");
            answers.push(block);
        }
    }

    program("curl", "curl", &[]);
    let binary = Path::new(env!("CARGO_BIN_EXE_shop"))
        .parent()
        .expect("a folder")
        .display();
    let path = std::env::var("PATH").unwrap_or_default();
    let mut command = Command::new("timeout");
    command
        .args(["120", "bash", "-euo", "pipefail", "-c", &script])
        .current_dir(&backend.folder);
    for (key, _) in std::env::vars_os().filter(|(key, _)| key.to_string_lossy().starts_with("SHOP_")) {
        command.env_remove(key);
    }
    command
        .env("PATH", format!("{binary}:{path}"))
        .env("SHOP_MANAGEMENT_BIND", &management);
    let output = command.output().expect("bash is on every machine");
    let (stdout, stderr) = (
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr),
    );
    let printed: Vec<&str> = stdout.split(&format!("\n{MARK}\n")).skip(1).collect();
    let reached = shown.get(printed.len().saturating_sub(1)).map_or(0, |(line, _)| *line);
    assert!(
        output.status.success(),
        "{page}:{reached} fails, {}: {stdout}{stderr}",
        output.status
    );

    for ((line, answers), printed) in shown.iter().zip(printed) {
        let expected: String = answers.iter().map(|answer| here(&answer.body)).collect();
        let is_json = answers.iter().any(|answer| answer.info.starts_with("json"));
        if !answers.is_empty() {
            assert_eq!(
                comparable(&expected, is_json),
                comparable(printed, is_json),
                "{page}:{line}"
            );
        }
    }
    blocks
        .iter()
        .filter(|block| block.is("runnable"))
        .map(|block| block.body.clone())
        .collect()
}

/// What is the same at every run: ids and times are not, nor is how JSON is laid out.
fn comparable(text: &str, is_json: bool) -> Vec<String> {
    let is_part = |letter: char| letter.is_ascii_alphanumeric() || "-:.".contains(letter);
    let text: String = text
        .split_inclusive(|letter| !is_part(letter))
        .map(|piece| {
            let word = piece
                .trim_end_matches(|letter| !is_part(letter))
                .trim_end_matches(['.', ':']);
            if Uuid::parse_str(word).is_ok() {
                piece.replacen(word, "UUID", 1)
            } else if OffsetDateTime::parse(word, &Rfc3339).is_ok() {
                piece.replacen(word, "TIME", 1)
            } else {
                piece.to_owned()
            }
        })
        .collect();
    if is_json {
        let values = serde_json::Deserializer::from_str(&text).into_iter::<Value>();
        return values
            .map(|value| value.map_or_else(|error| format!("{error}: {text}"), |value| value.to_string()))
            .collect();
    }
    text.trim().lines().map(|line| line.trim_end().to_owned()).collect()
}
