//! Reads pages of Markdown: their fenced blocks, links, headings and tables. It knows what these pages use, and no more.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
};

pub const ROOT: &str = env!("CARGO_MANIFEST_DIR");

/// A fenced block of a page.
pub struct Block {
    /// What follows the opening fence: a language, and perhaps `runnable` or `answer`.
    pub info: String,
    pub body: String,
    /// The line of the opening fence, counted from 1.
    pub line: usize,
}

impl Block {
    pub fn is(&self, word: &str) -> bool {
        self.info.split(' ').skip(1).any(|given| given == word)
    }
}

/// Every page of the repository, by its path from the top.
pub fn pages() -> Vec<String> {
    let root = Path::new(ROOT);
    let pages = files(root, "md");
    let pages = pages
        .iter()
        .map(|page| page.strip_prefix(root).expect("below").display().to_string());
    pages.collect()
}

/// The files below `folder` with this extension, but for what is built or belongs to git.
pub fn files(folder: &Path, extension: &str) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).expect("a folder").flatten() {
        let path = entry.path();
        if path.is_dir() {
            if !["target", ".git", ".schemathesis"]
                .iter()
                .any(|passed| path.ends_with(passed))
            {
                found.extend(files(&path, extension));
            }
        } else if path.extension().is_some_and(|own| own == extension) {
            found.push(path);
        }
    }
    found.sort();
    found
}

pub fn read(path: &str) -> String {
    fs::read_to_string(Path::new(ROOT).join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

pub fn is_word(letter: char) -> bool {
    letter.is_ascii_alphanumeric() || letter == '_'
}

/// The rows of all tables of a page, cell by cell, without backticks.
pub fn rows(page: &str) -> Vec<Vec<String>> {
    let page = read(page);
    let rows = page.lines().filter(|line| line.starts_with("| "));
    let cell = |cell: &str| cell.trim().trim_matches('`').to_owned();
    rows.map(|row| row.trim_matches('|').split(" | ").map(cell).collect())
        .collect()
}

pub fn blocks(text: &str) -> Vec<Block> {
    let mut blocks: Vec<Block> = Vec::new();
    let mut open = false;
    for (index, line) in text.lines().enumerate() {
        match (line.trim_start().strip_prefix("```"), blocks.last_mut()) {
            (Some(_), _) if open => open = false,
            (Some(info), _) => {
                open = true;
                blocks.push(Block {
                    info: info.to_owned(),
                    body: String::new(),
                    line: index + 1,
                });
            }
            (None, Some(block)) if open => block.body.extend([line, "\n"]),
            _ => {}
        }
    }
    blocks
}

/// The lines outside of fenced blocks.
fn prose(text: &str) -> Vec<&str> {
    let mut open = false;
    let mut outside = |line: &&str| {
        let fence = line.trim_start().starts_with("```");
        open ^= fence;
        !open && !fence
    };
    text.lines().filter(|line| outside(line)).collect()
}

/// The targets of the links and pictures of a page that lead to the repository itself.
pub fn links(text: &str) -> Vec<String> {
    let mut links = Vec::new();
    for line in prose(text) {
        // What stands in backticks is no link.
        let line: String = line.split('`').step_by(2).collect::<Vec<_>>().join("code");
        let targets = line
            .split("](")
            .skip(1)
            .filter_map(|rest| rest.split([')', ' ']).next());
        links.extend(targets.filter(|target| !target.contains(':')).map(str::to_owned));
    }
    links
}

/// Why a link leads nowhere.
pub fn fault_of(page: &str, link: &str) -> Option<String> {
    let (path, anchor) = link.split_once('#').unwrap_or((link, ""));
    let folder = Path::new(page).parent().unwrap_or(Path::new(""));
    let target = if path.is_empty() {
        page.to_owned()
    } else {
        normal(&folder.join(path))
    };
    if !Path::new(ROOT).join(&target).exists() {
        return Some("there is no such file".to_owned());
    }
    let known = anchor.is_empty() || anchors(&read(&target)).contains(anchor);
    (!known).then(|| "there is no such heading".to_owned())
}

/// The anchors that GitHub gives to the headings of a page.
fn anchors(text: &str) -> BTreeSet<String> {
    let mut seen: BTreeMap<String, usize> = BTreeMap::new();
    let mut anchors = BTreeSet::new();
    for line in prose(text) {
        let heading = line.trim_start_matches('#');
        if heading.len() == line.len() || !heading.starts_with(' ') {
            continue;
        }

        let kept = |letter: &char| letter.is_alphanumeric() || " -_".contains(*letter);
        let slug: String = heading.trim().to_lowercase().chars().filter(kept).collect();
        let slug = slug.replace(' ', "-");
        let before = seen.entry(slug.clone()).or_default();
        anchors.insert(if *before == 0 { slug } else { format!("{slug}-{before}") });
        *before += 1;
    }
    anchors
}

/// A path without `..`.
pub fn normal(path: &Path) -> String {
    let mut parts: Vec<String> = Vec::new();
    for part in path.components() {
        match part.as_os_str().to_string_lossy().as_ref() {
            ".." => drop(parts.pop()),
            "." => {}
            other => parts.push(other.to_owned()),
        }
    }
    parts.join("/")
}
