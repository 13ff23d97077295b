//! Each alert leads to its section of `docs/operations.md`, and each section there to its alert.

use std::collections::BTreeSet;

use super::{alert_names, rules};
use crate::docs::pages::read;

/// What each section says, in this order.
const PARTS: [&str; 4] = ["**Meaning.**", "**Customers.**", "**Look at.**", "**Do.**"];

/// The sections below "Runbooks", by their headings.
fn runbooks() -> Vec<(String, String)> {
    let page = read("docs/operations.md");
    let (_, after) = page.split_once("\n## Runbooks\n").expect("the runbooks");
    let runbooks = after.split("\n## ").next().expect("a part");
    let sections = runbooks.split("\n### ").skip(1);
    sections
        .map(|section| section.split_once('\n').expect("a heading"))
        .map(|(heading, body)| (heading.to_owned(), body.to_owned()))
        .collect()
}

#[test]
fn every_alert_has_its_runbook_and_every_runbook_its_alert() {
    let headings: BTreeSet<String> = runbooks().into_iter().map(|(heading, _)| heading).collect();
    assert_eq!(headings, alert_names());

    for rule in rules() {
        let name = rule["alert"].as_str().expect("a name");
        let section = format!("docs/operations.md#{}", name.to_lowercase());
        assert_eq!(rule["annotations"]["runbook_url"], section, "{name}");
        for annotation in ["summary", "description"] {
            assert!(
                rule["annotations"][annotation].is_string(),
                "{name} has no {annotation}"
            );
        }
        let severity = rule["labels"]["severity"].as_str();
        assert!(matches!(severity, Some("page" | "ticket")), "{name}: {severity:?}");
    }
}

#[test]
fn every_runbook_says_what_it_means_what_customers_see_what_to_look_at_and_what_to_do() {
    for (heading, body) in runbooks() {
        let mut rest = body.as_str();
        for part in PARTS {
            let (_, after) = rest.split_once(part).unwrap_or_else(|| panic!("{heading}: no {part}"));
            let said = after.split("**").next().unwrap_or_default().trim();
            assert!(said.len() > 20, "{heading}: {part} {said}");
            rest = after;
        }
    }
}
