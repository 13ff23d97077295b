//! Holds a history to the rules: every change of an order is a step of its life, by the very relation that the model explores,
//! and every transaction moves exactly the units, holds and events that its steps call for.

use std::collections::{BTreeMap, HashMap};

use serde_json::Value;
use shop::{
    domain::transition::OrderState,
    entities::{
        Timestamp,
        order::{FailureReason, OrderStatus},
    },
};
use time::{OffsetDateTime, format_description::well_known::Rfc3339};

use super::{HoldEnds, record::Change, step::is_step};

/// What may change about an order. All else is fixed when it is made.
const CHANGING: [&str; 10] = [
    "status",
    "accepted_at",
    "expires_at",
    "settled_at",
    "failure",
    "updated_at",
    "notify_after",
    "notify_attempts",
    // Set with the status, for the periodic ledger check.
    "ledger_period",
    "payment_reference",
];

/// What a history shows.
#[derive(Debug, Default)]
pub struct Findings {
    /// How many steps of each kind there were.
    pub steps: BTreeMap<&'static str, usize>,
    /// What is against the rules.
    pub faults: Vec<String>,
}

/// An order's row, as far as it has a life.
struct Row {
    id: String,
    state: OrderState,
    updated_at: Timestamp,
    notify_after: Option<Timestamp>,
    notify_attempts: i64,
    ledger_period: Value,
    /// The charge that paid it.
    payment_reference: Value,
    /// The other columns.
    fixed: Value,
}

/// Checks all changes of a database, in the order in which they were recorded. Tests that make holds end sooner do so by hand,
/// which `hold_ends` says.
pub fn check(changes: &[Change], hold_ends: HoldEnds) -> Findings {
    let mut findings = Findings::default();
    let mut latest: HashMap<String, &Value> = HashMap::new();

    for change in changes.iter().filter(|change| change.table == "orders") {
        let row = |value: &Option<Value>| value.as_ref().map(Row::of);
        let (before, after) = (row(&change.before), row(&change.after));
        match step(before.as_ref(), after.as_ref(), hold_ends) {
            Ok(kind) => *findings.steps.entry(kind).or_default() += 1,
            Err(fault) => findings.faults.push(format!("{fault}: {change:?}")),
        }

        let Some(id) = after.or(before).map(|row| row.id) else {
            continue;
        };
        let last = match &change.after {
            Some(after) => latest.insert(id, after),
            None => latest.remove(&id),
        };
        if last.is_some_and(|last| change.before.as_ref() != Some(last)) {
            findings
                .faults
                .push(format!("a change before this one is missing: {change:?}"));
        }
    }

    findings.faults.extend(faults_of_lines(changes));
    findings.faults.extend(faults_of_transactions(changes));
    findings
}

/// The kind of the step, or what is wrong with it.
fn step(before: Option<&Row>, after: Option<&Row>, hold_ends: HoldEnds) -> Result<&'static str, &'static str> {
    let (Some(old), Some(new)) = (before, after) else {
        let is_made = is_step(
            None,
            after.map(|row| &row.state),
            after.map_or(Timestamp(0), |row| row.updated_at),
        );
        return if is_made {
            Ok("made")
        } else {
            Err("not how an order begins, or it was deleted")
        };
    };
    if old.fixed != new.fixed {
        return Err("a column that is fixed has changed");
    }
    if old.ledger_period != new.ledger_period && old.state.settled_at == new.state.settled_at {
        return Err("the period of the ledger is set with the outcome");
    }
    let is_accepted_now = old.state.accepted_at.is_none() && new.state.accepted_at.is_some();
    if old.payment_reference != new.payment_reference && !is_accepted_now {
        return Err("a charge is written with the acceptance, and never changes");
    }
    if old.state == new.state {
        return swept(old, new);
    }
    let is_moved = |new: &Row| {
        OrderState {
            expires_at: old.state.expires_at,
            ..new.state
        } == old.state
    };
    if hold_ends == HoldEnds::MovedByTheTest && old.state.has_open_hold() && is_moved(new) {
        return Ok("the test has moved the end of the hold");
    }

    if !is_step(Some(&old.state), Some(&new.state), new.updated_at) {
        return Err("not a step of an order's life");
    }
    if old.notify_attempts != new.notify_attempts {
        return Err("only the sweeper counts its attempts");
    }
    Ok(match (new.state.status, new.state.failure) {
        (OrderStatus::Pending, _) if new.notify_after > new.state.accepted_at => "accepted",
        (OrderStatus::Pending, _) => return Err("accepted, and the sweeper does not know when it is due"),
        (OrderStatus::Paid, _) => "paid",
        (OrderStatus::Failed, Some(reason)) => reason.as_str(),
        (OrderStatus::Failed, None) => return Err("failed without a reason"),
        (OrderStatus::Other(_), _) => return Err("no status that this version knows"),
    })
}

