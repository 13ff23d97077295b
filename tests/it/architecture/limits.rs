//! How long things may be, and the words that are not used any more.

use std::collections::BTreeMap;

use super::source::{Function, Source};

const FILE_LINES: usize = 400;
const FUNCTION_LINES: usize = 70;
/// Of the lines under `src`, in percent.
const FOLDER_SHARE: usize = 20;
/// A function of more lines than this is read in paragraphs …
const PARAGRAPH_LINES: usize = 20;
/// … but for fewer than this many of them, in percent.
const WALLS_SHARE: usize = 20;

/// Words that nobody but this project used; whole words in any case, where `_` parts words too.
const PRIVATE_WORDS: [&str; 16] = [
    "bell",
    "bells",
    "rung",
    "ring",
    "rings",
    "bury",
    "buried",
    "told",
    "figures",
    "desk",
    "impatient",
    "wired",
    "in_time",
    "laid aside",
    "holding on",
    "order.order",
];
/// Some are words of others, such as the name of a library, or of plain English.
pub const PRIVATE_WORDS_LEFT: usize = 25;

pub fn long_files<'a>(sources: impl IntoIterator<Item = &'a Source>) -> Vec<String> {
    let long = sources.into_iter().filter(|source| source.line_count() > FILE_LINES);
    long.map(|source| {
        format!(
            "{}: {} lines, more than {FILE_LINES}; split it by subject",
            source.path,
            source.line_count()
        )
    })
    .collect()
}

pub fn long_functions(sources: &[Source]) -> Vec<String> {
    let functions = sources.iter().map(|source| (source, source.functions()));
    too_long(functions)
}

/// Functions of shell and Python, which end where the indentation does.
pub fn long_functions_of_scripts(sources: &[Source]) -> Vec<String> {
    let functions = sources.iter().map(|source| (source, functions_of_script(&source.text)));
    too_long(functions)
}

fn too_long<'a>(functions: impl Iterator<Item = (&'a Source, Vec<Function>)>) -> Vec<String> {
    let mut wrong = Vec::new();
    for (source, functions) in functions {
        for function in functions.iter().filter(|function| function.lines > FUNCTION_LINES) {
            wrong.push(format!(
                "{}:{}: `{}` has {} lines, more than {FUNCTION_LINES}; give a part of it a name of its own",
                source.path, function.line, function.name, function.lines
            ));
        }
    }
    wrong
}

fn functions_of_script(text: &str) -> Vec<Function> {
    let indentation = |line: &str| line.len() - line.trim_start().len();
    let lines: Vec<&str> = text.lines().collect();
    let mut functions = Vec::new();

    for (index, line) in lines.iter().enumerate() {
        let python = line.trim_start().trim_start_matches("async ").strip_prefix("def ");
        let Some((name, _)) = python
            .or_else(|| line.contains("() {").then_some(*line))
            .and_then(|line| line.split_once('('))
        else {
            continue;
        };

        let inside = lines[index + 1..]
            .iter()
            .take_while(|next| next.trim().is_empty() || indentation(next) > indentation(line));
        let inside: Vec<&&str> = inside.collect();
        let trailing = inside.iter().rev().take_while(|line| line.trim().is_empty()).count();
        functions.push(Function {
            name: name.trim().to_owned(),
            line: index + 1,
            lines: inside.len() - trailing + if python.is_some() { 1 } else { 2 },
            has_blank_line: inside[..inside.len() - trailing]
                .iter()
                .any(|line| line.trim().is_empty()),
        });
    }

    functions
}

/// Folders right under `src` that hold too much of it.
pub fn large_folders(sources: &[Source]) -> Vec<String> {
    let mut all = 0;
    let mut folders: BTreeMap<&str, usize> = BTreeMap::new();
    for source in sources {
        if let Some(path) = source.path.strip_prefix("src/") {
            all += source.line_count();
            if let Some((folder, _)) = path.split_once('/') {
                *folders.entry(folder).or_default() += source.line_count();
            }
        }
    }

    let large = folders
        .into_iter()
        .filter(|(_, lines)| lines * 100 > all * FOLDER_SHARE);
    large
        .map(|(folder, lines)| {
            format!(
                "src/{folder}: {lines} of the {all} lines of src, more than {FOLDER_SHARE} %; it holds two subjects"
            )
        })
        .collect()
}

