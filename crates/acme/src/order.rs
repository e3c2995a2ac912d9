//! One order, from the names to the certificate (RFC 8555 §7.4).

use std::{
    net::IpAddr,
    time::{Duration, SystemTime},
};

use instant_acme::{
    Account, AuthorizationStatus, CertificateIdentifier, ChallengeStatus, ChallengeType, Error,
    Identifier, NewOrder, OrderStatus, Problem, RetryPolicy,
};
use rcgen::{CertificateParams, DistinguishedName, KeyPair};
use tracing::{debug, warn};

use crate::{
    certificate::Facts,
    challenge,
    client::Client,
    link::Link,
    message::{Answer, Challenge},
    schedule::Kind,
};

/// How long an authority may take to look whether the names are ours, and to sign: it does both within seconds.
const PATIENCE: RetryPolicy = RetryPolicy::new()
    .initial_delay(Duration::from_millis(500))
    .backoff(1.5)
    .timeout(Duration::from_secs(120));

/// Why there is no certificate.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{text}")]
pub(crate) struct Failure {
    pub(crate) kind: Kind,
    /// For people.
    pub(crate) text: String,
    /// Before when the authority does not want to be asked.
    pub(crate) not_before: Option<SystemTime>,
    /// What to do about it, where more can be said than how long to wait.
    pub(crate) cause: Cause,
}

/// What can be done about a failure at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Cause {
    /// The authority has not found us by this kind of challenge.
    Unfound,
    /// It does not know the account (any more).
    NoAccount,
    /// Anything else.
    Other,
}

impl Failure {
    pub(crate) fn new(kind: Kind, text: impl Into<String>) -> Self {
        Self {
            kind,
            text: text.into(),
            not_before: None,
            cause: Cause::Other,
        }
    }

    fn because(mut self, cause: Cause) -> Self {
        self.cause = cause;
        self
    }

    /// What the authority, or the way to it, has to say.
    pub(crate) fn of(error: &Error, client: &Client) -> Self {
        let mut failure = match error {
            Error::Api(problem) => Self::of_problem(problem),
            Error::Json(error) => Self::new(
                Kind::Unreachable,
                format!("the authority's answer is not understood: {error}"),
            ),
            Error::Timeout(_) => Self::new(
                Kind::Unreachable,
                "the authority does not come to an end with the order",
            ),
            error => Self::new(Kind::Unreachable, plain(&error.to_string())),
        };
        failure.not_before = client.take_again();
        failure
    }

    fn of_problem(problem: &Problem) -> Self {
        let name = problem.r#type.as_deref().unwrap_or_default();
        let name = name
            .strip_prefix("urn:ietf:params:acme:error:")
            .unwrap_or(name);
        let kind = match (name, problem.status) {
            ("rateLimited", _) | (_, Some(429)) => Kind::Limited,
            ("serverInternal" | "badNonce", _) | (_, Some(500..)) => Kind::Unreachable,
            _ => Kind::Refused,
        };
        let cause = match name {
            "accountDoesNotExist" => Cause::NoAccount,
            _ => Cause::Other,
        };
        Self::new(kind, words(problem)).because(cause)
    }
}

/// What an authority says, all of it: it is the only one who knows.
fn words(problem: &Problem) -> String {
    let name = problem.r#type.as_deref().unwrap_or("an error");
    let name = name
        .strip_prefix("urn:ietf:params:acme:error:")
        .unwrap_or(name);
    let mut text = match &problem.detail {
        Some(detail) => format!("{detail} ({name})"),
        None => name.to_owned(),
    };
    for part in &problem.subproblems {
        text.push_str(&format!("; {part}"));
    }
    plain(&text)
}

/// Longest text of others that is kept, in bytes.
const WORDS_MAX: usize = 2000;

/// A text that comes from outside, as it may be shown.
fn plain(text: &str) -> String {
    let mut out = Vec::new();
    let end = text.floor_char_boundary(WORDS_MAX);
    telemetry::text::visible(&text.as_bytes()[..end], &mut out);
    String::from_utf8_lossy(&out).into_owned()
}

/// What is ordered.
#[derive(Clone, Debug)]
pub(crate) struct Wish<'a> {
    pub(crate) names: &'a [String],
    pub(crate) profile: Option<&'a str>,
    /// The certificate in whose place it is.
    pub(crate) replaces: Option<&'a CertificateIdentifier<'static>>,
    /// How the authority is to find us.
    pub(crate) challenge: Challenge,
}

/// A certificate.
#[derive(Clone)]
pub(crate) struct Issued {
    /// PEM, leaf first.
    pub(crate) chain: String,
    /// PEM.
    pub(crate) key: String,
    pub(crate) facts: Facts,
}

