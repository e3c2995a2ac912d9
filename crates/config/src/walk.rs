//! The tree of a TOML file, read with every mistake noted and none of them the end.
//!
//! A getter gives `None` where there is nothing to use: nothing was written, or it was wrong and has been noted. What a
//! key means is not known here.

use std::cell::RefCell;

use toml::de::{DeTable, DeValue};

use crate::{
    defaults::Figure,
    error::{Mistake, Problem, Span},
    schema::keys::{self, Keys},
    site::Located,
    units,
};

/// What has been found wrong so far.
#[derive(Debug, Default)]
pub(crate) struct Notes {
    noted: RefCell<Vec<(Certainty, Problem)>>,
}

/// Whether a problem is one however the rest of the file reads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Certainty {
    /// It stands there and is wrong.
    Sure,
    /// Something else is missing, which may stand where a syntax error hides it.
    UnlessHidden,
}

impl Notes {
    pub(crate) fn wrong(&self, problem: Problem) {
        self.noted.borrow_mut().push((Certainty::Sure, problem));
    }

    pub(crate) fn missing(&self, problem: Problem) {
        self.noted
            .borrow_mut()
            .push((Certainty::UnlessHidden, problem));
    }

    pub(crate) fn count(&self) -> usize {
        self.noted.borrow().len()
    }

    pub(crate) fn into_problems(self) -> Vec<(Certainty, Problem)> {
        self.noted.into_inner()
    }
}

/// A table whose keys are known.
#[derive(Clone, Copy)]
pub(crate) struct Table<'a> {
    keys: &'static Keys,
    entries: &'a DeTable<'a>,
    /// Its header, or the whole of an inline table.
    pub(crate) span: Option<Span>,
    pub(crate) notes: &'a Notes,
}

impl<'a> Table<'a> {
    /// Notes every key that does not belong here.
    pub(crate) fn new(
        keys: &'static Keys,
        entries: &'a DeTable<'a>,
        span: Option<Span>,
        notes: &'a Notes,
    ) -> Self {
        for key in entries.keys() {
            if !keys.names.contains(&key.get_ref().as_ref()) {
                notes.wrong(keys::unknown(keys, key.get_ref()).at(Span::from(key.span())));
            }
        }
        Self {
            keys,
            entries,
            span,
            notes,
        }
    }

    pub(crate) fn get(&self, key: &str) -> Option<Value<'a>> {
        debug_assert!(
            self.keys.names.contains(&key),
            "{key} is not in the list of keys of {}",
            self.keys.place
        );
        let (key, value) = self.entries.get_key_value(key)?;
        Some(Value {
            value: value.get_ref(),
            key: key.span().into(),
            span: value.span().into(),
            notes: self.notes,
        })
    }

    /// A key without which the table means nothing; `example` is a line to copy.
    pub(crate) fn required(&self, key: &str, example: &str) -> Option<Value<'a>> {
        let value = self.get(key);
        if value.is_none() {
            let message = format!("`{key}` is missing in {}", self.keys.place);
            self.notes
                .missing(Problem::new(self.span, message).hint(format!("add `{example}`")));
        }
        value
    }

    pub(crate) fn size(&self, figure: &Figure<u64>) -> u64 {
        let value = self.get(figure.key).and_then(|value| {
            let bytes = match value.value {
                // A number of bytes needs no unit.
                DeValue::Integer(_) => value.whole_number("a size such as `\"16MiB\"`")?,
                _ => {
                    value
                        .parsed("a size such as `\"16MiB\"`", units::parse_size)?
                        .value
                }
            };
            value.within(figure, bytes, units::show_size)
        });
        value.unwrap_or(figure.default)
    }

    pub(crate) fn count(&self, figure: &Figure<u64>) -> u64 {
        let value = self.get(figure.key).and_then(|value| {
            let count =
                value.whole_number(&format!("a whole number such as `{}`", figure.default))?;
            value.within(figure, count, |count| count.to_string())
        });
        value.unwrap_or(figure.default)
    }

    pub(crate) fn duration(&self, figure: &Figure<std::time::Duration>) -> std::time::Duration {
        let value = self.get(figure.key).and_then(|value| {
            let duration = value.duration()?;
            value.within(figure, duration, units::show_duration)
        });
        value.unwrap_or(figure.default)
    }
}

/// A value and where it stands.
#[derive(Clone, Copy)]
pub(crate) struct Value<'a> {
    value: &'a DeValue<'a>,
    /// Its key; for an element of a list, the element.
    pub(crate) key: Span,
    pub(crate) span: Span,
    pub(crate) notes: &'a Notes,
}