/// The sweeper claims an order, releases it or makes it due.
fn swept(old: &Row, new: &Row) -> Result<&'static str, &'static str> {
    let is_due = new.state.status == OrderStatus::Pending && new.state.accepted_at.is_some();
    match new.notify_attempts - old.notify_attempts {
        _ if !is_due => Err("nothing may change about an order that is not waiting to be settled"),
        1 => Ok("claimed by the sweeper"),
        -1 | 0 => Ok("made due again by the sweeper"),
        _ => Err("only the sweeper counts its attempts, one by one"),
    }
}

fn faults_of_lines(changes: &[Change]) -> impl Iterator<Item = String> {
    let rewritten = changes
        .iter()
        .filter(|change| change.table == "order_items" && change.before.is_some());
    rewritten.map(|change| format!("a line has changed: {change:?}"))
}

/// What one transaction did to a product, and what its steps call for.
#[derive(Debug, Default, PartialEq, Eq)]
struct Moved {
    stock: i64,
    held: i64,
}

/// Stock and holds move by what the orders of the transaction and the stock movements say, and by nothing else; an order that
/// is closed without a payment leaves its event in the outbox.
fn faults_of_transactions(changes: &[Change]) -> Vec<String> {
    let mut units: HashMap<String, Vec<(i64, i64)>> = HashMap::new();
    for line in changes
        .iter()
        .filter(|change| change.table == "order_items")
        .filter_map(|change| change.after.as_ref())
    {
        units
            .entry(text(&line["order_id"]))
            .or_default()
            .push((number(&line["product_id"]), number(&line["quantity"])));
    }
    let mut transactions: BTreeMap<i64, Vec<&Change>> = BTreeMap::new();
    for change in changes {
        if let Some(transaction) = change.transaction {
            transactions.entry(transaction).or_default().push(change);
        }
    }

    let mut faults = Vec::new();
    for (number, transaction) in &transactions {
        let (done, due) = (moved(transaction), called_for(transaction, &units));
        if done != due {
            faults.push(format!(
                "transaction {number} moved {done:?}, and its steps call for {due:?}: {transaction:?}"
            ));
        }
        let (stored, closed) = (stored_events(transaction), closed_orders(transaction));
        if stored != closed {
            faults.push(format!(
                "transaction {number} stored {stored:?}, and has closed {closed:?}: {transaction:?}"
            ));
        }
    }
    faults
}

/// What became of the products.
fn moved(transaction: &[&Change]) -> BTreeMap<i64, Moved> {
    let mut moved: BTreeMap<i64, Moved> = BTreeMap::new();
    for change in transaction.iter().filter(|change| change.table == "products") {
        let Some(after) = &change.after else { continue };
        let of = moved.entry(number(&after["id"])).or_default();
        let before = |column: &str| change.before.as_ref().map_or(0, |before| number(&before[column]));
        of.stock += number(&after["stock"]) - before("stock");
        of.held += number(&after["held"]) - before("held");
    }
    moved.retain(|_, moved| *moved != Moved::default());
    moved
}