/// Orders, answers challenges, and waits for the certificate.
pub(crate) async fn obtain(
    account: &Account,
    client: &Client,
    link: &Link,
    wish: &Wish<'_>,
) -> Result<Issued, Failure> {
    let failed = |error: Error| Failure::of(&error, client);
    let identifiers: Vec<Identifier> = wish.names.iter().map(|name| identifier(name)).collect();
    let mut order = placed(account, wish, &identifiers).await.map_err(failed)?;
    debug!("order {} for {}", order.url(), wish.names.join(", "));
    let answers = answers(&mut order, wish, client).await?;
    if !answers.is_empty() {
        link.answer(answers).await?;
        let shown = show(&mut order, wish, client).await;
        // Whatever came of it, nobody asks for the answers any more.
        link.answer(Vec::new()).await?;
        shown?;
    }
    let key = KeyPair::generate().map_err(no_key)?;
    let mut params = CertificateParams::new(wish.names).map_err(no_key)?;
    params.distinguished_name = DistinguishedName::new();
    let request = params.serialize_request(&key).map_err(no_key)?;
    order.finalize_csr(request.der()).await.map_err(failed)?;
    let chain = order.poll_certificate(&PATIENCE).await.map_err(failed)?;
    issued(chain, &key, wish)
}

fn no_key(error: rcgen::Error) -> Failure {
    Failure::new(Kind::Here, format!("cannot make a key: {error}"))
}

fn identifier(name: &str) -> Identifier {
    match name.parse::<IpAddr>() {
        Ok(address) => Identifier::Ip(address),
        Err(_) => Identifier::Dns(name.to_owned()),
    }
}

/// Places the order: as one that replaces another certificate, if the authority knows such orders and takes it as one.
async fn placed(
    account: &Account,
    wish: &Wish<'_>,
    identifiers: &[Identifier],
) -> Result<instant_acme::Order, Error> {
    let new = || {
        let new = NewOrder::new(identifiers);
        match wish.profile {
            Some(profile) => new.profile(profile),
            None => new,
        }
    };
    let Some(replaces) = wish.replaces else {
        return account.new_order(&new()).await;
    };
    match account.new_order(&new().replaces(replaces.clone())).await {
        // Not known there, replaced already, or of another account: it is a word about the order, and no condition for it.
        Err(Error::Unsupported(_) | Error::Other(_)) => account.new_order(&new()).await,
        Err(Error::Api(problem)) if is_about_replacement(&problem) => {
            debug!("not taken as a replacement: {problem}");
            account.new_order(&new()).await
        }
        placed => placed,
    }
}

fn is_about_replacement(problem: &Problem) -> bool {
    let name = problem.r#type.as_deref().unwrap_or_default();
    ["alreadyReplaced", "malformed", "unauthorized", "conflict"]
        .iter()
        .any(|known| name.ends_with(known))
}

fn kind_of(challenge: Challenge) -> ChallengeType {
    match challenge {
        Challenge::Http01 => ChallengeType::Http01,
        Challenge::TlsAlpn01 => ChallengeType::TlsAlpn01,
    }
}

/// What the authority is to find, for each name that it has not seen to be ours.
async fn answers(
    order: &mut instant_acme::Order,
    wish: &Wish<'_>,
    client: &Client,
) -> Result<Vec<Answer>, Failure> {
    let mut answers = Vec::new();
    let mut authorizations = order.authorizations();
    while let Some(authorization) = authorizations.next().await {
        let mut authorization = authorization.map_err(|error| Failure::of(&error, client))?;
        if authorization.status == AuthorizationStatus::Valid {
            continue;
        }
        let name = authorization.identifier().to_string();
        if authorization.status != AuthorizationStatus::Pending {
            let text = format!(
                "{name}: the authority has given up this name ({:?})",
                authorization.status
            );
            return Err(Failure::new(Kind::Refused, text));
        }
        let Some(found) = authorization.challenge(kind_of(wish.challenge)) else {
            let text = format!("{name}: the authority offers no {}", wish.challenge);
            return Err(Failure::new(Kind::Refused, text).because(Cause::Unfound));
        };
        let text = found.key_authorization();
        answers.push(match wish.challenge {
            Challenge::Http01 => Answer::Http {
                token: found.token.clone(),
                text: text.as_str().to_owned(),
            },
            Challenge::TlsAlpn01 => {
                challenge::tls_alpn(&name, text.digest().as_ref()).map_err(no_key)?
            }
        });
    }
    Ok(answers)
}

/// Has the authority look, and waits until it has seen.
async fn show(
    order: &mut instant_acme::Order,
    wish: &Wish<'_>,
    client: &Client,
) -> Result<(), Failure> {
    let failed = |error: Error| Failure::of(&error, client);
    let mut authorizations = order.authorizations();
    while let Some(authorization) = authorizations.next().await {
        let mut authorization = authorization.map_err(failed)?;
        if authorization.status != AuthorizationStatus::Pending {
            continue;
        }
        if let Some(mut found) = authorization.challenge(kind_of(wish.challenge)) {
            found.set_ready().await.map_err(failed)?;
        }
    }
    match order.poll_ready(&PATIENCE).await {
        Ok(OrderStatus::Ready) => Ok(()),
        // It says why with each name, and not always with the order.
        Ok(_) | Err(Error::Api(_)) => Err(unfound(order, client).await),
        Err(error) => Err(failed(error)),
    }
}

