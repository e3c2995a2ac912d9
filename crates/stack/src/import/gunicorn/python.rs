//! A `gunicorn.conf.py`, read and not run: assignments of what is written out. What is computed is named, and left to a person.

/// A statement at the top of a file.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Statement {
    /// Its line, counted from 1.
    pub(super) line: usize,
    /// Its first line, as it is written.
    pub(super) text: String,
    pub(super) kind: Kind,
}

#[derive(Clone, Debug, PartialEq)]
pub(super) enum Kind {
    /// `name = literal`.
    Assigned(String, Value),
    /// `name = …`, which Python would have to compute.
    Computed(String),
    /// `def name(…):`, with its body.
    Function(String),
    /// `import …`, a docstring, `pass`.
    Nothing,
    /// Anything else.
    Other,
}

/// What is written out.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Value {
    None,
    Bool(bool),
    Number(String),
    Text(String),
    List(Vec<Self>),
}

/// The statements of a file.
pub(super) fn statements(text: &str) -> Vec<Statement> {
    let mut all = Vec::new();
    for Logical {
        line,
        indented,
        code,
        text,
    } in logical_lines(text)
    {
        // The body of what comes before.
        if indented {
            continue;
        }
        let kind = kind(&code);
        all.push(Statement { line, text, kind });
    }
    all
}

fn kind(code: &str) -> Kind {
    let code = code.trim();
    let word = code.split(|c: char| !is_name(c)).next().unwrap_or_default();
    match word {
        "import" | "from" | "pass" => return Kind::Nothing,
        "def" | "async" => {
            let name = code
                .trim_start_matches("async")
                .trim_start()
                .trim_start_matches("def")
                .trim_start();
            let name: String = name.chars().take_while(|c| is_name(*c)).collect();
            return Kind::Function(name);
        }
        "" if Parser::whole(code).is_some() => return Kind::Nothing,
        _ => {}
    }
    let after = code[word.len()..].trim_start();
    // An annotation may stand between: `workers: int = 4`.
    let value = match after
        .strip_prefix(':')
        .and_then(|annotated| annotated.split_once('='))
    {
        Some((annotation, value))
            if annotation.chars().all(|c| is_name(c) || " .[]".contains(c)) =>
        {
            value
        }
        _ => match after.strip_prefix('=') {
            Some(value) if !value.starts_with('=') => value,
            _ => return Kind::Other,
        },
    };
    match Parser::whole(value) {
        Some(value) => Kind::Assigned(word.to_owned(), value),
        None => Kind::Computed(word.to_owned()),
    }
}

fn is_name(c: char) -> bool {
    c.is_alphanumeric() || c == '_'
}

/// A line as Python counts them: brackets and strings may span several.
struct Logical {
    line: usize,
    indented: bool,
    /// Without comments.
    code: String,
    /// The first of its lines.
    text: String,
}

fn logical_lines(text: &str) -> Vec<Logical> {
    let mut lines = Lines {
        text,
        rest: text.strip_prefix('\u{feff}').unwrap_or(text),
        line: 1,
        first: 1,
        code: String::new(),
        depth: 0,
        quote: None,
        all: Vec::new(),
    };
    while let Some(c) = lines.rest.chars().next() {
        match lines.quote {
            Some(end) => lines.in_string(c, end),
            None => lines.in_code(c),
        }
    }
    lines.finish();
    lines.all
}

/// Logical lines, as far as they are read.
struct Lines<'a> {
    text: &'a str,
    rest: &'a str,
    /// Where we are.
    line: usize,
    /// Where the one that is being read began.
    first: usize,
    /// What it is so far.
    code: String,
    /// Brackets that are open.
    depth: usize,
    /// What the string ends with that we are in.
    quote: Option<&'static str>,
    all: Vec<Logical>,
}

