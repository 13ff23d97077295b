//! The charts of the benchmark, drawn from a small table and from the one in the documentation.

use std::{fs, path::Path};

#[path = "../../benches/load/charts.rs"]
mod drawing;

use drawing::{BLUE, GREY, ORANGE, Row, TEXT};

const TABLE: &str = "\
Text before.

| request | answer |
| --- | --- |
| `GET /` | 200 |

| scenario | measured | floor | ratio | p50 | p99 |
| --- | --- | --- | --- | --- | --- |
| `POST /orders` <two> & more | 10573/s | 7,452/s pgbench | 1.46 | 5.88 ms | 10.99 ms |
| one order alone |  | 0.40 ms, two commits | | 4.92 ms | 12.27 ms |
| settled | 15000/s | 1500/s a transaction an order | 10.00 |  |  |
| memory | 22.4 MB |  |  |  |  |

| another | table |
";

#[test]
fn the_rows_of_the_table_are_read() {
    let rows = drawing::rows(TABLE);

    assert_eq!(rows.len(), 4);
    let first = Row {
        scenario: "POST /orders <two> & more".to_owned(),
        measured: Some(10_573.0),
        floor: Some((7_452.0, "pgbench".to_owned())),
        ratio: Some(1.46),
        p50: Some(5.88),
        p99: Some(10.99),
    };
    assert_eq!(rows[0], first);
    assert_eq!(
        (rows[1].measured, &rows[1].floor, rows[1].p50),
        (None, &None, Some(4.92))
    );
    assert_eq!((rows[3].measured, rows[3].p99), (None, None));
    assert_eq!(drawing::rows("| request | answer |\n| --- | --- |\n"), []);
}

#[test]
fn throughput_is_drawn_for_every_scenario_with_a_floor() {
    let svg = drawing::throughput(&drawing::rows(TABLE));

    for part in [
        "<title>Throughput</title>",
        "POST /orders &lt;two&gt; &amp; more",
        "10,573/s = 1.46 × floor",
        "7,452/s pgbench",
        "15,000/s = 10.00 × floor",
        "1,500/s a transaction an order",
    ] {
        assert!(svg.contains(part), "{part}: {svg}");
    }
    assert!(!svg.contains("alone") && !svg.contains("memory"), "{svg}");
    // The longest bar has the full width, and the others their share of it.
    for width in ["500.0", "352.4", "248.4", "50.0"] {
        assert!(svg.contains(&format!("width=\"{width}\"")), "{width}: {svg}");
    }
    assert_eq!(svg.matches("<rect").count(), 2 + 4);
}

#[test]
fn latency_is_drawn_where_it_was_measured() {
    let svg = drawing::latency(&drawing::rows(TABLE));

    for part in [
        "<title>Latency</title>",
        "5.88 ms",
        "10.99 ms",
        "one order alone",
        "12.27 ms",
    ] {
        assert!(svg.contains(part), "{part}: {svg}");
    }
    assert!(!svg.contains("settled"), "{svg}");
    assert_eq!(svg.matches("<rect").count(), 2 + 4);
}

/// WCAG 2.2 asks for a ratio of 3 of large text and graphics; small text gets as much as one colour can have on both.
#[test]
fn every_colour_can_be_read_on_light_and_on_dark() {
    for (colour, least) in [(TEXT, 4.2), (BLUE, 3.0), (GREY, 3.0), (ORANGE, 3.0)] {
        for background in ["#ffffff", "#0d1117"] {
            let (one, other) = (luminance(colour), luminance(background));
            let ratio = (one.max(other) + 0.05) / (one.min(other) + 0.05);
            assert!(ratio >= least, "{colour} on {background}: {ratio:.2}");
        }
    }
}

/// Relative luminance as WCAG 2.2 defines it.
fn luminance(colour: &str) -> f64 {
    let channel = |at: usize| {
        let value = f64::from(u8::from_str_radix(&colour[at..at + 2], 16).expect("two digits")) / 255.0;
        if value <= 0.040_45 {
            value / 12.92
        } else {
            ((value + 0.055) / 1.055).powf(2.4)
        }
    };
    0.2126 * channel(1) + 0.7152 * channel(3) + 0.0722 * channel(5)
}

#[test]
fn the_charts_in_the_documentation_show_its_table() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let pages = ["docs/benchmarks.md", "README.md"].map(|page| fs::read_to_string(root.join(page)).unwrap_or_default());
    let rows = pages
        .iter()
        .map(|page| drawing::rows(page))
        .find(|rows| !rows.is_empty());
    let rows = rows.expect("docs/benchmarks.md holds the table of the benchmark");

    for (file, drawn) in [
        ("docs/charts/throughput.svg", drawing::throughput(&rows)),
        ("docs/charts/latency.svg", drawing::latency(&rows)),
    ] {
        let stored = fs::read_to_string(root.join(file)).unwrap_or_default();
        assert!(
            stored == drawn,
            "{file} does not show the table: cargo bench -- --charts-from docs/benchmarks.md"
        );
    }
}
