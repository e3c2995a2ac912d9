//! `wsgi = "module:attribute"`: what to import and which attribute of it is the application (PEP 3333).
//!
//! Whether the module exists is not asked here. A factory takes no arguments: settings belong in the environment.

use std::{fmt, str::FromStr};

use crate::{error::Mistake, site::Entry};

impl FromStr for Entry {
    type Err = Mistake;

    fn from_str(text: &str) -> Result<Self, Mistake> {
        let Some((module, attribute)) = text.split_once(':') else {
            return Err(no_colon(text));
        };
        let (attribute, factory) = match attribute.split_once('(') {
            None => (attribute, false),
            Some((name, ")")) => (name, true),
            Some((name, _)) => return Err(factory_with_arguments(text, module, name)),
        };
        // `app.py` would be the module `py` of a package `app`: nobody means that.
        if !is_dotted(module) || module.ends_with(".py") {
            return Err(not_a_module(text, module, attribute, factory));
        }
        if !is_dotted(attribute) {
            return Err(not_an_attribute(text, module));
        }
        Ok(Self {
            module: module.to_owned(),
            attribute: attribute.to_owned(),
            factory,
        })
    }
}

impl Entry {
    /// `"module:function"`, which is called without arguments: what a factory is written with is understood by itself here.
    pub(crate) fn hook(text: &str) -> Result<Self, Mistake> {
        let entry: Self = text.parse()?;
        if entry.factory {
            let named = text.trim_end_matches("()");
            return Err(
                Mistake::new(format!("{text:?} calls what is called anyway"))
                    .hint(format!("write `\"{named}\"`")),
            );
        }
        Ok(entry)
    }
}

impl fmt::Display for Entry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let call = if self.factory { "()" } else { "" };
        write!(f, "{}:{}{call}", self.module, self.attribute)
    }
}

/// `a.b.c`, each part a Python identifier as far as letters go.
fn is_dotted(text: &str) -> bool {
    text.split('.').all(|part| {
        let starts = part
            .chars()
            .next()
            .is_some_and(|first| first == '_' || first.is_alphabetic());
        starts && part.chars().all(|c| c == '_' || c.is_alphanumeric())
    })
}

/// The module that a path of a file stands for: `app/wsgi.py` is `app.wsgi`.
fn module_of(path: &str) -> Option<String> {
    let stem = path.trim_start_matches("./").trim_end_matches('/');
    let stem = stem.strip_suffix(".py").unwrap_or(stem).replace('/', ".");
    let stem = stem.strip_suffix(".__init__").unwrap_or(&stem);
    is_dotted(stem).then(|| stem.to_owned())
}

/// What the attribute is likely called: Django's `wsgi.py` names it `application`, Flask's tutorial `app`.
fn usual_attribute(module: &str) -> &'static str {
    if module == "wsgi" || module.ends_with(".wsgi") {
        "application"
    } else {
        "app"
    }
}

fn mistake(text: &str) -> Mistake {
    Mistake::new(format!("{text:?} is not `module:attribute`"))
}

fn no_colon(text: &str) -> Mistake {
    match module_of(text) {
        Some(module) => {
            let attribute = usual_attribute(&module);
            mistake(text).hint(format!(
                "name the attribute too, such as `\"{module}:{attribute}\"`"
            ))
        }
        None => mistake(text)
            .hint("write `\"app:app\"` for `app` in app.py, or `\"mysite.wsgi:application\"`"),
    }
}

fn not_a_module(text: &str, module: &str, attribute: &str, factory: bool) -> Mistake {
    match module_of(module).filter(|_| is_dotted(attribute)) {
        Some(meant) => {
            let call = if factory { "()" } else { "" };
            mistake(text).hint(format!("did you mean `\"{meant}:{attribute}{call}\"`? a module is named as in an `import`"))
        }
        None => mistake(text).hint("a module is named as in an `import`: `app` for app.py, `mysite.wsgi` for mysite/wsgi.py"),
    }
}

fn not_an_attribute(text: &str, module: &str) -> Mistake {
    let attribute = usual_attribute(module);
    mistake(text).hint(format!(
        "after the colon comes a name in the module, such as `\"{module}:{attribute}\"`"
    ))
}

fn factory_with_arguments(text: &str, module: &str, name: &str) -> Mistake {
    Mistake::new(format!("{text:?} calls a factory with arguments")).hint(format!(
        "write `\"{module}:{name}()\"`, and give settings to the factory through `env`"
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries() {
        for (text, module, attribute, factory) in [
            ("app:app", "app", "app", false),
            ("pkg.mod:attr", "pkg.mod", "attr", false),
            ("app:create_app()", "app", "create_app", true),
            ("app:holder.app", "app", "holder.app", false),
            ("_a1:größe", "_a1", "größe", false),
        ] {
            let entry: Entry = text
                .parse()
                .unwrap_or_else(|mistake| panic!("{text}: {mistake}"));
            assert_eq!(
                (
                    entry.module.as_str(),
                    entry.attribute.as_str(),
                    entry.factory
                ),
                (module, attribute, factory)
            );
            assert_eq!(entry.to_string(), text);
        }
    }

    #[test]
    fn a_hook_is_named_and_not_called() {
        assert_eq!(
            Entry::hook("app:warm_up").map(|entry| entry.factory),
            Ok(false)
        );
        let mistake = Entry::hook("app:warm_up()").expect_err("called twice");
        assert_eq!(mistake.hint.as_deref(), Some("write `\"app:warm_up\"`"));
    }

    #[test]
    fn what_is_not_an_entry_gets_a_hint() {
        for (text, hint) in [
            ("app", "name the attribute too, such as `\"app:app\"`"),
            ("app.py", "name the attribute too, such as `\"app:app\"`"),
            (
                "mysite.wsgi",
                "name the attribute too, such as `\"mysite.wsgi:application\"`",
            ),
            (
                "app/wsgi.py",
                "name the attribute too, such as `\"app.wsgi:application\"`",
            ),
            (
                "",
                "write `\"app:app\"` for `app` in app.py, or `\"mysite.wsgi:application\"`",
            ),
            (
                "app.py:app",
                "did you mean `\"app:app\"`? a module is named as in an `import`",
            ),
            (
                "./app/wsgi.py:application",
                "did you mean `\"app.wsgi:application\"`? a module is named as in an `import`",
            ),
            (
                "a/b.py:make()",
                "did you mean `\"a.b:make()\"`? a module is named as in an `import`",
            ),
            (
                ":app",
                "a module is named as in an `import`: `app` for app.py, `mysite.wsgi` for mysite/wsgi.py",
            ),
            (
                "my-app:app",
                "a module is named as in an `import`: `app` for app.py, `mysite.wsgi` for mysite/wsgi.py",
            ),
            (
                "app:",
                "after the colon comes a name in the module, such as `\"app:app\"`",
            ),
            (
                "app:app:app",
                "after the colon comes a name in the module, such as `\"app:app\"`",
            ),
            (
                "app:make('x')",
                "write `\"app:make()\"`, and give settings to the factory through `env`",
            ),
        ] {
            let mistake = text.parse::<Entry>().expect_err(text);
            assert_eq!(mistake.hint.as_deref(), Some(hint), "{text}");
        }
    }
}
