//! Circles among modules that stand side by side.

use std::collections::BTreeMap;

use super::imports::{Import, Imports, Path};

/// What a module uses beside itself, each with the first import that does so.
type Graph = BTreeMap<String, BTreeMap<String, Import>>;

/// One sentence for each circle, with an import for each of its steps. The two modules of `except` may use each other.
pub fn find(imports: &Imports, except: &[&str; 2]) -> Vec<String> {
    let mut graph = graph(imports);
    let [one, other] = except;
    if let Some(uses) = graph.get_mut(*one) {
        uses.remove(*other);
    }

    let mut circles = Vec::new();
    while let Some(circle) = graph.keys().find_map(|module| circle_through(module, &graph)) {
        let steps = circle.iter().zip(circle.iter().cycle().skip(1));
        let steps: Vec<String> = steps
            .map(|(from, to)| {
                let import = &graph[from][to];
                format!("`{from}` uses `{to}` ({}:{})", import.file, import.line)
            })
            .collect();
        circles.push(format!(
            "a circle: {}; move what they share to a module of its own",
            steps.join(", ")
        ));
        // The next one is looked for without this one.
        for module in &circle {
            graph.remove(module);
        }
    }

    circles
}

fn graph(imports: &Imports) -> Graph {
    let mut graph = Graph::new();
    for import in &imports.all {
        let (from, to) = (imports.module(&import.from), imports.defined_in(&import.to));
        let common = from.iter().zip(&to).take_while(|(one, other)| one == other).count();
        // One is the other, or lies inside of it.
        if common == from.len() || common == to.len() {
            continue;
        }

        let side = |path: &Path| path[..=common].join("::");
        let uses = graph.entry(side(&from)).or_default();
        uses.entry(side(&to)).or_insert_with(|| import.clone());
    }
    graph
}

/// The shortest way from a module back to itself.
fn circle_through(start: &str, graph: &Graph) -> Option<Vec<String>> {
    let mut ways = vec![vec![start.to_owned()]];
    let mut seen = Vec::new();
    while !ways.is_empty() {
        let mut longer = Vec::new();
        for way in &ways {
            for next in graph.get(way.last()?).into_iter().flat_map(BTreeMap::keys) {
                if next == start {
                    return Some(way.clone());
                }
                if !seen.contains(next) {
                    seen.push(next.clone());
                    longer.push([way.clone(), vec![next.clone()]].concat());
                }
            }
        }
        ways = longer;
    }
    None
}