/// Why the authority does not see that the names are ours.
async fn unfound(order: &mut instant_acme::Order, client: &Client) -> Failure {
    let mut reasons = Vec::new();
    let mut kind = Kind::Refused;
    let mut authorizations = order.authorizations();
    while let Some(authorization) = authorizations.next().await {
        let Ok(mut authorization) = authorization else {
            continue;
        };
        if let Err(error) = authorization.refresh().await {
            debug!("cannot ask for an authorization: {error}");
            continue;
        }
        let name = authorization.identifier().to_string();
        for challenge in &authorization.challenges {
            let Some(problem) = challenge
                .error
                .as_ref()
                .filter(|_| challenge.status == ChallengeStatus::Invalid)
            else {
                continue;
            };
            if Failure::of_problem(problem).kind == Kind::Limited {
                kind = Kind::Limited;
            }
            reasons.push(format!("{name}: {}", words(problem)));
        }
    }
    let why = match reasons.is_empty() {
        true => "the authority has refused the order and does not say why".to_owned(),
        false => reasons.join("; "),
    };
    let mut failure = Failure::new(kind, why).because(Cause::Unfound);
    failure.not_before = client.take_again();
    failure
}

/// The certificate is what was ordered: nothing else is shown to visitors.
fn issued(chain: String, key: &KeyPair, wish: &Wish<'_>) -> Result<Issued, Failure> {
    let wrong = |why: &str| Failure::new(Kind::Refused, format!("the authority has issued {why}"));
    let facts = Facts::of_chain(&chain).ok_or_else(|| wrong("no certificate"))?;
    if !facts.covers(wish.names) {
        return Err(wrong("a certificate for other names"));
    }
    if !facts.is_for(key.public_key_raw()) {
        return Err(wrong("a certificate for another key"));
    }
    if facts.validity.not_after <= SystemTime::now() {
        warn!("the new certificate has expired already: is the clock right?");
    }
    Ok(Issued {
        chain,
        key: key.serialize_pem(),
        facts,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn problem(text: &str) -> Problem {
        serde_json::from_str(text).unwrap()
    }

    #[test]
    fn what_an_authority_says_is_understood_and_shown() {
        let cases = [
            (
                r#"{"type": "urn:ietf:params:acme:error:rateLimited", "detail": "too many certificates", "status": 429}"#,
                (
                    Kind::Limited,
                    Cause::Other,
                    "too many certificates (rateLimited)",
                ),
            ),
            (
                r#"{"type": "urn:ietf:params:acme:error:serverInternal", "detail": "sorry", "status": 500}"#,
                (Kind::Unreachable, Cause::Other, "sorry (serverInternal)"),
            ),
            (
                r#"{"type": "about:blank", "status": 503}"#,
                (Kind::Unreachable, Cause::Other, "about:blank"),
            ),
            (
                r#"{"type": "urn:ietf:params:acme:error:accountDoesNotExist", "status": 400}"#,
                (Kind::Refused, Cause::NoAccount, "accountDoesNotExist"),
            ),
            (
                r#"{"type": "urn:ietf:params:acme:error:caa", "detail": "CAA record for example.org prevents issuance", "status": 403}"#,
                (
                    Kind::Refused,
                    Cause::Other,
                    "CAA record for example.org prevents issuance (caa)",
                ),
            ),
            (
                r#"{"detail": "a\u001b[31mred\nline"}"#,
                (
                    Kind::Refused,
                    Cause::Other,
                    "a\\x1B[31mred\\x0Aline (an error)",
                ),
            ),
        ];
        for (text, (kind, cause, words)) in cases {
            let failure = Failure::of_problem(&problem(text));
            assert_eq!(
                (failure.kind, failure.cause, failure.text.as_str()),
                (kind, cause, words)
            );
        }
    }

    #[test]
    fn each_name_says_what_is_wrong_with_it() {
        let text = r#"{"type": "urn:ietf:params:acme:error:rejectedIdentifier", "detail": "no", "status": 400,
            "subproblems": [{"type": "x", "detail": "forbidden by policy", "identifier": {"type": "dns", "value": "a.example"}}]}"#;
        let failure = Failure::of_problem(&problem(text));
        assert!(
            failure.text.contains("a.example") && failure.text.contains("forbidden by policy"),
            "{failure}"
        );
    }

    #[test]
    fn long_texts_are_cut_and_not_within_a_character() {
        let long = "ä".repeat(3000);
        let text = plain(&long);
        assert!(
            text.len() <= WORDS_MAX + 8 && text.starts_with("ää"),
            "{}",
            text.len()
        );
    }
}
