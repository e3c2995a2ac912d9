//! The syntax of nginx's files: words, quotes, comments, blocks. What the directives mean is not asked here.

/// Deepest nesting; nginx's own contexts need five.
const DEEPEST: usize = 32;

/// One directive, with its block if it has one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Directive {
    /// Its name.
    pub(crate) name: String,
    /// What follows, without quotes.
    pub(crate) words: Vec<String>,
    /// What stands between its braces.
    pub(crate) block: Option<Vec<Self>>,
    /// Which file, by its place among those that are read.
    pub(crate) file: usize,
    /// Its line, counted from 1.
    pub(crate) line: usize,
}

impl Directive {
    /// The word at this place, or nothing.
    pub(crate) fn word(&self, at: usize) -> &str {
        self.words.get(at).map_or("", String::as_str)
    }

    /// As one line.
    pub(crate) fn show(&self) -> String {
        let mut text = self.name.clone();
        for word in &self.words {
            let plain = !word.is_empty() && !word.contains([' ', ';', '{', '}', '"', '\t', '\n']);
            match plain {
                true => text.extend([" ", word]),
                false => text.push_str(&format!(" {word:?}")),
            }
        }
        text.push_str(if self.block.is_some() {
            " { … }"
        } else {
            ";"
        });
        text
    }
}

/// What is wrong with a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct SyntaxError {
    /// Where.
    pub(crate) line: usize,
    /// What.
    pub(crate) message: String,
}

#[derive(Debug, PartialEq, Eq)]
enum Token {
    Word(String),
    End,
    Open,
    Close,
}

/// Reads a whole file.
pub(crate) fn parse(text: &str, file: usize) -> Result<Vec<Directive>, SyntaxError> {
    let mut reader = Reader {
        rest: text.strip_prefix('\u{feff}').unwrap_or(text),
        line: 1,
        file,
    };
    reader.block(0)
}

struct Reader<'a> {
    rest: &'a str,
    line: usize,
    file: usize,
}

impl Reader<'_> {
    /// The directives up to the end of a block, or of the file.
    fn block(&mut self, depth: usize) -> Result<Vec<Directive>, SyntaxError> {
        let opened = self.line;
        let mut directives = Vec::new();
        let mut words: Vec<String> = Vec::new();
        let mut line = 0;
        loop {
            let Some((token, at)) = self.token()? else {
                return match (words.first(), depth) {
                    (Some(name), _) => Err(wrong(line, format!("`{name}` has no `;` at its end"))),
                    (None, 0) => Ok(directives),
                    (None, _) => Err(wrong(opened, "this block has no `}`")),
                };
            };
            match token {
                Token::Word(word) => {
                    if words.is_empty() {
                        line = at;
                    }
                    words.push(word);
                }
                Token::End if words.is_empty() => {}
                Token::End => directives.push(self.directive(&mut words, line, None)),
                Token::Open => {
                    if words.is_empty() {
                        return Err(wrong(at, "a block without a name"));
                    }
                    if depth == DEEPEST {
                        return Err(wrong(
                            at,
                            "blocks in blocks in blocks, too deep to be meant",
                        ));
                    }
                    let block = match words[0].ends_with("_by_lua_block") {
                        true => self.skip_code(at)?,
                        false => self.block(depth + 1)?,
                    };
                    directives.push(self.directive(&mut words, line, Some(block)));
                }
                Token::Close => {
                    return match (words.first(), depth) {
                        (Some(name), _) => {
                            Err(wrong(line, format!("`{name}` has no `;` at its end")))
                        }
                        (None, 0) => Err(wrong(at, "this `}` closes nothing")),
                        (None, _) => Ok(directives),
                    };
                }
            }
        }
    }

    fn directive(
        &self,
        words: &mut Vec<String>,
        line: usize,
        block: Option<Vec<Directive>>,
    ) -> Directive {
        let mut words = std::mem::take(words);
        Directive {
            name: words.remove(0),
            words,
            block,
            file: self.file,
            line,
        }
    }

    /// Code of another language, up to the brace that closes it.
    fn skip_code(&mut self, opened: usize) -> Result<Vec<Directive>, SyntaxError> {
        let mut depth = 1;
        while let Some(character) = self.next() {
            match character {
                '{' => depth += 1,
                '}' => depth -= 1,
                // Its strings and comments may have any braces.
                '\'' | '"' => self.quoted(character, opened).map(drop)?,
                '-' if self.peek() == Some('-') => while self.next().is_some_and(|c| c != '\n') {},
                _ => {}
            }
            if depth == 0 {
                return Ok(Vec::new());
            }
        }
        Err(wrong(opened, "this block has no `}`"))
    }

    fn next(&mut self) -> Option<char> {
        let character = self.rest.chars().next()?;
        self.rest = &self.rest[character.len_utf8()..];
        if character == '\n' {
            self.line += 1;
        }
        Some(character)
    }

    fn peek(&self) -> Option<char> {
        self.rest.chars().next()
    }

    /// The next token and its line.
    fn token(&mut self) -> Result<Option<(Token, usize)>, SyntaxError> {
        loop {
            match self.peek() {
                None => return Ok(None),
                Some(space) if space.is_whitespace() => {
                    self.next();
                }
                Some('#') => while self.next().is_some_and(|c| c != '\n') {},
                Some(_) => break,
            }
        }
        let line = self.line;
        let token = match self.peek() {
            Some(';') => Token::End,
            Some('{') => Token::Open,
            Some('}') => Token::Close,
            Some(quote @ ('"' | '\'')) => {
                self.next();
                return Ok(Some((Token::Word(self.quoted(quote, line)?), line)));
            }
            _ => return Ok(Some((Token::Word(self.word()), line))),
        };
        self.next();
        Ok(Some((token, line)))
    }

    fn quoted(&mut self, quote: char, opened: usize) -> Result<String, SyntaxError> {
        let mut word = String::new();
        while let Some(character) = self.next() {
            match character {
                end if end == quote => return Ok(word),
                '\\' => match self.next() {
                    Some(plain @ ('"' | '\'' | '\\')) => word.push(plain),
                    Some('n') => word.push('\n'),
                    Some('t') => word.push('\t'),
                    Some('r') => word.push('\r'),
                    Some(other) => word.extend(['\\', other]),
                    None => break,
                },
                plain => word.push(plain),
            }
        }
        Err(wrong(opened, format!("this {quote} has no end")))
    }

    /// A word without quotes; the braces of `${name}` belong to it.
    fn word(&mut self) -> String {
        let mut word = String::new();
        while let Some(character) = self.peek() {
            match character {
                ';' | '}' => break,
                '{' if !word.ends_with('$') => break,
                space if space.is_whitespace() => break,
                '{' => {
                    while let Some(inner) = self.next() {
                        word.push(inner);
                        if inner == '}' {
                            break;
                        }
                    }
                    continue;
                }
                '\\' => {
                    self.next();
                    word.push('\\');
                    if let Some(escaped) = self.next() {
                        word.push(escaped);
                    }
                    continue;
                }
                _ => {}
            }
            self.next();
            word.push(character);
        }
        word
    }
}

