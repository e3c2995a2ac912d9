//! One request and its response, whatever the protocol that carries them: admit, route, answer.
//!
//! The order is the design: nothing is done for a request before it is admitted, nothing is asked of a worker before the
//! request is whole (but where `request_buffering` says so), and whatever goes wrong in any step is turned into a response here, at
//! the bottom, and nowhere else.

use std::sync::Arc;

use bytes::Bytes;
use message::{
    head::{Method, RequestHead},
    refusal::Refusal,
    target::Form,
};

use crate::{
    access::{Cors, Passed},
    admit::admit,
    app::{self, AppRoute},
    boxed::boxed,
    compress, dev,
    failure::Failure,
    files::{self, Elsewhere, Folder, Handed, handed},
    health::{self, Health},
    journal::{Journal, Route},
    pages::{Pages, Wish},
    plan::{self, Action, CHALLENGES, Host, Plan},
    redirect,
    request::{Peer, Request, Upload},
    response::{Content, Edits, FieldLines, Response, date},
    upstream,
};

/// Answers a request. Its upload may be left unread, which the connection then deals with.
pub(crate) async fn respond(
    plan: &Plan,
    peer: &Peer,
    head: &RequestHead,
    upload: &mut impl Upload,
    journal: &mut Journal,
) -> Response {
    let mut finish = Finish::default();
    let mut response = match attempt(plan, peer, head, upload, journal, &mut finish).await {
        Ok(response) => response,
        Err(failure) => {
            journal.fail(&failure);
            let detail = plan.dev.as_ref();
            let viewer = dev::Viewer {
                client: journal.client,
                fields: &head.fields,
                is_trusted: plan.trust.believes(peer.address),
            };
            let detail = detail.and_then(|dev| dev.detail(&failure, viewer));
            let cause = failure.cause();
            let response = failure.into_response(finish.pages, Some(&head.fields), journal.id);
            match detail {
                None => response,
                Some(detail) => {
                    let wish = Wish::of(&head.fields);
                    dev::explain(response, &detail, cause, wish, journal.id)
                }
            }
        }
    };
    if head.method == Method::Head {
        response.content = response.content.without_content();
    }
    if response.content.is_long() {
        journal.responds();
    }
    let mut response = signed(response, plan, journal);
    if let Some(hsts) = finish.hsts {
        response = response.with("Strict-Transport-Security", hsts);
    }
    if let Some(edits) = finish.edits {
        response.fields.edit(edits);
    }
    for (name, value) in finish.cookies.iter() {
        response.fields.push(name, value);
    }
    if let Some(cors) = finish.cors {
        cors.mark(head, &mut response.fields);
    }
    response
}

/// What the site or the route says in every response of theirs, failures included.
#[derive(Default)]
struct Finish<'plan> {
    pages: Option<&'plan Pages>,
    edits: Option<&'plan Edits>,
    /// `Strict-Transport-Security`.
    hsts: Option<&'plan str>,
    cors: Option<&'plan Cors>,
    /// What who was asked about the client says to its browser.
    cookies: FieldLines,
}

/// Answers what never became a request.
pub(crate) fn refuse(plan: &Plan, failure: Failure, journal: &mut Journal) -> Response {
    journal.fail(&failure);
    signed(failure.into_response(None, None, journal.id), plan, journal)
}

async fn attempt<'plan>(
    plan: &'plan Plan,
    peer: &Peer,
    head: &RequestHead,
    upload: &mut impl Upload,
    journal: &mut Journal,
    finish: &mut Finish<'plan>,
) -> Result<Response, Failure> {
    let mut request = admit(head, peer, plan, journal.id)?;
    journal.client = request.client.address;
    if let Some(exporter) = &plan.spans {
        journal.spans = request.trace.record(exporter);
    }
    journal.trace = request.trace.context;
    if let Some(text) = plan.challenges.find(request.target.path.as_bytes()) {
        return challenge(&head.method, text, journal);
    }
    let Some(host) = plan.host(&request.target.host) else {
        // Load balancers ask by address, which is no site's name: whether all are well that have this path.
        return match plan.health(&request).as_slice() {
            [] => Err(unknown_host(&request)),
            asked => check_up(asked, &request, journal),
        };
    };
    finish.edits = host.edits.as_ref();
    finish.pages = Some(&host.pages);
    journal.place = host.place;
    if request.client.https {
        finish.hsts = host.hsts.as_deref();
    }
    if let Some(health) = host.health.as_ref().filter(|it| it.is_asked(&request)) {
        // Before all that is for visitors: load balancers come as they like, and in the clear.
        return check_up(&[health], &request, journal);
    }
    if request.target.form == Form::Asterisk {
        // OPTIONS * asks about the server itself (RFC 9110 §9.3.7).
        return Ok(Response::new(204, Content::None).with("Allow", "GET, HEAD, OPTIONS"));
    }
    if let Some(response) = to_https(host, &request, journal)? {
        return Ok(response);
    }
    check_connection(host, &request, peer)?;
    if !(host.has_challenges && is_challenge(host, &request)) {
        host.maintenance.check(request.client.address)?;
    }
    let routed = Routed::find(plan, host, peer, &request)?;
    finish.edits = routed.route.edits.as_ref();
    journal.place = routed.route.place;
    if let Some(answer) = routed.enter(&mut request, journal, finish).await? {
        return Ok(answer);
    }
    if routed.route.action.has_origin() {
        request.trace.begin();
        journal.trace = request.trace.context;
    }
    routed.answer(&request, upload, journal).await
}

