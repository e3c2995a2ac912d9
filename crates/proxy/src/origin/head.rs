//! What of the two heads passes between a client and an origin, whichever origin it is.
//!
//! Only field names of letters, digits and hyphens go on: `X_Forwarded_For` would be the same variable to an app as
//! `X-Forwarded-For`. What a client says about itself in forwarding fields is replaced by what we know.

use message::{
    field::{self, Field, Fields, is_among},
    mark::Marks,
};

use super::spool::Spooled;
use crate::{put::put_line, request::Request, response::FieldLines};

/// Writes what the client sent, but for what concerns its connection alone and what we write ourselves, such as what is `ours`
/// for this origin.
pub(crate) fn passed_on(out: &mut Vec<u8>, fields: &Fields, ours: impl Fn(&[u8]) -> bool) {
    let lists = lists_fields(fields);
    for field in fields.lines() {
        let Field { name, value, .. } = field;
        // Nearly always one look is enough.
        let may_stay = STAYS.may_have(field.mark) || matches!(name, [b'x' | b'X', ..]);
        let stays = may_stay && (is_ours(name) || field::is_hop_by_hop(name))
            || lists && is_listed(fields, name);
        if field.is_forwardable && !stays && !ours(name) {
            put_line(out, name, value);
        }
    }
}

/// Writes how long the content is, if there is any.
pub(crate) fn content_length(out: &mut Vec<u8>, body: &Spooled) {
    if let Some(length) = body.stated() {
        let mut digits = itoa::Buffer::new();
        put_line(out, b"Content-Length", digits.format(length).as_bytes());
    }
}

/// The scheme that the client used.
pub(crate) fn scheme(request: &Request<'_>) -> &'static str {
    if request.client.https {
        "https"
    } else {
        "http"
    }
}

/// Fields that we write ourselves, or have acted upon, beside those that begin with `x`.
const OURS: [&[u8]; 4] = [b"host", b"content-length", b"expect", b"forwarded"];

/// The marks of what is not passed on, beside those that begin with `x`.
const STAYS: Marks = field::HOP_BY_HOP.and(Marks::of(&OURS));

fn is_ours(name: &[u8]) -> bool {
    match name {
        [b'x' | b'X', ..] => {
            let start = name.get(..12);
            is_among(name, &[b"x-real-ip", b"x-request-id"])
                || start.is_some_and(|start| start.eq_ignore_ascii_case(b"x-forwarded-"))
        }
        _ => is_among(name, &OURS),
    }
}

/// Whether `Connection` lists any field that is not known to be of one hop. Most say whether the connection persists, and no more.
fn lists_fields(fields: &Fields) -> bool {
    field::connection_options(fields).any(|option| !field::is_hop_by_hop(option))
}

/// Whether `Connection` lists the field (RFC 9110 §7.6.1).
fn is_listed(fields: &Fields, name: &[u8]) -> bool {
    field::connection_options(fields).any(|option| option.eq_ignore_ascii_case(name))
}

/// The response's fields as the client gets them. Framing is made anew by whoever writes the response; `Date`, `Server` and
/// `X-Request-ID` are ours to say, and `X-Accel-Buffering` was said to us.
pub(crate) fn passed_back(fields: &Fields) -> FieldLines {
    let mut lines = FieldLines::with_capacity(256);
    let lists = lists_fields(fields);
    for Field {
        name, value, mark, ..
    } in fields.lines()
    {
        let may_stay = STAYS_BACK.may_have(mark) || name.starts_with(b"_");
        let stays = may_stay && (is_made_anew(name) || field::is_hop_by_hop(name))
            || lists && is_listed(fields, name);
        if !stays {
            lines.push(name, value);
        }
    }
    lines
}

/// What a response says that we say ourselves or that was said to us, beside what begins with `_`.
const MADE_ANEW: [&[u8]; 5] = [
    b"content-length",
    b"date",
    b"server",
    b"x-request-id",
    b"x-accel-buffering",
];

/// The marks of what is not passed back, beside what begins with `_`.
const STAYS_BACK: Marks = field::HOP_BY_HOP.and(Marks::of(&MADE_ANEW));

fn is_made_anew(name: &[u8]) -> bool {
    name.starts_with(b"_") || is_among(name, &MADE_ANEW)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(text: &[u8]) -> Vec<String> {
        let text = str::from_utf8(text).expect("text");
        text.split_terminator("\r\n").map(str::to_owned).collect()
    }

    fn both(names: &[&str]) -> (Vec<String>, Vec<String>) {
        let pairs = names.iter().map(|name| (name.as_bytes(), &b"v"[..]));
        let fields = Fields::from_pairs(pairs);
        let mut on = Vec::new();
        passed_on(&mut on, &fields, |name| name == b"Mine");
        (lines(&on), lines(&passed_back(&fields).into_shared()))
    }

    const OF_ONE_HOP: [&str; 11] = [
        "TE",
        "Proxy",
        "close",
        "Trailer",
        "Upgrade",
        "Connection",
        "Keep-Alive",
        "PROXY-CONNECTION",
        "transfer-encoding",
        "Proxy-Authenticate",
        "Proxy-Authorization",
    ];

    #[test]
    fn what_is_of_one_hop_goes_neither_way() {
        for name in OF_ONE_HOP {
            assert_eq!(both(&[name]), (vec![], vec![]), "{name}");
        }
    }

    /// By the mark of a name most are let through without a look: none of these may be.
    #[test]
    fn what_is_ours_to_say_stays() {
        for (name, goes_on, comes_back) in [
            ("Host", false, true),
            ("content-length", false, false),
            ("EXPECT", false, true),
            ("Forwarded", false, true),
            ("X-Real-IP", false, true),
            ("x-request-id", false, false),
            ("X-Forwarded-For", false, true),
            ("x-forwarded-anything", false, true),
            ("X_Forwarded_For", false, true),
            ("_stack", false, false),
            ("Date", true, false),
            ("SERVER", true, false),
            ("X-Accel-Buffering", true, false),
            ("Mine", false, true),
            ("Cookie", true, true),
            ("Set-Cookie", true, true),
            ("X-Mine", true, true),
            ("x", true, true),
            ("a.b", false, true),
        ] {
            let line = |goes: bool| match goes {
                true => vec![format!("{name}: v")],
                false => vec![],
            };
            assert_eq!(both(&[name]), (line(goes_on), line(comes_back)), "{name}");
        }
    }

    #[test]
    fn what_connection_lists_stays() {
        let fields = Fields::from_pairs([
            (&b"Connection"[..], &b"close, x-a"[..]),
            (b"X-A", b"1"),
            (b"X-B", b"2"),
        ]);
        let mut on = Vec::new();
        passed_on(&mut on, &fields, |_| false);
        assert_eq!(lines(&on), ["X-B: 2"]);
        assert_eq!(lines(&passed_back(&fields).into_shared()), ["X-B: 2"]);
    }
}