fn wrong(line: usize, message: impl Into<String>) -> SyntaxError {
    SyntaxError {
        line,
        message: message.into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(text: &str) -> Vec<String> {
        let mut lines = Vec::new();
        fn all(directives: &[Directive], lines: &mut Vec<String>) {
            for directive in directives {
                lines.push(format!("{}: {}", directive.line, directive.show()));
                all(directive.block.as_deref().unwrap_or_default(), lines);
            }
        }
        all(&parse(text, 0).expect("it is right"), &mut lines);
        lines
    }

    #[test]
    fn words_quotes_comments_and_blocks() {
        let text = "# a comment; with { all }\nserver{listen 80;\n  server_name a.example # b.example;\n    'c d' \"e\\\"f\";}\n\
                    location ~ \\.(css|js)$ { return 301 https://${host}$request_uri; }\nlog_format main '$a \"$b\" '\n  '$c';;\n\
                    if ($host = \"x;y\") { }";
        assert_eq!(
            shown(text),
            [
                "2: server { … }",
                "2: listen 80;",
                "3: server_name a.example \"c d\" \"e\\\"f\";",
                "5: location ~ \\.(css|js)$ { … }",
                "5: return 301 \"https://${host}$request_uri\";",
                "6: log_format main \"$a \\\"$b\\\" \" $c;",
                "8: if ($host = \"x;y\" ) { … }",
            ]
        );
        assert_eq!(shown("\u{feff}a;\r\nb c;\r\n"), ["1: a;", "2: b c;"]);
        let lua =
            "content_by_lua_block {\n local t = { a = { } } -- 'x }\n say(\"}{\")\n}\nuser www;";
        assert_eq!(
            shown(lua),
            ["1: content_by_lua_block { … }", "5: user www;"]
        );
    }

    #[test]
    fn what_is_wrong_is_named_by_its_line() {
        for (text, line, message) in [
            ("a\nb", 1, "`a` has no `;` at its end"),
            (
                "server {\n listen 80\n}",
                2,
                "`listen` has no `;` at its end",
            ),
            ("\nserver {\n listen 80;\n", 2, "this block has no `}`"),
            ("a;\n}\n", 2, "this `}` closes nothing"),
            ("a;\n{ }\n", 2, "a block without a name"),
            ("a 'b\n;", 1, "this ' has no end"),
            ("a \"b\\", 1, "this \" has no end"),
            ("x_by_lua_block {\n{", 1, "this block has no `}`"),
        ] {
            let error = parse(text, 0).expect_err(text);
            assert_eq!(
                (error.line, error.message.as_str()),
                (line, message),
                "{text:?}"
            );
        }
        assert!(parse(&"a {".repeat(100), 0).is_err());
    }
}
