//! Rust source as words: the files, their tokens without comments and literals, and their functions.
//!
//! Counting braces is enough here. Nothing in these files needs a parser that knows the whole language.

use std::{fs, path::Path};

/// One file of the project.
pub struct Source {
    /// Relative to the project's root, with `/`.
    pub path: String,
    pub text: String,
}

/// An identifier, `::`, or one character that is neither white space nor part of a comment or a literal.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Token<'a> {
    pub text: &'a str,
    pub line: usize,
}

#[derive(Debug, PartialEq)]
pub struct Function {
    pub name: String,
    pub line: usize,
    /// From the line of `fn` to the line of the closing brace.
    pub lines: usize,
    pub has_blank_line: bool,
}

impl Source {
    pub fn new(path: &str, text: &str) -> Self {
        Self {
            path: path.to_owned(),
            text: text.to_owned(),
        }
    }

    /// The files under `folder` with an extension that is `wanted`, sorted by path.
    pub fn under(folder: &str, wanted: impl Fn(&str) -> bool) -> Vec<Self> {
        let root = Path::new(env!("CARGO_MANIFEST_DIR"));
        let mut folders = vec![root.join(folder)];
        let mut sources = Vec::new();

        while let Some(folder) = folders.pop() {
            for entry in fs::read_dir(&folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display())) {
                let file = entry.expect("an entry").path();
                let path = file.strip_prefix(root).expect("it is under the root");
                let path = path.to_str().expect("UTF-8").replace('\\', "/");
                let extension = file.extension().and_then(|extension| extension.to_str());

                if file.is_dir() {
                    folders.push(file);
                } else if wanted(extension.unwrap_or_default()) {
                    let text = fs::read_to_string(&file).unwrap_or_else(|error| panic!("{path}: {error}"));
                    sources.push(Self { path, text });
                }
            }
        }

        sources.sort_by(|one, other| one.path.cmp(&other.path));
        sources
    }

    /// All Rust files under `folder`.
    pub fn rust(folder: &str) -> Vec<Self> {
        Self::under(folder, |extension| extension == "rs")
    }

    pub fn line_count(&self) -> usize {
        self.text.lines().count()
    }

    /// Leaves out comments, strings, characters and the tick of lifetimes.
    pub fn tokens(&self) -> Vec<Token<'_>> {
        let text = self.text.as_str();
        let (mut tokens, mut at, mut line) = (Vec::new(), 0, 1);

        while at < text.len() {
            let (length, is_token) = measure(&text[at..]);
            let piece = &text[at..at + length];
            if is_token {
                tokens.push(Token { text: piece, line });
            }
            line += piece.matches('\n').count();
            at += length;
        }

        tokens
    }

    /// Every function that has a body, also those inside of other functions.
    pub fn functions(&self) -> Vec<Function> {
        let tokens = self.tokens();
        let lines: Vec<&str> = self.text.lines().collect();
        let mut functions = Vec::new();

        for (index, pair) in tokens.windows(2).enumerate() {
            let is_function = pair[0].text == "fn" && is_word(pair[1].text);
            if let Some(last) = is_function.then(|| end_of_body(&tokens[index..])).flatten() {
                let first = pair[0].line;
                functions.push(Function {
                    name: pair[1].text.to_owned(),
                    line: first,
                    lines: last - first + 1,
                    has_blank_line: lines[first - 1..last].iter().any(|line| line.trim().is_empty()),
                });
            }
        }

        functions
    }
}

pub fn is_word(token: &str) -> bool {
    token.starts_with(|first: char| first.is_alphabetic() || first == '_')
}

/// The line on which the body of a function ends; `None` for a declaration.
fn end_of_body(tokens: &[Token]) -> Option<usize> {
    let mut depth = 0;
    let begin = tokens.iter().position(|token| {
        match token.text {
            "(" | "[" => depth += 1,
            ")" | "]" => depth -= 1,
            _ => {}
        }
        depth == 0 && ["{", ";"].contains(&token.text)
    })?;

    let mut braces = 0;
    let end = tokens[begin..].iter().find(|token| {
        match token.text {
            "{" => braces += 1,
            "}" => braces -= 1,
            _ => {}
        }
        braces == 0
    })?;
    (tokens[begin].text == "{").then_some(end.line)
}

