//! The table of results.

use std::time::Duration;

/// The measurements of one round.
#[derive(Clone, Copy, Debug, Default)]
pub struct Round {
    /// Requests or orders a second.
    pub rate: f64,
    pub p50: Duration,
    pub p99: Duration,
    /// The same for the floor, in the same round.
    pub floor: f64,
}

#[derive(Default)]
pub struct Table {
    rows: Vec<[String; 6]>,
}

impl Table {
    /// A rate beside its floor: medians over the rounds, and the median of the ratios of each round.
    pub fn rate(&mut self, scenario: &str, floor: &str, rounds: &[Round]) {
        let of = |value: fn(&Round) -> f64| median(rounds.iter().map(value).collect());
        let latency = |value: fn(&Round) -> Duration| {
            let milliseconds = median(rounds.iter().map(|round| value(round).as_secs_f64() * 1e3).collect());
            if milliseconds == 0.0 {
                String::new()
            } else {
                format!("{milliseconds:.2} ms")
            }
        };

        self.add([
            scenario.to_owned(),
            format!("{:.0}/s", of(|round| round.rate)),
            format!("{:.0}/s {floor}", of(|round| round.floor)),
            format!("{:.2}", of(|round| round.rate / round.floor)),
            latency(|round| round.p50),
            latency(|round| round.p99),
        ]);
    }

    /// A row with other values: scenario, measured, floor, ratio, p50, p99. What was not measured is empty.
    pub fn add(&mut self, row: [String; 6]) {
        eprintln!("{}", row.join(" | "));
        self.rows.push(row);
    }

    pub fn to_markdown(&self) -> String {
        let header = "| scenario | measured | floor | ratio | p50 | p99 |\n| --- | --- | --- | --- | --- | --- |\n";
        let rows = self.rows.iter().map(|row| format!("| {} |\n", row.join(" | ")));
        header.to_owned() + &rows.collect::<String>()
    }
}

pub fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    let middle = values.len() / 2;
    match values.len() {
        0 => 0.0,
        length if length % 2 == 1 => values[middle],
        _ => f64::midpoint(values[middle - 1], values[middle]),
    }
}
