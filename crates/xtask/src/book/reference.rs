//! The chapter of all keys, made of `config/reference.toml`.

use std::collections::BTreeSet;

/// Makes it.
pub(super) fn page(reference: &str) -> String {
    let mut blocks = reference
        .split("\n\n")
        .map(|block| block.trim_matches('\n'));
    let rules = blocks.next().unwrap_or_default();
    let rules: Vec<&str> = rules
        .lines()
        .map(|line| line.trim_start_matches("# ").trim_start_matches('#'))
        .collect();
    let mut page = format!(
        "# Reference: every key\n\n```text\n{}\n```\n\n",
        rules.join("\n")
    );
    for block in blocks {
        page.push_str(&Block::of(block).page());
    }
    format!("{}\n", page.trim_end())
}

/// One block of the reference, between empty lines.
#[derive(Debug, Default)]
struct Block {
    heading: Option<String>,
    keys: Vec<String>,
    /// Words, and the lines of the file that they are about.
    parts: Vec<(Vec<String>, Vec<String>)>,
}

/// `#key = value` is a default, `key = value` must be written.
fn key(line: &str) -> Option<&str> {
    let (key, _) = line.split_once(" = ")?;
    let is_key = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_';
    (!key.is_empty() && key.chars().all(is_key)).then_some(key)
}

impl Block {
    fn of(text: &str) -> Self {
        let mut block = Self::default();
        for line in text.lines() {
            let commented = line.strip_prefix('#');
            if let Some(example) = line.strip_prefix("# e.g. ") {
                block.keys.extend(key(example).map(str::to_owned));
                block.line(example);
            } else if let Some(name) = key(commented.unwrap_or(line)) {
                block.keys.push(name.to_owned());
                block.line(line);
            } else if let Some(words) = commented {
                block.say(words.strip_prefix(' ').unwrap_or(words));
            } else {
                if line.starts_with('[') {
                    block.heading = Some(line.to_owned());
                }
                block.line(line);
            }
        }
        let mut seen = BTreeSet::new();
        block.keys.retain(|key| seen.insert(key.clone()));
        block
    }

    /// What is said after a line of the file is about the next one.
    fn say(&mut self, words: &str) {
        match self.parts.last_mut() {
            Some((said, lines)) if lines.is_empty() => said.push(words.to_owned()),
            _ => self.parts.push((vec![words.to_owned()], Vec::new())),
        }
    }

    fn line(&mut self, line: &str) {
        match self.parts.last_mut() {
            Some((_, lines)) => lines.push(line.to_owned()),
            None => self.parts.push((Vec::new(), vec![line.to_owned()])),
        }
    }

    fn page(&self) -> String {
        let mut text = String::new();
        if let Some(heading) = &self.heading {
            text.push_str(&format!("## `{heading}`\n\n"));
        }
        if !self.keys.is_empty() {
            let keys: Vec<String> = self.keys.iter().map(|key| format!("`{key}`")).collect();
            text.push_str(&format!("### {}\n\n", keys.join(", ")));
        }
        for (words, lines) in &self.parts {
            for line in words {
                text.push_str(&format!("{}\n", escaped(line)));
            }
            if !words.is_empty() {
                text.push('\n');
            }
            if !lines.is_empty() {
                text.push_str(&format!("```toml\n{}\n```\n\n", lines.join("\n")));
            }
        }
        text
    }
}

/// Markdown without its own ideas of `*`, `<` and the rest, but for what is set in backquotes.
fn escaped(line: &str) -> String {
    let mut inside = false;
    let mut text = String::new();
    for c in line.chars() {
        if c == '`' {
            inside = !inside;
        } else if !inside && matches!(c, '*' | '_' | '<' | '>' | '[' | ']' | '$') {
            text.push('\\');
        }
        text.push(c);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    const REFERENCE: &str = include_str!("../../../../config/reference.toml");

    #[test]
    fn every_key_has_a_heading_and_every_word_is_there() {
        let page = page(REFERENCE);
        let headings: Vec<&str> = page
            .lines()
            .filter(|line| line.starts_with("### "))
            .collect();
        assert!(headings.len() > 50, "{headings:?}");
        for line in REFERENCE.lines() {
            if let Some(name) = key(line.strip_prefix('#').unwrap_or(line)) {
                let name = format!("`{name}`");
                assert!(headings.iter().any(|it| it.contains(&name)), "{name}");
            }
            let said = line.trim_start_matches("# e.g. ").trim_start_matches("# ");
            let said = if line.starts_with("# ") && !line.starts_with("# e.g. ") {
                escaped(said)
            } else {
                said.to_owned()
            };
            assert!(
                page.contains(said.trim_start_matches('#')) || page.contains(line[1..].trim()),
                "{line}"
            );
        }
    }

    #[test]
    fn a_block_is_its_words_and_its_lines() {
        let block = Block::of("# How *much*.\n#size = 1\n# e.g. size = 2\n# More `*`.\n#other = 3");
        let expected = "### `size`, `other`\n\nHow \\*much\\*.\n\n```toml\n#size = 1\nsize = 2\n```\n\n\
                        More `*`.\n\n```toml\n#other = 3\n```\n\n";
        assert_eq!(block.page(), expected);
        let table = Block::of("# A table.\n[server]");
        assert_eq!(
            table.page(),
            "## `[server]`\n\nA table.\n\n```toml\n[server]\n```\n\n"
        );
    }
}
