//! What a Python file says at its top level, as far as a look at its lines tells. Nothing is run or imported.

/// What may be served of a module.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Candidate {
    /// The attribute, with `()` where it is a factory.
    pub(super) attribute: String,
    /// What it is, for people: `a Flask app`.
    pub(super) what: &'static str,
    /// How sure that is; the largest wins.
    pub(super) weight: u32,
}

/// What makes an app, and what that is called.
const MAKERS: [(&str, &str); 12] = [
    ("Flask(", "a Flask app"),
    ("get_wsgi_application(", "a Django app"),
    ("falcon.App(", "a Falcon app"),
    ("falcon.API(", "a Falcon app"),
    ("Bottle(", "a Bottle app"),
    ("default_app(", "a Bottle app"),
    (".make_wsgi_app(", "a Pyramid app"),
    (".wsgifunc(", "a web.py app"),
    ("dash.Dash(", "a Dash app"),
    ("Dash(", "a Dash app"),
    ("APIFlask(", "an APIFlask app"),
    ("create_app(", "an app that its factory makes"),
];

/// What looks like an app but speaks another protocol.
const ASGI: [(&str, &str); 6] = [
    ("FastAPI(", "FastAPI"),
    ("Starlette(", "Starlette"),
    ("Quart(", "Quart"),
    ("Litestar(", "Litestar"),
    ("Sanic(", "Sanic"),
    ("get_asgi_application(", "Django's ASGI"),
];

/// The best that a text offers.
pub(super) fn candidate(text: &str) -> Option<Candidate> {
    let found = top_level(text).filter_map(|line| assigned(line).or_else(|| defined(line, text)));
    found.max_by_key(|candidate| candidate.weight)
}

/// The framework of an app that cannot be served here.
pub(super) fn asgi(text: &str) -> Option<&'static str> {
    top_level(text).find_map(|line| {
        let (_, value) = assignment(line)?;
        let known = ASGI.iter().find(|(maker, _)| calls(value, maker));
        known.map(|(_, name)| *name)
    })
}

/// The text between quotes that is assigned to a name somewhere: `STATIC_URL = "static/"`.
pub(super) fn setting<'a>(text: &'a str, name: &str) -> Option<&'a str> {
    let value = top_level(text).find_map(|line| {
        let (left, value) = assignment(line)?;
        (left == name).then_some(value)
    })?;
    literal(value)
}

/// The last literal of a value: `BASE_DIR / "staticfiles"`, `os.path.join(BASE_DIR, "staticfiles")`.
pub(super) fn literal(value: &str) -> Option<&str> {
    let code = value.split('#').next().unwrap_or(value);
    let end = code.rfind(['"', '\''])?;
    let quote = &code[end..=end];
    let start = code[..end].rfind(quote)?;
    Some(&code[start + 1..end])
}

/// The first value of `os.environ.setdefault("DJANGO_SETTINGS_MODULE", "mysite.settings")`.
pub(super) fn settings_module(text: &str) -> Option<&str> {
    let line = text
        .lines()
        .find(|line| line.contains("DJANGO_SETTINGS_MODULE") && line.contains("setdefault"))?;
    literal(line)
}

/// Lines that begin at the margin: the rest belongs to something else.
fn top_level(text: &str) -> impl Iterator<Item = &str> {
    text.lines()
        .filter(|line| line.starts_with(|first: char| first.is_alphabetic() || first == '_'))
}

/// `app = Flask(__name__)`, `app: Flask = Flask(…)`.
fn assignment(line: &str) -> Option<(&str, &str)> {
    let (left, value) = line.split_once('=')?;
    if value.starts_with('=') {
        return None;
    }
    let name = left.split(':').next().unwrap_or(left).trim();
    let is_name = name.chars().all(|c| c.is_alphanumeric() || c == '_');
    (is_name && !name.is_empty()).then(|| (name, value.trim()))
}

/// Whether the value is such a call, and not one whose name only ends so.
fn calls(value: &str, maker: &str) -> bool {
    value.match_indices(maker).any(|(at, _)| {
        maker.starts_with('.')
            || !value[..at].ends_with(|before: char| before.is_alphanumeric() || before == '_')
    })
}