/// A request's way through the plan, once it is known.
struct Routed<'plan, 'c> {
    plan: &'plan Plan,
    host: &'plan Host,
    route: &'plan plan::Route,
    /// How much of the path the route names.
    prefix: usize,
    peer: &'c Peer,
}

impl<'plan, 'c> Routed<'plan, 'c> {
    fn find(
        plan: &'plan Plan,
        host: &'plan Host,
        peer: &'c Peer,
        request: &Request<'_>,
    ) -> Result<Self, Failure> {
        let found = host.route(request.target.path.as_bytes());
        // What is for apps to answer with is not there for visitors. Asked first: a gate's 401 would say that it is.
        let (route, prefix) = found
            .filter(|(route, _)| !route.action.is_internal())
            .ok_or(Failure::NoRoute)?;
        Ok(Self {
            plan,
            host,
            route,
            prefix,
            peer,
        })
    }

    /// Asks the gate, which has the answer itself to a browser that only asks what it may ask.
    async fn enter(
        &self,
        request: &mut Request<'_>,
        journal: &mut Journal,
        finish: &mut Finish<'plan>,
    ) -> Result<Option<Response>, Failure> {
        let path = request.target.path.as_bytes();
        let Some(gate) = self.host.gate(path, self.route) else {
            return Ok(None);
        };
        finish.cors = gate.cors.as_ref();
        gate.claim(&mut request.vouched);
        Ok(match gate.pass(request).await? {
            Passed::Preflight(answer) => Some(answer),
            Passed::In(entered) => {
                journal.user.clone_from(&entered.user);
                request.user = entered.user;
                request.vouched.fields = entered.fields;
                finish.cookies = entered.cookies;
                None
            }
        })
    }

    /// What the route answers: a file if there is one, and else what stands behind it.
    async fn answer(
        &self,
        request: &Request<'_>,
        upload: &mut impl Upload,
        journal: &mut Journal,
    ) -> Result<Response, Failure> {
        let is_tunnel = request.head.tunnel().is_some();
        let action = match &self.route.action {
            // Only what is behind the files can lead to a tunnel.
            Action::Files { otherwise, .. } if is_tunnel => {
                otherwise.as_deref().ok_or(Failure::NoTunnel)?
            }
            Action::Files { folder, otherwise } => {
                journal.route = Route::Fixed("files");
                let alone = otherwise.is_none();
                match (self.file(folder, request, alone).await, otherwise) {
                    (Err(Failure::NoFile | Failure::Method { .. }), Some(otherwise)) => otherwise,
                    (answered, _) => return answered,
                }
            }
            action => action,
        };
        if is_tunnel && !matches!(action, Action::Upstream(_)) {
            return Err(Failure::NoTunnel);
        }
        self.act(action, request, upload, journal).await
    }

    async fn file(
        &self,
        folder: &Folder,
        request: &Request<'_>,
        alone: bool,
    ) -> Result<Response, Failure> {
        let response = files::respond(folder, self.prefix, request, alone).await?;
        Ok(match response.content {
            Content::File(_) => self.encoded(response, request).await,
            // What was read into memory has been encoded, or is not to be.
            _ => response,
        })
    }

    async fn act(
        &self,
        action: &Action,
        request: &Request<'_>,
        upload: &mut impl Upload,
        journal: &mut Journal,
    ) -> Result<Response, Failure> {
        match action {
            Action::App(app) => {
                journal.route = Route::Named(app.pool.label.clone());
                let client = request.client.address;
                self.host.maintenance.check_app(client, &app.pool.app)?;
                // Boxed, as an upstream's below: a request for a file has no room for it.
                let answer = boxed(|| app::respond(app, request, self.peer, upload, journal));
                let response = match answer.await? {
                    app::Answer::Here(response) => response,
                    app::Answer::Elsewhere(handed) => {
                        Box::pin(self.elsewhere(handed, app, request)).await?
                    }
                };
                let response = match &self.plan.dev {
                    Some(dev) => {
                        let is_trusted = self.plan.trust.believes(self.peer.address);
                        dev.mark(response, request, is_trusted)
                    }
                    None => response,
                };
                Ok(self.encoded(response, request).await)
            }
            Action::Upstream(upstream) => {
                journal.route = Route::Named(upstream.label());
                let answer = boxed(|| upstream::respond(upstream, request, upload, journal));
                Ok(self.encoded(answer.await?, request).await)
            }
            // Behind files there are never files again.
            Action::Files { .. } => Err(Failure::NoFile),
            Action::Redirect { to, status } => {
                journal.route = Route::Fixed("redirect");
                let to = redirect::location(to, &request.target, self.prefix);
                Ok(redirect::response(*status, to))
            }
            Action::Slash => {
                journal.route = Route::Fixed("redirect");
                let to = redirect::with_slash(&request.target);
                Ok(redirect::response(308, to))
            }
            Action::Respond {
                status,
                body,
                content_type,
            } => {
                journal.route = Route::Fixed("respond");
                Ok(fixed(*status, body, content_type))
            }
        }
    }

