//! The charts of the documentation: rows of the table that the benchmark prints, drawn as SVG.
//!
//! An `<img>` knows nothing of the page around it, so the background is transparent and every colour has enough contrast
//! on white and on the dark background of GitHub.

use std::fmt::Write as _;

/// The columns that follow the name of the scenario.
const COLUMNS: [&str; 5] = ["measured", "floor", "ratio", "p50", "p99"];

const WIDTH: f64 = 760.0;
/// The longest bar; its number stands to the right of it.
const LONGEST: f64 = 500.0;
const MARGIN: f64 = 12.0;
const BAR_HEIGHT: f64 = 12.0;
/// From one group of bars to the next.
const GROUP_HEIGHT: f64 = 58.0;
const HEADER_HEIGHT: f64 = 70.0;

pub const TEXT: &str = "#777b80";
pub const BLUE: &str = "#3b82f6";
pub const GREY: &str = "#8b949e";
pub const ORANGE: &str = "#d97706";

/// One line of the table. What a scenario does not measure is `None`.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Row {
    pub scenario: String,
    /// Per second.
    pub measured: Option<f64>,
    /// Per second, and by what.
    pub floor: Option<(f64, String)>,
    pub ratio: Option<f64>,
    /// In milliseconds.
    pub p50: Option<f64>,
    pub p99: Option<f64>,
}

struct Bar {
    value: f64,
    text: String,
}

struct Group {
    label: String,
    bars: [Bar; 2],
}

/// The rows of the benchmark's table in a Markdown text; none if it has no such table.
pub fn rows(markdown: &str) -> Vec<Row> {
    let tables = markdown.lines().skip_while(|line| !is_header(line));
    let body = tables.skip(2).take_while(|line| line.starts_with('|'));
    body.filter_map(row).collect()
}

/// Measured rates beside their floors, with the ratio; scenarios without a floor are left out.
pub fn throughput(rows: &[Row]) -> String {
    let groups = rows.iter().filter_map(|row| {
        let (measured, (floor, by)) = (row.measured?, row.floor.as_ref()?);
        let ratio = row.ratio.unwrap_or(measured / floor);
        Some(Group {
            label: row.scenario.clone(),
            bars: [
                Bar {
                    value: measured,
                    text: format!("{}/s = {ratio:.2} × floor", thousands(measured)),
                },
                Bar {
                    value: *floor,
                    text: format!("{}/s {by}", thousands(*floor)).trim_end().to_owned(),
                },
            ],
        })
    });
    let groups: Vec<Group> = groups.collect();
    draw("Throughput", [("measured", BLUE), ("floor", GREY)], &groups)
}

/// Latencies at the median and at the 99th percentile; scenarios without them are left out.
pub fn latency(rows: &[Row]) -> String {
    let bar = |milliseconds: f64| Bar {
        value: milliseconds,
        text: format!("{milliseconds:.2} ms"),
    };
    let groups = rows.iter().filter_map(|row| {
        Some(Group {
            label: row.scenario.clone(),
            bars: [bar(row.p50?), bar(row.p99?)],
        })
    });
    let groups: Vec<Group> = groups.collect();
    draw("Latency", [("p50", BLUE), ("p99", ORANGE)], &groups)
}

fn cells(line: &str) -> Vec<&str> {
    line.trim().trim_matches('|').split('|').map(str::trim).collect()
}

fn is_header(line: &str) -> bool {
    line.starts_with('|') && cells(line)[1..] == COLUMNS
}

fn row(line: &str) -> Option<Row> {
    let [scenario, measured, floor, ratio, p50, p99] = *cells(line) else {
        return None;
    };
    Some(Row {
        scenario: scenario.replace('`', ""),
        measured: measured.strip_suffix("/s").and_then(number),
        floor: floor
            .split_once("/s")
            .and_then(|(rate, by)| Some((number(rate)?, by.trim().to_owned()))),
        ratio: number(ratio),
        p50: p50.strip_suffix(" ms").and_then(number),
        p99: p99.strip_suffix(" ms").and_then(number),
    })
}

fn number(text: &str) -> Option<f64> {
    text.replace(',', "").parse().ok()
}

/// `10573.4` as `10,573`.
fn thousands(value: f64) -> String {
    let digits = format!("{value:.0}");
    let mut text = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// Two bars a group, all on one linear scale that begins at zero. `legend` names the bars and gives their colours.
fn draw(title: &str, legend: [(&str, &str); 2], groups: &[Group]) -> String {
    let longest = groups
        .iter()
        .flat_map(|group| &group.bars)
        .map(|bar| bar.value)
        .fold(0.0, f64::max);
    let (mut svg, mut top) = (header(title, legend, groups.len()), HEADER_HEIGHT);

    for group in groups {
        text(&mut svg, MARGIN, top, 13, &group.label);
        for (index, (bar, (_, colour))) in (0..).zip(group.bars.iter().zip(legend)) {
            let y = top + 7.0 + f64::from(index) * (BAR_HEIGHT + 4.0);
            // A bar that is too short to be seen would look like one that was not measured.
            let width = (bar.value / longest * LONGEST).max(1.0);
            rectangle(&mut svg, y, width, colour);
            text(&mut svg, MARGIN + width + 6.0, y + 10.0, 11, &bar.text);
        }
        top += GROUP_HEIGHT;
    }

    svg.push_str("</svg>\n");
    svg
}

fn header(title: &str, legend: [(&str, &str); 2], groups: usize) -> String {
    let height = HEADER_HEIGHT + GROUP_HEIGHT * f64::from(u32::try_from(groups).unwrap_or(u32::MAX)) - 10.0;
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{WIDTH}\" height=\"{height}\" viewBox=\"0 0 {WIDTH} {height}\" \
         role=\"img\" font-family=\"system-ui, sans-serif\" fill=\"{TEXT}\">\n<title>{}</title>\n",
        escaped(title)
    );

    text(&mut svg, MARGIN, 24.0, 16, title);
    let mut left = MARGIN;
    for (name, colour) in legend {
        let _ = writeln!(
            svg,
            "<rect x=\"{left}\" y=\"33\" width=\"12\" height=\"12\" rx=\"2\" fill=\"{colour}\"/>"
        );
        text(&mut svg, left + 18.0, 43.0, 12, name);
        left += 100.0;
    }

    svg
}

fn rectangle(svg: &mut String, y: f64, width: f64, colour: &str) {
    let _ = writeln!(
        svg,
        "<rect x=\"{MARGIN}\" y=\"{y}\" width=\"{width:.1}\" height=\"{BAR_HEIGHT}\" rx=\"2\" fill=\"{colour}\"/>"
    );
}

fn text(svg: &mut String, x: f64, y: f64, size: u32, words: &str) {
    let words = escaped(words);
    let _ = writeln!(svg, "<text x=\"{x:.1}\" y=\"{y}\" font-size=\"{size}\">{words}</text>");
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}