impl<'a> Value<'a> {
    pub(crate) fn as_str(&self) -> Option<&'a str> {
        self.value.as_str()
    }

    pub(crate) fn is_list(&self) -> bool {
        self.value.is_array()
    }

    pub(crate) fn is_table(&self) -> bool {
        self.value.is_table()
    }

    pub(crate) fn is_integer(&self) -> bool {
        self.value.is_integer()
    }

    pub(crate) fn wrong(&self, mistake: Mistake) {
        self.notes.wrong(mistake.at(self.span));
    }

    /// `wanted` reads like "a duration such as `"30s"`".
    pub(crate) fn wrong_type(&self, wanted: &str) {
        self.wrong(self.type_mistake(wanted));
    }

    pub(crate) fn type_mistake(&self, wanted: &str) -> Mistake {
        Mistake::new(format!("expected {wanted}, found {}", self.describe()))
    }

    pub(crate) fn text(&self, wanted: &str) -> Option<&'a str> {
        let text = self.value.as_str();
        if text.is_none() {
            self.wrong_type(wanted);
        }
        text
    }

    pub(crate) fn parsed<T>(
        &self,
        wanted: &str,
        parse: impl FnOnce(&str) -> Result<T, Mistake>,
    ) -> Option<Located<T>> {
        match parse(self.text(wanted)?) {
            Ok(value) => Some(self.located(value)),
            Err(mistake) => {
                self.wrong(mistake);
                None
            }
        }
    }

    pub(crate) fn located<T>(&self, value: T) -> Located<T> {
        Located {
            value,
            span: Some(self.span),
        }
    }

    pub(crate) fn as_bool(&self) -> Option<bool> {
        self.value.as_bool()
    }

    pub(crate) fn boolean(&self) -> Option<bool> {
        let value = self.value.as_bool();
        if value.is_none() {
            let mistake = self.type_mistake("`true` or `false`");
            self.wrong(match self.as_str() {
                Some("on" | "yes" | "true") => mistake.hint("write `true` without quotes"),
                Some("off" | "no" | "false") => mistake.hint("write `false` without quotes"),
                _ => mistake,
            });
        }
        value
    }

    pub(crate) fn whole_number(&self, wanted: &str) -> Option<u64> {
        let Some(integer) = self.value.as_integer() else {
            let mistake = self.type_mistake(wanted);
            let bare = self
                .value
                .as_str()
                .filter(|text| text.parse::<u64>().is_ok());
            self.wrong(match bare {
                Some(text) => mistake.hint(format!("write `{text}` without quotes")),
                None => mistake,
            });
            return None;
        };
        // Digits that are too many for a u64 are out of every range.
        let negative = integer.as_str().starts_with('-');
        let number = u64::from_str_radix(integer.as_str().trim_start_matches('+'), integer.radix());
        match number {
            Ok(number) => Some(number),
            Err(_) if negative => {
                self.wrong(Mistake::new(format!(
                    "expected {wanted}, found {}, which is negative",
                    self.describe()
                )));
                None
            }
            Err(_) => Some(u64::MAX),
        }
    }

    pub(crate) fn duration(&self) -> Option<std::time::Duration> {
        let wanted = "a duration such as `\"30s\"`";
        if let Some(number) = self.value.as_integer() {
            self.wrong(
                self.type_mistake(wanted)
                    .hint(format!("write `\"{}s\"` for seconds", number.as_str())),
            );
            return None;
        }
        self.parsed(wanted, units::parse_duration)
            .map(|duration| duration.value)
    }

    pub(crate) fn within<T: Copy + PartialOrd>(
        &self,
        figure: &Figure<T>,
        value: T,
        show: impl Fn(T) -> String,
    ) -> Option<T> {
        if value >= figure.least && value <= figure.most {
            return Some(value);
        }
        let side = if value < figure.least {
            "small"
        } else {
            "large"
        };
        let range = format!(
            "`{}` goes from {} to {}",
            figure.key,
            show(figure.least),
            show(figure.most)
        );
        self.wrong(Mistake::new(format!("{} is too {side}", self.describe())).hint(range));
        None
    }

    /// The elements of a list.
    pub(crate) fn list(&self, wanted: &str) -> Option<Vec<Self>> {
        let Some(array) = self.value.as_array() else {
            let mistake = self.type_mistake(wanted);
            self.wrong(match self.value.as_str() {
                Some(text) => mistake.hint(format!("write `[{text:?}]`")),
                None => mistake,
            });
            return None;
        };
        let element = |value: &'a toml::Spanned<DeValue<'a>>| Self {
            value: value.get_ref(),
            key: value.span().into(),
            span: value.span().into(),
            notes: self.notes,
        };
        Some(array.iter().map(element).collect())
    }

    /// A table with known keys.
    pub(crate) fn table(&self, keys: &'static Keys, wanted: &str) -> Option<Table<'a>> {
        let Some(entries) = self.value.as_table() else {
            self.wrong_type(wanted);
            return None;
        };
        Some(Table::new(keys, entries, Some(self.span), self.notes))
    }

    /// A table whose keys are names that the user chose: each with its place and value.
    pub(crate) fn named(&self, wanted: &str) -> Option<Vec<(&'a str, Self)>> {
        let Some(entries) = self.value.as_table() else {
            self.wrong_type(wanted);
            return None;
        };
        let entry = |(key, value): (&'a toml::Spanned<_>, &'a toml::Spanned<DeValue<'a>>)| {
            let name: &'a std::borrow::Cow<'a, str> = key.get_ref();
            let key = key.span().into();
            (
                name.as_ref(),
                Self {
                    value: value.get_ref(),
                    key,
                    span: value.span().into(),
                    notes: self.notes,
                },
            )
        };
        Some(entries.iter().map(entry).collect())
    }

    /// What was written, for people.
    fn describe(&self) -> String {
        match self.value {
            DeValue::String(text) => shortened(text),
            DeValue::Integer(number) => format!("the number {number}"),
            DeValue::Float(number) => format!("the number {number}"),
            DeValue::Boolean(value) => format!("`{value}`"),
            DeValue::Datetime(_) => "a date".to_owned(),
            DeValue::Array(_) => "a list".to_owned(),
            DeValue::Table(_) => "a table".to_owned(),
        }
    }
}

/// A message is one line, whatever was written.
fn shortened(text: &str) -> String {
    const LONGEST: usize = 40;
    if text.chars().count() <= LONGEST {
        return format!("{text:?}");
    }
    let start: String = text.chars().take(LONGEST).collect();
    format!("{:?}", start + "…")
}
