//! The import rule: chains of modules, of which each may use all that come after it.

use std::collections::{BTreeMap, BTreeSet};

use super::imports::Imports;

/// For each module of the top level, those that it may use.
pub struct Rule {
    allowed: BTreeMap<String, BTreeSet<String>>,
}

impl Rule {
    /// Reads chains such as `app → {queue, cache} → domain`.
    pub fn read(chains: &[&str]) -> Self {
        let mut next: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
        for chain in chains {
            let mut before: Vec<String> = Vec::new();
            for link in chain.split('→') {
                let names = link.trim_matches([' ', '{', '}']).split(',');
                let names: Vec<String> = names.map(|name| name.trim().to_owned()).collect();
                for name in &before {
                    next.entry(name.clone()).or_default().extend(names.iter().cloned());
                }
                for name in &names {
                    next.entry(name.clone()).or_default();
                }
                before = names;
            }
        }

        let all_after = |module: &String| (module.clone(), reachable(module, &next));
        Self {
            allowed: next.keys().map(all_after).collect(),
        }
    }

    /// One sentence for each import that the rule does not allow.
    pub fn violations(&self, imports: &Imports) -> Vec<String> {
        let mut wrong = Vec::new();
        // What a name leads to was reported where the name was brought in.
        for import in imports.all.iter().filter(|import| !import.by_name) {
            let (from, to) = (import.from.first(), import.to.first());
            let (Some(from), Some(to)) = (from, to) else {
                continue;
            };
            let Some(allowed) = self.allowed.get(from) else {
                wrong.push(format!(
                    "{}:{}: `{from}` has no place in the import rule; give it one in RULE and in src/lib.rs",
                    import.file, import.line
                ));
                continue;
            };

            if from != to && !allowed.contains(to) {
                let names: Vec<&str> = allowed.iter().map(String::as_str).collect();
                let may = if names.is_empty() {
                    "nothing".to_owned()
                } else {
                    names.join(", ")
                };
                wrong.push(format!(
                    "{}:{}: `{from}` must not use `{}` (it may use {may}); move what both need to where both may reach it",
                    import.file,
                    import.line,
                    import.to.join("::")
                ));
            }
        }

        wrong.sort();
        wrong.dedup();
        wrong
    }
}

fn reachable(module: &str, next: &BTreeMap<String, BTreeSet<String>>) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    let mut open = vec![module];
    while let Some(module) = open.pop() {
        for name in next.get(module).into_iter().flatten() {
            if found.insert(name.clone()) {
                open.push(name);
            }
        }
    }
    found
}
