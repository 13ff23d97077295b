//! Who uses whom: every `use` and every path in code, resolved to a path from the crate's root.

use std::collections::{BTreeMap, BTreeSet};

use super::source::{Source, Token, is_word};

/// A path from the crate's root, such as `["db", "sql", "Sql"]`.
pub type Path = Vec<String>;

/// One use of something of the crate.
#[derive(Clone, Debug, PartialEq)]
pub struct Import {
    pub file: String,
    pub line: usize,
    /// The module that uses it.
    pub from: Path,
    /// What is used, as it is spelled: a re-export is not followed.
    pub to: Path,
    /// Whether the path begins with a name that a `use` of this file has brought in.
    pub by_name: bool,
}

/// All imports of a crate, and the modules that its files are.
pub struct Imports {
    pub all: Vec<Import>,
    modules: BTreeSet<Path>,
    /// Per module, what a name in it stands for.
    names: BTreeMap<Path, BTreeMap<String, Path>>,
}

impl Imports {
    /// Of the files under `src/`.
    pub fn of(sources: &[Source]) -> Self {
        let modules: BTreeSet<Path> = sources.iter().map(|source| module_of(&source.path)).collect();
        let (mut all, mut names) = (Vec::new(), BTreeMap::new());

        for source in sources {
            let mut reader = Reader::new(source, &modules);
            reader.read_uses();
            reader.read_paths();
            all.append(&mut reader.found);
            names.append(&mut reader.names);
        }

        Self { all, modules, names }
    }

    /// The module whose file defines `path`, behind any re-exports.
    pub fn defined_in(&self, path: &Path) -> Path {
        let mut path = path.clone();
        // Re-exports of re-exports end somewhere.
        for _ in 0..8 {
            let module = self.module(&path);
            let name = path.get(module.len());
            let Some(stands_for) = name.and_then(|name| self.names.get(&module)?.get(name)) else {
                return module;
            };
            let rest = path[module.len() + 1..].to_vec();
            path = [stands_for.clone(), rest].concat();
        }
        self.module(&path)
    }

    /// The longest beginning of `path` that has a file.
    pub fn module(&self, path: &Path) -> Path {
        let lengths = (0..=path.len()).rev();
        let mut beginnings = lengths.map(|length| path[..length].to_vec());
        beginnings
            .find(|beginning| self.modules.contains(beginning))
            .unwrap_or_default()
    }
}

/// `src/api/mod.rs` is `["api"]`, `src/main.rs` is `["main"]`, and `src/lib.rs` is the root.
fn module_of(file: &str) -> Path {
    let path = file.strip_prefix("src/").unwrap_or(file).trim_end_matches(".rs");
    let path = path.strip_suffix("/mod").unwrap_or(path);
    if path == "lib" {
        return Path::new();
    }
    path.split('/').map(str::to_owned).collect()
}

/// Reads one file.
struct Reader<'a> {
    file: &'a str,
    tokens: Vec<Token<'a>>,
    modules: &'a BTreeSet<Path>,
    /// The module that each token stands in, since a file may hold modules of its own, such as `tests`.
    inside: Vec<Path>,
    /// Whether a token belongs to a `use` that has been read.
    read: Vec<bool>,
    names: BTreeMap<Path, BTreeMap<String, Path>>,
    found: Vec<Import>,
}

impl<'a> Reader<'a> {
    fn new(source: &'a Source, modules: &'a BTreeSet<Path>) -> Self {
        let tokens = source.tokens();
        Self {
            file: &source.path,
            inside: modules_of_tokens(&tokens, &module_of(&source.path)),
            read: vec![false; tokens.len()],
            tokens,
            modules,
            names: BTreeMap::new(),
            found: Vec::new(),
        }
    }

