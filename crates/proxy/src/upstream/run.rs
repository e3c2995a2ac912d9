//! One request at one member: up to the response head, and who goes on from there.

use message::{head::Method, refusal::Refusal};
use tokio::time::Instant;

use super::{UpstreamRoute, member::Lease, tunnel::Tunnel, upgrade::Upgrade};
use crate::{
    failure::Failure,
    journal::Journal,
    origin::{
        Origin,
        head::passed_back,
        relay::{Unanswered, Written, answer, content},
        spool::Spooled,
        wire::HeadError,
    },
    request::Request,
    response::{Content, Response},
};

/// Waits for the answer to a request that was begun.
pub(super) async fn run(
    mut lease: Lease,
    route: &UpstreamRoute,
    request: &Request<'_>,
    upgrade: Option<Upgrade>,
    body: Spooled,
    written: Written,
    journal: &mut Journal,
) -> Result<Response, Failure> {
    let begun = Instant::now();
    let timeout = route.upstream.timeout;
    let deadline = begun + timeout;
    let interims = &request.interims;
    let answered = answer(lease.connection(), body, written, deadline, interims).await;
    let (head, unsent) = match answered {
        Ok(answered) => answered,
        Err(Unanswered::Late) => return Err(lease.late(timeout)),
        Err(Unanswered::Head(HeadError::Ended)) => return Err(lease.ended().await),
        Err(Unanswered::Head(HeadError::Broken(rule))) => return Err(lease.broke(rule)),
        Err(Unanswered::Spool(error)) => return Err(Failure::Spool(error)),
    };
    journal.answered(begun);
    lease.answered(head.keep_alive());
    let (status, mut fields) = (head.status, passed_back(&head.fields));
    if let Some(upgrade) = &upgrade {
        fields.retain(|name, _| !upgrade.keeps(name));
        if upgrade.is_tunnel_or_nothing() && matches!(status, 200..300) {
            return Err(Failure::NoTunnel);
        }
    }
    let content = if status == 101 {
        let upgrade = upgrade.as_ref().ok_or(Refusal::UnaskedUpgrade);
        let protocol = match upgrade.and_then(|upgrade| upgrade.chosen(&head)) {
            Ok(protocol) => protocol,
            Err(rule) => return Err(lease.broke(rule)),
        };
        Content::Tunnel(Box::new(Tunnel::new(lease, protocol)))
    } else {
        let is_head = request.head.method == Method::Head;
        content(lease, &head, is_head, unsent, &route.holding, request.id)?
    };
    Ok(Response {
        status,
        fields,
        content,
    })
}