fn assigned(line: &str) -> Option<Candidate> {
    let (name, value) = assignment(line)?;
    let (_, what) = MAKERS.iter().find(|(maker, _)| calls(value, maker))?;
    // Dash wraps a Flask app, which is what speaks WSGI.
    let attribute = if *what == "a Dash app" {
        format!("{name}.server")
    } else {
        name.to_owned()
    };
    let usual = matches!(name, "app" | "application");
    let made = *what == "an app that its factory makes";
    Some(Candidate {
        attribute,
        what,
        weight: 10 + 2 * u32::from(usual) + u32::from(!made),
    })
}

/// `def create_app():`, `def application(environ, start_response):`.
fn defined(line: &str, text: &str) -> Option<Candidate> {
    let rest = line.strip_prefix("def ")?;
    let (name, parameters) = rest.split_once('(')?;
    if matches!(name, "create_app" | "make_app" | "create_application") && text.contains("Flask(") {
        return Some(Candidate {
            attribute: format!("{name}()"),
            what: "a Flask app, by its factory",
            weight: 5,
        });
    }
    let first = parameters.split(',').next().unwrap_or_default().trim();
    let speaks_wsgi =
        parameters.contains("start_response") || (first == "environ" && parameters.contains(','));
    speaks_wsgi.then(|| Candidate {
        attribute: name.to_owned(),
        what: "a WSGI app",
        weight: 8 + u32::from(matches!(name, "app" | "application")),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn apps_are_known_by_what_makes_them() {
        for (text, attribute, what) in [
            ("app = Flask(__name__)\n", "app", "a Flask app"),
            (
                "web: Flask = flask.Flask(\n    __name__)\n",
                "web",
                "a Flask app",
            ),
            (
                "application = get_wsgi_application()\n",
                "application",
                "a Django app",
            ),
            (
                "def create_app(config=None):\n    app = Flask(__name__)\n",
                "create_app()",
                "a Flask app, by its factory",
            ),
            (
                "from x import create_app\napp = create_app()\n",
                "app",
                "an app that its factory makes",
            ),
            (
                "def app(environ, start_response):\n    pass\n",
                "app",
                "a WSGI app",
            ),
            (
                "def simple_app(environ, respond):\n    pass\n",
                "simple_app",
                "a WSGI app",
            ),
            ("app = Dash(__name__)\n", "app.server", "a Dash app"),
            (
                "config = Configurator()\napp = config.make_wsgi_app()\n",
                "app",
                "a Pyramid app",
            ),
            (
                "other = Flask('b')\napp = Flask('a')\n",
                "app",
                "a Flask app",
            ),
        ] {
            let found = candidate(text).unwrap_or_else(|| panic!("{text}"));
            assert_eq!(
                (found.attribute.as_str(), found.what),
                (attribute, what),
                "{text}"
            );
        }
    }

    #[test]
    fn what_only_looks_like_an_app_is_none() {
        for text in [
            "    app = Flask(__name__)\n",
            "# app = Flask(__name__)\n",
            "app == Flask(1)\n",
            "app = NotFlask(1)\n",
            "def create_app():\n    return FastAPI()\n",
            "def handler(event, context):\n    pass\n",
            "",
        ] {
            assert_eq!(candidate(text), None, "{text}");
        }
        assert_eq!(asgi("app = FastAPI(title='x')\n"), Some("FastAPI"));
        assert_eq!(asgi("app = Flask(__name__)\n"), None);
    }

    #[test]
    fn settings_are_read() {
        let text = "STATIC_URL = 'assets/'  # where\nSTATIC_ROOT = BASE_DIR / \"staticfiles\"\nMEDIA_ROOT = os.path.join(BASE, 'media')\n";
        assert_eq!(setting(text, "STATIC_URL"), Some("assets/"));
        assert_eq!(setting(text, "STATIC_ROOT"), Some("staticfiles"));
        assert_eq!(setting(text, "MEDIA_ROOT"), Some("media"));
        assert_eq!(setting(text, "MEDIA_URL"), None);
        let manage =
            "def main():\n    os.environ.setdefault('DJANGO_SETTINGS_MODULE', 'mysite.settings')\n";
        assert_eq!(settings_module(manage), Some("mysite.settings"));
    }
}
