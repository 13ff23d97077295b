//! The shape of the project, read from its own source files: who may import whom, how long files and functions may be,
//! and which private words are gone.
//!
//! **Imports** run one way, as [`RULE`] says. Every `use` counts and every path in code, in the tests inside of `src`
//! too; comments do not.
//!
//! **Circles.** Modules side by side in one folder must not use each other in a circle, where a folder counts as one with
//! all that is in it, and a re-export counts for the file that defines the name. A module and what lies inside of it may
//! use each other: a `mod.rs` holds the types that its parts share, and puts the parts together.

mod circles;
mod imports;
mod limits;
mod rule;
mod source;

use imports::Imports;
use rule::Rule;
use source::Source;

/// `a → b` lets `a` use `b`, and whatever `b` may use. Modules in braces stand side by side.
///
/// So `http` and `domain` know nothing of each other: they meet in `api` alone, whose `errors` turns an error of the
/// domain into a problem document.
const RULE: [&str; 8] = [
    "main → cli → api → intake → tasks → app → {queue, cache} → domain → db → entities",
    "api → http → telemetry → config",
    "cli → server → http",
    "{queue, cache} → telemetry",
    "cli → seed → app",
    "intake → batch → domain",
    "{intake, tasks} → failpoints",
    "{batch, queue} → gathering",
];

/// Two entities relate to each other, and each names the other.
const CIRCLE_OF_ENTITIES: [&str; 2] = ["entities::order", "entities::order_item"];

#[test]
fn imports_run_one_way() {
    let sources = Source::rust("src");

    let wrong = Rule::read(&RULE).violations(&Imports::of(&sources));

    assert!(wrong.is_empty(), "{} wrong imports:\n{}", wrong.len(), wrong.join("\n"));
}

#[test]
fn a_wrong_import_is_found() {
    let rule = Rule::read(&RULE);
    let violations = |path: &str, text: &str| rule.violations(&Imports::of(&[Source::new(path, text)]));

    for (path, text) in [
        ("src/http/json.rs", "use crate::domain::Error;"),
        ("src/http/json.rs", "fn f() { crate::api::openapi::closed_schemas() }"),
        ("src/domain/orders/mod.rs", "use crate::{db::sql, queue::Queue};"),
        ("src/domain/ledger.rs", "use super::super::telemetry::metrics;"),
        (
            "src/telemetry/mod.rs",
            "mod tests { use crate::queue::new_traceparent; }",
        ),
        ("src/entities/order.rs", "pub use crate::domain::OrderId;"),
        ("src/failpoints.rs", "use crate::config::Config;"),
        ("src/queue/mod.rs", "use crate::cache;"),
        ("src/utils.rs", "use crate::config::Config;"),
    ] {
        assert_eq!(violations(path, text).len(), 1, "{path}: {text}");
    }
    for (path, text) in [
        (
            "src/api/orders/mod.rs",
            "use crate::{domain::orders, entities::Timestamp, http::prefer};",
        ),
        ("src/main.rs", "use shop::{cli::Cli, config::ConfigError};"),
        (
            "src/seed.rs",
            "use crate::{app::App, db, domain::catalog}; // not crate::api",
        ),
    ] {
        assert_eq!(violations(path, text), Vec::<String>::new(), "{path}: {text}");
    }

    let told = violations("src/http/json.rs", "\nuse crate::domain::Error;");
    assert!(
        told[0].starts_with("src/http/json.rs:2: `http` must not use `domain::Error`"),
        "{told:?}"
    );
}

#[test]
fn no_modules_use_each_other_in_a_circle() {
    let imports = Imports::of(&Source::rust("src"));

    let circles = circles::find(&imports, &CIRCLE_OF_ENTITIES);

    assert!(circles.is_empty(), "{}", circles.join("\n"));
}

#[test]
fn a_circle_is_found() {
    let circles = |files: &[(&str, &str)]| {
        let sources: Vec<Source> = files.iter().map(|(path, text)| Source::new(path, text)).collect();
        circles::find(&Imports::of(&sources), &["a::x", "a::y"])
    };

    // Through a folder, and behind a re-export of the parent.
    let found = circles(&[
        ("src/a/mod.rs", "mod left; mod right; mod mid; pub use mid::Mid;"),
        ("src/a/left.rs", "use super::Mid;"),
        ("src/a/mid/mod.rs", "mod inner; pub struct Mid;"),
        ("src/a/mid/inner.rs", "use super::super::right::Right;"),
        ("src/a/right.rs", "fn f() { crate::a::left::g() }"),
    ]);
    assert_eq!(found.len(), 1, "{found:?}");
    for part in ["a::left", "a::mid", "a::right", "src/a/mid/inner.rs:1"] {
        assert!(found[0].contains(part), "{part}: {found:?}");
    }

    let of_parent_and_child = [("src/a/mod.rs", "mod b; use b::B;"), ("src/a/b.rs", "use super::A;")];
    assert_eq!(circles(&of_parent_and_child), Vec::<String>::new());
    let excepted = [
        ("src/a/x.rs", "use super::y::Y;"),
        ("src/a/y.rs", "use super::x::X;"),
        ("src/a/mod.rs", ""),
    ];
    assert_eq!(circles(&excepted), Vec::<String>::new());
}

#[test]
fn files_functions_and_folders_stay_small() {
    let rust: Vec<Source> = ["src", "migration", "tests", "benches"]
        .into_iter()
        .flat_map(Source::rust)
        .collect();
    let scripts = Source::under("tests", |extension| !["rs", "pem", "pyc"].contains(&extension));

    let mut wrong = limits::long_files(rust.iter().chain(&scripts));
    wrong.extend(limits::long_functions(&rust));
    wrong.extend(limits::long_functions_of_scripts(&scripts));
    wrong.extend(limits::large_folders(&rust));

    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn long_functions_are_in_paragraphs() {
    let folders = ["src", "migration", "tests", "benches"].into_iter();
    let walls: Vec<String> = folders
        .flat_map(|folder| limits::walls_of_text(&Source::rust(folder)))
        .collect();

    assert!(walls.is_empty(), "{} functions:\n{}", walls.len(), walls.join("\n"));
}

#[test]
fn private_words_are_gone_from_the_source() {
    let found = limits::private_words(&Source::rust("src"));

    assert!(
        found.len() < limits::PRIVATE_WORDS_LEFT,
        "{} lines hold words that only this project used; say it in the words of the field:\n{}",
        found.len(),
        found.join("\n")
    );
}
