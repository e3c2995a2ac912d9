//! What who develops a site is shown, and nobody else (`--dev`): why an app failed, and why the newest code is not served.
//!
//! A traceback tells much: paths, code, values. So it goes only to clients that are near: on this machine or on a network of its
//! own, and never to one behind the internet, whatever the site listens on. A tunnel (ngrok, cloudflared) or a proxy brings the
//! internet from an address of this machine, so who comes by one that nobody has named in `trusted_proxies` is not near.

use std::{net::IpAddr, sync::Arc};

use arc_swap::ArcSwapOption;
use message::{field::Fields, head::Method, status};
use telemetry::text::visible_lines;

use crate::{
    failure::{Failure, Who},
    pages::Wish,
    request::{Request, RequestId},
    response::{Content, Response},
};

/// What is known of the newest code.
#[derive(Debug, Default)]
pub(crate) struct Dev {
    /// Why it is not served; `None` while it is.
    broken: ArcSwapOption<String>,
}

impl Dev {
    /// The newest code or configuration cannot be served, or is served again.
    pub(crate) fn set_broken(&self, why: Option<String>) {
        self.broken.store(why.map(Arc::new));
    }

    /// What a client is told of a failure beside what everybody is; `None` where that is nothing.
    pub(crate) fn detail(&self, failure: &Failure, viewer: Viewer<'_>) -> Option<String> {
        if !viewer.is_near() || !matches!(failure.who(), Who::Worker | Who::Upstream | Who::Us) {
            return None;
        }
        let broken = || self.broken.load().as_deref().cloned();
        Some(match failure {
            Failure::AppFailed {
                traceback: Some(traceback),
                ..
            } => traceback.clone(),
            Failure::AppNotReady { .. } => broken().unwrap_or_else(|| failure.to_string()),
            _ => failure.to_string(),
        })
    }

    /// A page of the last code that works says that it is not the newest.
    pub(crate) fn mark(
        &self,
        mut response: Response,
        request: &Request<'_>,
        is_trusted: bool,
    ) -> Response {
        let viewer = Viewer {
            client: request.client.address,
            fields: &request.head.fields,
            is_trusted,
        };
        let broken = self.broken.load();
        let (Some(why), Content::Bytes(page)) = (broken.as_deref(), &response.content) else {
            return response;
        };
        let is_html = response
            .fields
            .get("content-type")
            .is_some_and(|kind| kind.to_ascii_lowercase().starts_with(b"text/html"));
        if !is_html
            || page.is_empty()
            || response.fields.get("content-encoding").is_some()
            || request.head.method == Method::Head
            || !viewer.is_near()
        {
            return response;
        }
        let marked = [page, notice(why).as_bytes()].concat();
        response.content = Content::Bytes(marked.into());
        // They are those of the page without it.
        let concerns = |name: &[u8]| {
            [&b"etag"[..], b"last-modified", b"cache-control"]
                .iter()
                .any(|known| name.eq_ignore_ascii_case(known))
        };
        response.fields.retain(|name, _| !concerns(name));
        response.with("Cache-Control", "no-store")
    }
}

/// Who would see it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Viewer<'a> {
    /// The client, as `trusted_proxies` have told it.
    pub(crate) client: Option<IpAddr>,
    /// What the request says.
    pub(crate) fields: &'a Fields,
    /// Whether it came by one of `trusted_proxies`.
    pub(crate) is_trusted: bool,
}

impl Viewer<'_> {
    fn is_near(self) -> bool {
        let is_relayed = || RELAYED.iter().any(|name| self.fields.get(name).is_some());
        is_near(self.client) && (self.is_trusted || !is_relayed())
    }
}

/// What tunnels and proxies say of whom they speak for; one of them is enough.
const RELAYED: [&str; 5] = [
    "x-forwarded-for",
    "forwarded",
    "via",
    "x-real-ip",
    "x-forwarded-host",
];

/// Whether a client is on this machine or on a network of its own (RFC 1918, RFC 4193, RFC 3927, RFC 4291 §2.5.6); one without an
/// address has come by a socket of this machine.
fn is_near(client: Option<IpAddr>) -> bool {
    match client.map(|client| client.to_canonical()) {
        None => true,
        Some(IpAddr::V4(client)) => {
            client.is_loopback() || client.is_private() || client.is_link_local()
        }
        Some(IpAddr::V6(client)) => {
            client.is_loopback() || client.is_unique_local() || client.is_unicast_link_local()
        }
    }
}

