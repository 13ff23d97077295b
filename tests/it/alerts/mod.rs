//! The alerts of `config/observability/rules.yml`: each has its runbook, and each fires when what it watches is broken for
//! real. A Prometheus of the test's own scrapes the processes and evaluates the rules, a hundred times as fast.

mod broken;
mod runbooks;

use std::{cell::RefCell, collections::BTreeSet};

use serde_json::Value;

use crate::{
    servers::Prometheus,
    support::{Client, Shop, eventually},
};

const RULES: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/config/observability/rules.yml");

fn rules_text() -> String {
    std::fs::read_to_string(RULES).expect("the rules")
}

/// Every rule, as its file has it.
pub fn rules() -> Vec<Value> {
    let rules: Value = serde_norway::from_str(&rules_text()).expect("YAML");
    let groups = rules["groups"].as_array().expect("groups");
    let rules = groups
        .iter()
        .flat_map(|group| group["rules"].as_array().expect("rules"));
    rules.cloned().collect()
}

fn alert_names() -> BTreeSet<String> {
    let name = |rule: &Value| rule["alert"].as_str().expect("a name").to_owned();
    rules().iter().map(name).collect()
}

/// A Prometheus that watches processes, and the alerts that have been seen firing.
struct Alarm {
    prometheus: Prometheus,
    api: Client,
    seen: RefCell<BTreeSet<&'static str>>,
}

impl Alarm {
    fn start() -> Self {
        let prometheus = Prometheus::start(&rules_text());
        Self {
            api: Client::new(&prometheus.address()),
            prometheus,
            seen: RefCell::default(),
        }
    }

    fn watch(&self, serve: &Shop, work: &Shop) {
        self.prometheus.scrape(&[
            ("shop-serve", serve.wait_for("management")),
            ("shop-work", work.wait_for("management")),
        ]);
    }

    /// Waits until the alert fires, with this label unless it is empty.
    async fn fires(&self, alert: &'static str, (label, value): (&str, &str)) {
        eventually(&format!("{alert} fires"), || async {
            let firing = self.firing().await;
            let is_it = |labels: &&Value| labels["alertname"] == alert && (label.is_empty() || labels[label] == value);
            firing.iter().find(is_it).map(|_| ())
        })
        .await;
        self.seen.borrow_mut().insert(alert);
    }

    /// Waits until the processes have been scraped, those that settle orders among them, and no alert fires.
    async fn is_quiet(&self) {
        eventually("the processes are scraped and no alert fires", || async {
            let depth = self.api.get("/api/v1/query?query=shop_queue_depth").await.body;
            let is_scraped = depth["data"]["result"]
                .as_array()
                .is_some_and(|found| !found.is_empty());
            (is_scraped && self.firing().await.is_empty()).then_some(())
        })
        .await;
    }

    /// The labels of the alerts that fire.
    async fn firing(&self) -> Vec<Value> {
        let answer = self.api.get("/api/v1/alerts").await.body;
        let alerts = answer["data"]["alerts"].as_array().cloned().unwrap_or_default();
        let firing = alerts.into_iter().filter(|alert| alert["state"] == "firing");
        firing.map(|alert| alert["labels"].clone()).collect()
    }

    /// Asserts that just these were seen.
    fn has_seen(&self, alerts: &[&'static str]) {
        assert_eq!(*self.seen.borrow(), alerts.iter().copied().collect());
    }
}