/// The length in bytes of whatever `text` starts with, and whether that is a token.
fn measure(text: &str) -> (usize, bool) {
    let first = text.chars().next().expect("there is more");
    let word = text
        .find(|next: char| !next.is_alphanumeric() && next != '_')
        .unwrap_or(text.len());

    if text.starts_with("//") {
        (text.find('\n').unwrap_or(text.len()), false)
    } else if text.starts_with("/*") {
        (block_comment(text), false)
    } else if let Some(length) = raw_string(text) {
        (length, false)
    } else if first == '"' {
        (quoted(text, '"'), false)
    } else if first == '\'' {
        let is_character = text[1..].starts_with('\\') || text.chars().nth(2) == Some('\'');
        (if is_character { quoted(text, '\'') } else { 1 }, false)
    } else if word > 0 {
        (word, true)
    } else if text.starts_with("::") {
        (2, true)
    } else {
        (first.len_utf8(), !first.is_whitespace())
    }
}

/// Up to and with the closing `quote`, which a backslash escapes.
fn quoted(text: &str, quote: char) -> usize {
    let mut escaped = false;
    let end = text.char_indices().skip(1).find(|(_, next)| {
        let ends = *next == quote && !escaped;
        escaped = *next == '\\' && !escaped;
        ends
    });
    end.map_or(text.len(), |(index, _)| index + 1)
}

fn raw_string(text: &str) -> Option<usize> {
    let rest = text.strip_prefix('b').unwrap_or(text).strip_prefix('r')?;
    let hashes = rest.find(|next| next != '#')?;
    if !rest[hashes..].starts_with('"') {
        return None;
    }

    let begin = text.len() - rest.len() + hashes + 1;
    let close = format!("\"{}", "#".repeat(hashes));
    let end = text[begin..].find(&close)?;
    Some(begin + end + close.len())
}

/// Block comments nest.
fn block_comment(text: &str) -> usize {
    let (mut depth, mut at) = (0, 0);
    while at < text.len() {
        if text[at..].starts_with("/*") {
            (depth, at) = (depth + 1, at + 2);
        } else if text[at..].starts_with("*/") {
            (depth, at) = (depth - 1, at + 2);
        } else {
            at += text[at..].chars().next().map_or(1, char::len_utf8);
        }

        if depth == 0 {
            break;
        }
    }
    at
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(text: &str) -> Vec<String> {
        let source = Source::new("src/sample.rs", text);
        source.tokens().iter().map(|token| token.text.to_owned()).collect()
    }

    #[test]
    fn comments_and_literals_are_no_tokens() {
        assert_eq!(words("a // b\n/* c /* d */ e */ f"), ["a", "f"]);
        assert_eq!(
            words(r#"a("b \" { c", 'd', '\'', b"e")"#),
            ["a", "(", ",", ",", ",", "b", ")"]
        );
        assert_eq!(words("r#\"a \" { \"# br\"\\\" x"), ["x"]);
        assert_eq!(words("&'a str '{' é"), ["&", "a", "str", "é"]);
        assert_eq!(words("use a::b_1::*;"), ["use", "a", "::", "b_1", "::", "*", ";"]);
    }

    #[test]
    fn a_function_is_measured_from_its_name_to_its_closing_brace() {
        let text = "trait T {\n    fn no_body(&self);\n}\nfn outer(f: fn(u8) -> u8) -> [u8; 2]\nwhere\n    u8: Copy,\n{\n    \
                    let x = \"}\";\n\n    fn inner() {}\n}\n";

        let functions = Source::new("src/sample.rs", text).functions();

        let found: Vec<_> = functions
            .iter()
            .map(|function| {
                (
                    function.name.as_str(),
                    function.line,
                    function.lines,
                    function.has_blank_line,
                )
            })
            .collect();
        assert_eq!(found, [("outer", 4, 8, true), ("inner", 10, 1, false)]);
    }
}