/// Puts what is known in the place of the page that visitors get.
pub(crate) fn explain(
    mut response: Response,
    detail: &str,
    cause: &str,
    wish: Wish,
    id: RequestId,
) -> Response {
    let status = response.status;
    let reason = status::reason(status);
    let (content_type, content) = match wish {
        Wish::Html => ("text/html; charset=utf-8", page(status, detail, cause, id)),
        Wish::Json => {
            let json = serde_json::json!({
                "status": status,
                "error": reason,
                "cause": cause,
                "detail": visible_lines(detail),
                "request_id": id.as_str(),
            });
            ("application/json", format!("{json}\n"))
        }
        Wish::Nothing => (
            "text/plain; charset=utf-8",
            format!(
                "{status} {reason}\n\n{}\n\n{ONLY_DEV}\nRequest {id}\n",
                visible_lines(detail)
            ),
        ),
    };
    response.content = Content::Bytes(content.into());
    response
        .fields
        .retain(|name, _| !name.eq_ignore_ascii_case(b"content-type"));
    response.with("Content-Type", content_type)
}

const ONLY_DEV: &str =
    "Shown because stack runs with --dev. Visitors of a site without it get a plain page.";

const PRE: &str = "margin:0;overflow:auto;white-space:pre;font:13px/1.5 ui-monospace,monospace";

fn page(status: u16, detail: &str, cause: &str, id: RequestId) -> String {
    let reason = status::reason(status);
    let title = headline(detail);
    format!(
        "<!doctype html>\n<html lang=\"en\">\n<meta charset=\"utf-8\">\n\
         <meta name=\"viewport\" content=\"width=device-width\">\n<title>{title}</title>\n\
         <style>body{{font:16px/1.5 system-ui,sans-serif;max-width:70em;margin:0 auto;padding:2em 1em;color:#222;\
         background:#fff}}h1{{font-size:1.4em;font-weight:600;overflow-wrap:anywhere}}small{{color:#777}}\
         b{{background:#b3261e;color:#fff;padding:.2em .6em;border-radius:.3em;font-weight:600}}\
         pre{{{PRE};padding:1em;background:#f4f4f4}}\
         @media(prefers-color-scheme:dark){{body{{color:#ddd;background:#181818}}pre{{background:#242424}}}}</style>\n\
         <p><b>stack --dev</b> {status} {reason} ({cause})</p>\n<h1>{title}</h1>\n<pre>{}</pre>\n\
         <p><small>{ONLY_DEV}<br>Request {id}</small></p>\n",
        escaped(detail)
    )
}

/// What is put behind a page. Its end may have been written already: browsers take what follows into the body all the same.
fn notice(why: &str) -> String {
    format!(
        "\n<div role=\"alert\" style=\"position:fixed;z-index:2147483647;inset:auto 0 0 0;max-height:50vh;overflow:auto;\
         padding:1em;background:#b3261e;color:#fff;font:14px/1.5 system-ui,sans-serif;text-align:left\">\
         <strong>stack --dev: the newest version cannot be served; this page is of the last one that could.</strong>\
         <pre style=\"{PRE};margin-top:.5em\">{}</pre></div>\n",
        escaped(why)
    )
}

/// The line that says what is wrong: of a traceback the last that is not indented.
fn headline(detail: &str) -> String {
    let lines = || detail.lines().filter(|line| !line.trim().is_empty());
    let is_traceback = lines().any(|line| line.starts_with("Traceback (most recent call last)"));
    let mut unindented = lines().filter(|line| !line.starts_with(char::is_whitespace));
    let line = match is_traceback {
        true => unindented.next_back(),
        false => unindented.next(),
    };
    escaped(line.unwrap_or(detail).trim_end())
}