/// What its orders and stock movements say.
fn called_for(transaction: &[&Change], units: &HashMap<String, Vec<(i64, i64)>>) -> BTreeMap<i64, Moved> {
    let mut due: BTreeMap<i64, Moved> = BTreeMap::new();
    for movement in transaction.iter().filter(|change| change.table == "stock_movements") {
        let Some(after) = &movement.after else { continue };
        due.entry(number(&after["product_id"])).or_default().stock += number(&after["delta"]);
    }

    for change in transaction.iter().filter(|change| change.table == "orders") {
        let row = |value: &Option<Value>| value.as_ref().map(Row::of);
        let (before, after) = (row(&change.before), row(&change.after));
        let holds = |row: &Option<Row>| i64::from(row.as_ref().is_some_and(|row| row.state.has_open_hold()));
        let is_paid =
            |row: &Option<Row>| i64::from(row.as_ref().is_some_and(|row| row.state.status == OrderStatus::Paid));

        let id = after
            .as_ref()
            .or(before.as_ref())
            .map(|row| row.id.clone())
            .unwrap_or_default();
        for (product, quantity) in units.get(&id).into_iter().flatten() {
            let of = due.entry(*product).or_default();
            of.held += quantity * (holds(&after) - holds(&before));
            of.stock -= quantity * (is_paid(&after) - is_paid(&before));
        }
    }
    due.retain(|_, moved| *moved != Moved::default());
    due
}

fn stored_events(transaction: &[&Change]) -> Vec<String> {
    let stored = transaction
        .iter()
        .filter(|change| change.table == "outbox" && change.before.is_none());
    let of_orders = stored.filter_map(|change| {
        let event = change.after.as_ref()?["event_id"].as_str()?;
        Some(event.strip_suffix("/settled")?.to_owned())
    });
    sorted(of_orders)
}

fn closed_orders(transaction: &[&Change]) -> Vec<String> {
    let orders = transaction.iter().filter(|change| change.table == "orders");
    let closed = orders.filter_map(|change| {
        let (before, after) = (Row::of(change.before.as_ref()?), Row::of(change.after.as_ref()?));
        let is_closed = |row: &Row| {
            matches!(
                row.state.failure,
                Some(FailureReason::Cancelled | FailureReason::Expired)
            )
        };
        (is_closed(&after) && !is_closed(&before)).then_some(after.id)
    });
    sorted(closed)
}

fn sorted(ids: impl Iterator<Item = String>) -> Vec<String> {
    let mut ids: Vec<String> = ids.collect();
    ids.sort();
    ids
}

impl Row {
    fn of(row: &Value) -> Self {
        let mut fixed = row.clone();
        for column in CHANGING {
            fixed.as_object_mut().expect("a row").remove(column);
        }
        Self {
            id: text(&row["id"]),
            state: OrderState {
                status: match row["status"].as_str() {
                    Some("PENDING") => OrderStatus::Pending,
                    Some("PAID") => OrderStatus::Paid,
                    Some("FAILED") => OrderStatus::Failed,
                    other => panic!("a status {other:?}"),
                },
                accepted_at: instant(&row["accepted_at"]),
                expires_at: instant(&row["expires_at"]),
                settled_at: instant(&row["settled_at"]),
                failure: reason(&row["failure"]),
            },
            updated_at: instant(&row["updated_at"]).expect("an instant"),
            notify_after: instant(&row["notify_after"]),
            notify_attempts: number(&row["notify_attempts"]),
            ledger_period: row["ledger_period"].clone(),
            payment_reference: row["payment_reference"].clone(),
            fixed,
        }
    }
}

/// RFC 3339 from PostgreSQL, microseconds from SQLite.
fn instant(value: &Value) -> Option<Timestamp> {
    match value {
        Value::Null => None,
        Value::String(text) => {
            let instant = OffsetDateTime::parse(text, &Rfc3339).expect("RFC 3339");
            Some(Timestamp(
                i64::try_from(instant.unix_timestamp_nanos() / 1_000).expect("in this age"),
            ))
        }
        other => Some(Timestamp(number(other))),
    }
}

fn reason(failure: &Value) -> Option<FailureReason> {
    let failure = match failure {
        Value::Null => return None,
        Value::String(text) => serde_json::from_str(text).expect("JSON"),
        other => other.clone(),
    };
    Some(serde_json::from_value(failure["reason"].clone()).expect("a known reason"))
}

fn number(value: &Value) -> i64 {
    value.as_i64().unwrap_or_else(|| panic!("{value} is no number"))
}

fn text(value: &Value) -> String {
    value
        .as_str()
        .unwrap_or_else(|| panic!("{value} is no text"))
        .to_owned()
}