impl Lines<'_> {
    fn in_string(&mut self, c: char, end: &str) {
        if let Some(after) = self.rest.strip_prefix(end) {
            self.code.push_str(end);
            self.rest = after;
            self.quote = None;
            return;
        }
        // A string in one quote ends with its line, whatever Python thinks of that.
        if c == '\n' && end.len() == 1 {
            self.quote = None;
            return;
        }
        self.take(c);
        // What it escapes does not end the string.
        if c == '\\'
            && let Some(escaped) = self.rest.chars().next()
        {
            self.take(escaped);
        }
    }

    fn in_code(&mut self, c: char) {
        let opens = ["\"\"\"", "'''", "\"", "'"]
            .into_iter()
            .find(|quote| self.rest.starts_with(quote));
        if let Some(opens) = opens {
            self.code.push_str(opens);
            self.rest = &self.rest[opens.len()..];
            self.quote = Some(opens);
            return;
        }
        match c {
            '#' => self.rest = &self.rest[self.rest.find('\n').unwrap_or(self.rest.len())..],
            '\\' if self.rest[1..].starts_with(['\n', '\r']) => {
                let rest = self.rest[1..].trim_start_matches('\r');
                self.rest = rest.strip_prefix('\n').unwrap_or(rest);
                self.line += 1;
            }
            '\n' if self.depth == 0 => {
                self.line += 1;
                self.rest = &self.rest[1..];
                self.finish();
                self.first = self.line;
            }
            '\n' => {
                self.line += 1;
                self.rest = &self.rest[1..];
                self.code.push(' ');
            }
            c => {
                match c {
                    '(' | '[' | '{' => self.depth += 1,
                    ')' | ']' | '}' => self.depth = self.depth.saturating_sub(1),
                    _ => {}
                }
                self.take(c);
                if self.code.trim().is_empty() && c != ' ' && c != '\t' {
                    self.code.clear();
                }
            }
        }
    }

    /// The next character belongs to the line.
    fn take(&mut self, c: char) {
        self.code.push(c);
        self.line += usize::from(c == '\n');
        self.rest = &self.rest[c.len_utf8()..];
    }

    /// The line is whole.
    fn finish(&mut self) {
        let code = std::mem::take(&mut self.code);
        if code.trim().is_empty() {
            return;
        }
        let text = self.text.lines().nth(self.first - 1).unwrap_or_default();
        self.all.push(Logical {
            line: self.first,
            indented: code.starts_with([' ', '\t']),
            code,
            text: text.trim_end().to_owned(),
        });
    }
}

/// Literals, by Python's rules as far as settings have them.
struct Parser<'a> {
    rest: &'a str,
    depth: usize,
}

impl<'a> Parser<'a> {
    /// The value that the whole text is.
    fn whole(text: &'a str) -> Option<Value> {
        let mut parser = Self {
            rest: text,
            depth: 0,
        };
        let value = parser.value()?;
        parser.space();
        // `a, b` without brackets is a tuple.
        if parser.rest.starts_with(',') {
            let mut all = vec![value];
            while parser.take(',') {
                parser.space();
                if parser.rest.is_empty() {
                    break;
                }
                all.push(parser.value()?);
                parser.space();
            }
            return parser.rest.is_empty().then_some(Value::List(all));
        }
        parser.rest.is_empty().then_some(value)
    }

    fn space(&mut self) {
        self.rest = self.rest.trim_start();
    }

    fn take(&mut self, c: char) -> bool {
        self.space();
        let after = self.rest.strip_prefix(c);
        self.rest = after.unwrap_or(self.rest);
        after.is_some()
    }

    fn value(&mut self) -> Option<Value> {
        const DEEPEST: usize = 16;
        self.depth += 1;
        if self.depth > DEEPEST {
            return None;
        }
        self.space();
        let value = match self.rest.chars().next()? {
            '[' => self.list(']'),
            '(' => self.list(')'),
            '"' | '\'' => self.texts(),
            'r' | 'R' | 'u' | 'b' | 'B' | 'U' if self.rest[1..].starts_with(['"', '\'']) => {
                self.texts()
            }
            c if c.is_ascii_digit() || c == '-' => self.number(),
            _ => self.word(),
        };
        self.depth -= 1;
        value
    }

    fn list(&mut self, end: char) -> Option<Value> {
        let open = if end == ']' { '[' } else { '(' };
        self.take(open);
        let mut all = Vec::new();
        let mut commas = 0;
        loop {
            if self.take(end) {
                break;
            }
            all.push(self.value()?);
            if self.take(',') {
                commas += 1;
            } else if self.take(end) {
                break;
            } else {
                return None;
            }
        }
        // Brackets alone are no tuple.
        match (end, commas, all.len()) {
            (')', 0, 1) => all.pop(),
            _ => Some(Value::List(all)),
        }
    }