/// The long functions without a blank line, if they are too many.
pub fn walls_of_text(sources: &[Source]) -> Vec<String> {
    let (mut long, mut walls) = (0, Vec::new());
    for source in sources {
        for function in source.functions() {
            if function.lines > PARAGRAPH_LINES {
                long += 1;
                if !function.has_blank_line {
                    walls.push(format!(
                        "{}:{}: `{}` has {} lines and no blank line between its steps",
                        source.path, function.line, function.name, function.lines
                    ));
                }
            }
        }
    }

    // Fewer than the share, so as many as the share are too many.
    if walls.len() * 100 < long * WALLS_SHARE || walls.is_empty() {
        walls.clear();
    }
    walls
}

pub fn private_words(sources: &[Source]) -> Vec<String> {
    let mut found = Vec::new();
    for source in sources {
        for (line, text) in (1..).zip(source.text.lines()) {
            let lower = text.to_lowercase();
            if let Some(word) = PRIVATE_WORDS.iter().find(|word| has_word(&lower, word)) {
                found.push(format!("{}:{line}: {word}: {}", source.path, text.trim()));
            }
        }
    }
    found
}

fn has_word(text: &str, word: &str) -> bool {
    let parts = |next: Option<char>| !next.is_some_and(char::is_alphanumeric);
    text.match_indices(word).any(|(at, _)| {
        let (before, after) = (&text[..at], &text[at + word.len()..]);
        parts(before.chars().next_back()) && parts(after.chars().next())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_and_a_function_over_the_limit_are_named() {
        let body = "    f();\n".repeat(FUNCTION_LINES - 1);
        let rust = Source::new(
            "src/a.rs",
            &format!("fn fits() {{\n{}}}\nfn long() {{\n{body}}}\n", &body[9..]),
        );
        let script = Source::new("tests/s", &format!("long() {{\n{body}}}\n"));
        let python = Source::new(
            "tests/p",
            &format!(
                "class C:\n    def long(self):\n{}\nx = 1\n",
                "        f()\n".repeat(FUNCTION_LINES)
            ),
        );

        let found = [
            long_functions(&[rust]),
            long_functions_of_scripts(&[script, python]),
            long_files(&[Source::new("src/b.rs", &"\n".repeat(FILE_LINES + 1))]),
        ];

        let begins = [
            "src/a.rs:71: `long` has 71 lines",
            "tests/s:1: `long` has 71",
            "tests/p:2: `long` has 71",
            "src/b.rs: 401",
        ];
        for (found, begin) in found.concat().iter().zip(begins) {
            assert!(found.starts_with(begin), "{found} for {begin}");
        }
        assert_eq!(found.concat().len(), begins.len(), "{found:?}");
    }

    #[test]
    fn walls_of_text_are_named_when_they_are_too_many() {
        let (wall, lines) = (
            "    f();\n".repeat(PARAGRAPH_LINES - 1),
            "    f();\n".repeat(PARAGRAPH_LINES - 2),
        );
        let with = |walls: usize, paragraphs: usize| {
            let text = format!("fn f() {{\n{wall}}}\n").repeat(walls)
                + &format!("fn f() {{\n\n{lines}}}\n").repeat(paragraphs);
            walls_of_text(&[Source::new("src/a.rs", &text)]).len()
        };

        assert_eq!((with(1, 4), with(1, 5), with(0, 1), with(1, 0)), (1, 0, 0, 1));
    }

    #[test]
    fn a_folder_with_more_than_its_share_is_named() {
        let lines = |count: usize| "x\n".repeat(count);
        let sources = [
            ("src/a/x.rs", 21),
            ("src/b/y.rs", 20),
            ("src/main.rs", 59),
            ("tests/a/z.rs", 99),
        ]
        .map(|(path, count)| Source::new(path, &lines(count)));

        let found = large_folders(&sources);
        assert_eq!(found.len(), 1, "{found:?}");
        assert!(found[0].starts_with("src/a: 21 of the 100 lines"), "{found:?}");
    }

    #[test]
    fn words_are_found_whole_and_in_any_case() {
        let text = "// A Bell is Rung\nlet bring = string.orders;\nfn ring_again()\nlaid aside\norder.order\nlabel\n";
        let found = private_words(&[Source::new("src/a.rs", text)]);
        let lines: Vec<&str> = found.iter().filter_map(|found| found.split(':').nth(1)).collect();
        assert_eq!(lines, ["1", "3", "4", "5"]);
    }
}