fn escaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for character in visible_lines(text).chars() {
        match character {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\'' => out.push_str("&#39;"),
            plain => out.push(plain),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use std::sync::LazyLock;

    use message::head::{Limits, RequestHead};

    use super::*;

    const TRACEBACK: &str = "Traceback (most recent call last):\n  File \"app.py\", line 1, in <module>\n\
                             \u{1b}[31m    a < b\nNameError: name '<script>' is not defined\n";

    #[test]
    fn what_an_app_says_is_text_and_nothing_else() {
        let page = page(500, TRACEBACK, "app-failed", RequestId::new());
        assert!(
            page.contains("<h1>NameError: name &#39;&lt;script&gt;&#39; is not defined</h1>"),
            "{page}"
        );
        assert!(
            page.contains("\\x1B[31m    a &lt; b\n") && !page.contains("<script>"),
            "{page}"
        );
        let notice = notice("</pre><script>");
        assert!(notice.contains("&lt;/pre&gt;&lt;script&gt;"), "{notice}");
    }

    #[test]
    fn the_headline_says_what_is_wrong() {
        for (detail, expected) in [
            (
                TRACEBACK,
                "NameError: name &#39;&lt;script&gt;&#39; is not defined",
            ),
            (
                "error: unknown key\n --> site.toml:1\n\n1 mistake in site.toml",
                "error: unknown key",
            ),
            ("web·2: gone\n", "web·2: gone"),
            ("", ""),
        ] {
            assert_eq!(headline(detail), expected, "{detail}");
        }
    }

    fn head(fields: &str) -> RequestHead {
        const LIMITS: Limits = Limits {
            line: 1024,
            head: 1024,
            fields: 8,
        };
        let head = format!("GET / HTTP/1.1\r\n{fields}\r\n");
        RequestHead::parse(&head.into(), &LIMITS).expect("a head")
    }

    /// One who has come straight to us.
    fn viewer(client: Option<IpAddr>) -> Viewer<'static> {
        static HEAD: LazyLock<RequestHead> = LazyLock::new(|| head(""));
        Viewer {
            client,
            fields: &HEAD.fields,
            is_trusted: false,
        }
    }

    #[test]
    fn only_who_is_near_sees_it() {
        let failure = || Failure::AppFailed {
            worker: "web·1".to_owned(),
            what: "exception".to_owned(),
            traceback: Some(TRACEBACK.to_owned()),
        };
        for (client, near) in [
            ("127.0.0.1", true),
            ("::1", true),
            ("::ffff:10.1.2.3", true),
            ("192.168.1.7", true),
            ("fd00::1", true),
            ("fe80::1", true),
            ("192.0.2.1", false),
            ("172.32.0.1", false),
            ("2001:db8::1", false),
            ("::ffff:8.8.8.8", false),
        ] {
            let address = client.parse().expect("an address");
            let detail = Dev::default().detail(&failure(), viewer(Some(address)));
            assert_eq!(detail.is_some(), near, "{client}");
        }
        assert!(Dev::default().detail(&failure(), viewer(None)).is_some());
        assert_eq!(Dev::default().detail(&Failure::NoFile, viewer(None)), None);
    }

    #[test]
    fn who_comes_by_a_tunnel_is_not_near_though_the_tunnel_is() {
        let failure = || Failure::AppNotReady {
            app: "web".into(),
            why: "it is broken".into(),
        };
        let here = Some(IpAddr::from([127, 0, 0, 1]));
        for name in RELAYED {
            let head = head(&format!("{name}: 198.51.100.7\r\n"));
            for (is_trusted, near) in [(false, false), (true, true)] {
                // Of one that is trusted, `client` is whom it named.
                let viewer = Viewer {
                    client: here,
                    fields: &head.fields,
                    is_trusted,
                };
                let detail = Dev::default().detail(&failure(), viewer);
                assert_eq!(detail.is_some(), near, "{name}, trusted: {is_trusted}");
            }
        }
    }

    #[test]
    fn what_is_broken_is_said_until_it_is_mended() {
        let dev = Dev::default();
        let failure = Failure::AppNotReady {
            app: "web".into(),
            why: "it is broken".into(),
        };
        assert_eq!(
            dev.detail(&failure, viewer(None)).as_deref(),
            Some("app web could not start: it is broken")
        );
        dev.set_broken(Some(TRACEBACK.to_owned()));
        assert_eq!(
            dev.detail(&failure, viewer(None)).as_deref(),
            Some(TRACEBACK)
        );
        dev.set_broken(None);
        assert_eq!(
            dev.detail(&failure, viewer(None)).as_deref(),
            Some("app web could not start: it is broken")
        );
    }
}