    fn text(&self, at: usize) -> &'a str {
        self.tokens.get(at).map_or("", |token| token.text)
    }

    fn read_uses(&mut self) {
        let uses: Vec<usize> = (0..self.tokens.len()).filter(|at| self.text(*at) == "use").collect();
        for at in uses {
            // `use<'a>` of a return type is no import.
            if is_word(self.text(at + 1)) || ["::", "{"].contains(&self.text(at + 1)) {
                let end = self.read_tree(at + 1, &[]);
                self.read[at..end].fill(true);
            }
        }
    }

    /// Reads one tree of a `use`, which may be in braces inside of another one, and gives where it ends.
    fn read_tree(&mut self, mut at: usize, before: &[&'a str]) -> usize {
        let mut path = before.to_vec();
        let line = self.tokens.get(at).map_or(0, |token| token.line);

        loop {
            match self.text(at) {
                "::" => at += 1,
                "{" => {
                    at += 1;
                    while !["}", ""].contains(&self.text(at)) {
                        at = self.read_tree(at, &path);
                        at += usize::from(self.text(at) == ",");
                    }
                    return at + 1;
                }
                "as" => {
                    self.add(&path, Some(self.text(at + 1)), at, line);
                    return at + 2;
                }
                "," | ";" | "}" | "" => {
                    let name = path.iter().rev().find(|part| **part != "self").copied();
                    self.add(&path, name.filter(|name| *name != "*"), at, line);
                    return at;
                }
                part => {
                    path.push(part);
                    at += 1;
                }
            }
        }
    }

    /// Paths outside of `use`, such as `crate::db::classify(…)`, or `db::classify(…)` where `db` was imported.
    fn read_paths(&mut self) {
        let mut at = 0;
        while at < self.tokens.len() {
            let starts = is_word(self.text(at)) && self.text(at + 1) == "::";
            let goes_on = at > 0 && self.text(at - 1) == "::";
            if self.read[at] || !starts || goes_on {
                at += 1;
                continue;
            }

            let (first, line) = (at, self.tokens[at].line);
            let mut path = vec![self.text(at)];
            while self.text(at + 1) == "::" && is_word(self.text(at + 2)) {
                at += 2;
                path.push(self.text(at));
            }
            self.add(&path, None, first, line);
            at += 1;
        }
    }

    /// Notes what `path` leads to, if that is of this crate. `name` is what it is called here from now on.
    fn add(&mut self, path: &[&str], name: Option<&str>, at: usize, line: usize) {
        let from = self.inside[at.min(self.inside.len() - 1)].clone();
        let Some((to, by_name)) = self.resolve(path, &from) else {
            return;
        };

        if let Some(name) = name {
            let names = self.names.entry(from.clone()).or_default();
            names.insert(name.to_owned(), to.clone());
        }
        self.found.push(Import {
            file: self.file.to_owned(),
            line,
            from,
            to,
            by_name,
        });
    }

    /// The path from the root, and whether it begins with a name that a `use` has brought in.
    fn resolve(&self, path: &[&str], from: &Path) -> Option<(Path, bool)> {
        let (first, mut rest) = path.split_first()?;
        let own = |name: &str| [from.clone(), vec![name.to_owned()]].concat();
        let (mut base, by_name) = match *first {
            "crate" => (Path::new(), false),
            // The program is a crate of its own beside the library.
            "shop" if self.file == "src/main.rs" => (Path::new(), false),
            "self" => (from.clone(), false),
            "super" => (from[..from.len().checked_sub(1)?].to_vec(), false),
            name if self.modules.contains(&own(name)) => (own(name), false),
            name => (self.names.get(from)?.get(name)?.clone(), true),
        };

        while let Some((&"super", more)) = rest.split_first() {
            base.pop()?;
            rest = more;
        }
        let named = rest.iter().filter(|part| !["self", "*"].contains(part));
        base.extend(named.map(|part| (*part).to_owned()));
        Some((base, by_name))
    }
}

/// For each token the module that it stands in: that of the file, or one that is written out inside of it.
fn modules_of_tokens(tokens: &[Token], of_file: &Path) -> Vec<Path> {
    let mut module = of_file.clone();
    let (mut depth, mut opened_at) = (0, Vec::new());
    let mut inside = Vec::new();

    for (at, token) in tokens.iter().enumerate() {
        match token.text {
            "{" => {
                depth += 1;
                if at >= 2 && tokens[at - 2].text == "mod" {
                    module.push(tokens[at - 1].text.to_owned());
                    opened_at.push(depth);
                }
            }
            "}" => {
                if opened_at.last() == Some(&depth) {
                    opened_at.pop();
                    module.pop();
                }
                depth -= 1;
            }
            _ => {}
        }
        inside.push(module.clone());
    }

    inside
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(files: &[(&str, &str)]) -> Imports {
        let sources: Vec<Source> = files.iter().map(|(path, text)| Source::new(path, text)).collect();
        Imports::of(&sources)
    }

    fn targets(files: &[(&str, &str)]) -> Vec<String> {
        found(files).all.iter().map(|import| import.to.join("::")).collect()
    }

    #[test]
    fn trees_of_use_are_taken_apart() {
        let text = "use std::fmt; use crate::{self, db::{self, sql::{Sql as S, *}}, app::App}; pub use super::batch;";
        let expected = ["", "db", "db::sql::Sql", "db::sql", "app::App", "batch"];
        assert_eq!(targets(&[("src/intake.rs", text)]), expected);
    }

    #[test]
    fn paths_in_code_count_and_comments_do_not() {
        let text = "use crate::db; /// [`crate::api`]\nfn f() { crate::http::json::f(); db::classify(\"crate::cli\") } \
                    macro_rules! m { () => { $crate::queue::Queue } }";
        let expected = ["db", "http::json::f", "db::classify", "queue::Queue"];
        assert_eq!(targets(&[("src/intake.rs", text)]), expected);
    }

    #[test]
    fn super_is_resolved_also_from_a_module_inside_the_file() {
        let text =
            "use super::{super::cache, bodies}; mod tests { use super::*; fn f() { super::super::g() } } use self::x;";
        let files = [("src/api/orders/mod.rs", text), ("src/api/orders/bodies.rs", "")];
        let expected = ["cache", "api::bodies", "api::orders", "api::g", "api::orders::x"];
        let mut found = targets(&files);
        found.sort_unstable();
        let mut expected = expected.map(str::to_owned);
        expected.sort_unstable();
        assert_eq!(found, expected);
    }

    #[test]
    fn a_child_is_found_by_its_name_alone_and_the_program_uses_the_library() {
        let files = [
            (
                "src/queue/mod.rs",
                "mod memory; use memory::Memory; fn f() { memory::g() }",
            ),
            ("src/queue/memory.rs", ""),
            ("src/main.rs", "use shop::cli::Cli;"),
        ];
        assert_eq!(
            targets(&files),
            ["queue::memory::Memory", "queue::memory::g", "cli::Cli"]
        );
    }

    #[test]
    fn a_reexport_leads_to_the_file_that_defines_it() {
        let imports = found(&[
            ("src/db/mod.rs", "pub use error_class::classify;"),
            ("src/db/error_class.rs", "pub fn classify() {}"),
            ("src/app.rs", "use crate::db::{Db, classify};"),
        ]);

        let files = imports.all.iter().filter(|import| import.from == ["app"]);
        let files: Vec<String> = files.map(|import| imports.defined_in(&import.to).join("::")).collect();
        assert_eq!(files, ["db", "db::error_class"]);
    }
}
