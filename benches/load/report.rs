//! The table of results.

use std::time::Duration;

/// The measurements of one round.
#[derive(Clone, Copy, Debug, Default)]
pub struct Round {
    /// How many requests or orders there were.
    pub count: usize,
    /// Of them a second.
    pub rate: f64,
    pub p50: Duration,
    pub p99: Duration,
    pub max: Duration,
    /// The same for the floor, in the same round.
    pub floor: f64,
}

impl Round {
    /// What answers with these `latencies` make, sent within a time of `took`.
    pub fn of(mut latencies: Vec<Duration>, took: Duration) -> Self {
        latencies.sort_unstable();
        Self {
            count: latencies.len(),
            rate: latencies.len() as f64 / took.as_secs_f64(),
            p50: percentile(&latencies, 0.5),
            p99: percentile(&latencies, 0.99),
            max: latencies.last().copied().unwrap_or_default(),
            floor: 0.0,
        }
    }
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
            let seconds = median(rounds.iter().map(|round| value(round).as_secs_f64()).collect());
            milliseconds(Duration::from_secs_f64(seconds))
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

    /// A rate without a floor, its slowest answer, and its latencies.
    pub fn latencies(&mut self, scenario: &str, round: &Round) {
        self.add([
            scenario.to_owned(),
            format!("{:.0}/s, the slowest {}", round.rate, milliseconds(round.max)),
            String::new(),
            String::new(),
            milliseconds(round.p50),
            milliseconds(round.p99),
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

/// Empty for what was not measured.
fn milliseconds(latency: Duration) -> String {
    if latency.is_zero() {
        return String::new();
    }
    format!("{:.2} ms", latency.as_secs_f64() * 1e3)
}

/// The latency that `share` of the `sorted` ones do not exceed.
fn percentile(sorted: &[Duration], share: f64) -> Duration {
    let index = (sorted.len() as f64 * share) as usize;
    sorted.get(index).copied().unwrap_or_default()
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