    /// Strings that stand behind one another are one.
    fn texts(&mut self) -> Option<Value> {
        let mut whole = String::new();
        loop {
            self.space();
            let raw = self.rest.starts_with(['r', 'R']);
            let start = self.rest.trim_start_matches(['r', 'R', 'u', 'U', 'b', 'B']);
            let quote = ["\"\"\"", "'''", "\"", "'"]
                .into_iter()
                .find(|quote| start.starts_with(quote));
            let Some(quote) = quote.filter(|_| self.rest.len() - start.len() <= 1) else {
                return Some(Value::Text(whole));
            };
            self.rest = &start[quote.len()..];
            loop {
                if let Some(after) = self.rest.strip_prefix(quote) {
                    self.rest = after;
                    break;
                }
                let c = self.rest.chars().next()?;
                self.rest = &self.rest[c.len_utf8()..];
                if c != '\\' || raw {
                    whole.push(c);
                    continue;
                }
                let escaped = self.rest.chars().next()?;
                self.rest = &self.rest[escaped.len_utf8()..];
                match escaped {
                    'n' => whole.push('\n'),
                    't' => whole.push('\t'),
                    '\n' => {}
                    '\\' | '\'' | '"' => whole.push(escaped),
                    // Numbers of characters are nobody's settings.
                    _ => whole.extend(['\\', escaped]),
                }
            }
        }
    }

    fn number(&mut self) -> Option<Value> {
        let length = self
            .rest
            .chars()
            .take_while(|c| c.is_ascii_alphanumeric() || "_.-".contains(*c))
            .count();
        let (text, rest) = self.rest.split_at(length);
        let plain = text.replace('_', "");
        let digits = plain.trim_start_matches('-');
        let is_number = digits.parse::<f64>().is_ok() && !digits.contains(['e', 'E', 'i', 'n']);
        let is_octal = digits
            .strip_prefix("0o")
            .is_some_and(|octal| !octal.is_empty() && octal.chars().all(|c| c.is_digit(8)));
        if !is_number && !is_octal {
            return None;
        }
        self.rest = rest;
        Some(Value::Number(plain))
    }

    fn word(&mut self) -> Option<Value> {
        for (word, value) in [
            ("None", Value::None),
            ("True", Value::Bool(true)),
            ("False", Value::Bool(false)),
        ] {
            if let Some(rest) = self.rest.strip_prefix(word)
                && !rest.starts_with(is_name)
            {
                self.rest = rest;
                return Some(value);
            }
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kinds(text: &str) -> Vec<(usize, Kind)> {
        statements(text)
            .into_iter()
            .map(|one| (one.line, one.kind))
            .collect()
    }

    #[test]
    fn what_is_written_out_is_read() {
        let text = Value::Text("a".into());
        for (code, expected) in [
            ("'a'", Some(text.clone())),
            ("r\"a\"", Some(text.clone())),
            ("('a')", Some(text.clone())),
            ("'''a'''", Some(text.clone())),
            ("('' 'a')", Some(text.clone())),
            ("[]", Some(Value::List(vec![]))),
            ("('a',)", Some(Value::List(vec![text.clone()]))),
            (
                "'a', 'a'",
                Some(Value::List(vec![text.clone(), text.clone()])),
            ),
            ("['a', None, ]", Some(Value::List(vec![text, Value::None]))),
            ("1_000", Some(Value::Number("1000".into()))),
            ("-1", Some(Value::Number("-1".into()))),
            ("0o022", Some(Value::Number("0o022".into()))),
            ("2.5", Some(Value::Number("2.5".into()))),
            ("True", Some(Value::Bool(true))),
            ("f'a'", None),
            ("1 + 1", None),
            ("Truely", None),
            ("os.environ['A']", None),
            ("{'a': 1}", None),
            ("['a'", None),
            ("'a", None),
            ("1e3", None),
        ] {
            assert_eq!(Parser::whole(code), expected, "{code}");
        }
        assert_eq!(Parser::whole(&"[".repeat(1000)), None);
    }

    #[test]
    fn statements_are_told_apart() {
        let text = "\"\"\"What\nit is.\"\"\"\nimport os  # yes\n\nbind = [\n  '0.0.0.0:80',  # here\n  'unix:/x',\n]\n\
                    workers: int = 4\nthreads = os.cpu_count()\ndef on_exit(server):\n    bind = 'no'\n\n    x()\n\
                    if True:\n    y = 1\ntimeout = \\\n  30\nbind == 1\na.b = 2\n";
        let list = Value::List(vec![
            Value::Text("0.0.0.0:80".into()),
            Value::Text("unix:/x".into()),
        ]);
        assert_eq!(
            kinds(text),
            [
                (1, Kind::Nothing),
                (3, Kind::Nothing),
                (5, Kind::Assigned("bind".into(), list)),
                (
                    9,
                    Kind::Assigned("workers".into(), Value::Number("4".into()))
                ),
                (10, Kind::Computed("threads".into())),
                (11, Kind::Function("on_exit".into())),
                (15, Kind::Other),
                (
                    17,
                    Kind::Assigned("timeout".into(), Value::Number("30".into()))
                ),
                (19, Kind::Other),
                (20, Kind::Other),
            ]
        );
    }
}