    /// The response in a coding, where the route has that.
    async fn encoded(&self, response: Response, request: &Request<'_>) -> Response {
        match self.route.compress {
            true => compress::apply(response, request, self.plan).await,
            false => response,
        }
    }

    /// The file that an app has answered with.
    async fn elsewhere(
        &self,
        handed: Handed,
        app: &AppRoute,
        request: &Request<'_>,
    ) -> Result<Response, Failure> {
        let unknown = match handed.place {
            Elsewhere::Route(_) => !self.host.has_internal,
            Elsewhere::File(_) => app.sendfile.is_empty(),
        };
        // Behind another proxy, one that we have nothing for may be meant for that proxy.
        if unknown && self.plan.trust.believes(self.peer.address) {
            return Ok(handed.response);
        }
        let Elsewhere::Route(place) = &handed.place else {
            return app.sendfile.respond(handed, request).await;
        };
        let path = handed::path(place).ok_or(Failure::NoFile)?;
        let found = self.host.route(path.as_bytes());
        let internal = found.and_then(|(route, prefix)| match &route.action {
            Action::Files { folder, .. } if folder.is_internal() => Some((folder, prefix)),
            _ => None,
        });
        handed::from_route(handed, &path, internal, request).await
    }
}

/// An answer that is in the configuration.
fn fixed(status: u16, body: &Bytes, content_type: &str) -> Response {
    match status {
        // Neither may state a length (RFC 9110 §8.6), and neither has content.
        204 | 304 => Response::new(status, Content::None),
        _ => Response::new(status, Content::Bytes(body.clone()))
            .with("Content-Type", content_type.as_bytes()),
    }
}

/// What a certificate authority looks for. It is asked for by whatever way led here, and nobody but it knows of it.
fn challenge(method: &Method, text: Arc<str>, journal: &mut Journal) -> Result<Response, Failure> {
    journal.route = Route::Fixed("challenge");
    if !matches!(method, Method::Get | Method::Head) {
        return Err(Failure::Method { allow: "GET, HEAD" });
    }
    let content = Bytes::copy_from_slice(text.as_bytes());
    Ok(fixed(200, &content, "application/octet-stream"))
}

/// What a load balancer asks, of these sites.
fn check_up(
    asked: &[&Health],
    request: &Request<'_>,
    journal: &mut Journal,
) -> Result<Response, Failure> {
    journal.route = Route::Fixed("health");
    health::respond(asked, request)
}

fn unknown_host(request: &Request<'_>) -> Failure {
    Failure::UnknownHost(String::from_utf8_lossy(&request.target.host).into_owned())
}

/// A site with a certificate is not served in the clear, but for what a certificate authority must find there.
fn to_https(
    host: &Host,
    request: &Request<'_>,
    journal: &mut Journal,
) -> Result<Option<Response>, Failure> {
    let Some(port) = host.https_port.filter(|_| !request.client.https) else {
        return Ok(None);
    };
    if request.target.host.is_empty() {
        // HTTP/1.0 without Host: there is no place to send it to.
        return Err(Refusal::MissingHost.into());
    }
    if host.has_challenges && is_challenge(host, request) {
        return Ok(None);
    }
    journal.route = Route::Fixed("redirect");
    Ok(Some(redirect::response(
        308,
        redirect::to_https(&request.target, port),
    )))
}

/// Where a site asks for clients' certificates, only a connection that was made for it has been asked; and what a client showed
/// to one site is not for another.
fn check_connection(host: &Host, request: &Request<'_>, peer: &Peer) -> Result<(), Failure> {
    let asked = peer.presented.as_ref().map(|presented| presented.site);
    let wanted = host.asks_clients.then_some(host.index);
    if asked == wanted || asked.is_none() && is_open_challenge(host, request) {
        return Ok(());
    }
    let host = String::from_utf8_lossy(&request.target.host).into_owned();
    Err(Failure::OtherConnection(host))
}

/// Whether this is what a certificate authority looks for, in the clear.
fn is_open_challenge(host: &Host, request: &Request<'_>) -> bool {
    !request.client.https && host.has_challenges && is_challenge(host, request)
}

/// Whether a route that is for challenges, and nothing wider, answers.
fn is_challenge(host: &Host, request: &Request<'_>) -> bool {
    let path = request.target.path.as_bytes();
    path.starts_with(CHALLENGES.as_bytes())
        && host
            .route(path)
            .is_some_and(|(_, prefix)| prefix >= CHALLENGES.len())
}

/// What every response says of itself: when it was made, by what, and under which id it is in the logs.
fn signed(response: Response, plan: &Plan, journal: &Journal) -> Response {
    let response = response
        .with("Date", date(journal.time()).as_bytes())
        .with("X-Request-ID", journal.id.as_bytes());
    if plan.server_header {
        response.with("Server", "stack")
    } else {
        response
    }
}
