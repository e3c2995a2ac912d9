//! `health` of a site: whether a load balancer should send visitors here.
//!
//! Well is a site whose apps each have a worker, in a proxy that goes on. Maintenance is not illness: who is sent away by a page
//! should see it, and not another server's failure to answer.

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};

use message::head::Method;

use crate::{
    app::pool::Pool,
    failure::Failure,
    request::Request,
    response::{Content, Response},
};

/// Where a site says it, and what it depends on.
#[derive(Debug)]
pub(crate) struct Health {
    path: Box<[u8]>,
    pools: Vec<(Box<str>, Arc<Pool>)>,
    draining: Arc<AtomicBool>,
}

impl Health {
    /// At this path, of a site with these apps.
    pub(crate) fn new(
        path: &str,
        pools: Vec<(Box<str>, Arc<Pool>)>,
        draining: &Arc<AtomicBool>,
    ) -> Self {
        Self {
            path: path.as_bytes().into(),
            pools,
            draining: Arc::clone(draining),
        }
    }

    /// Whether this is asked for.
    pub(crate) fn is_asked(&self, request: &Request<'_>) -> bool {
        request.target.path.as_bytes() == &*self.path
    }

    /// What is wrong, for people.
    fn illness(&self) -> Option<String> {
        if self.draining.load(Ordering::Relaxed) {
            return Some("stopping\n".to_owned());
        }
        let missing = self.pools.iter().find(|(_, pool)| !pool.has_workers());
        missing.map(|(app, _)| format!("app {app} is not ready\n"))
    }
}

/// 200 or 503, with a word for people: whether all of them are well.
pub(crate) fn respond(asked: &[&Health], request: &Request<'_>) -> Result<Response, Failure> {
    if !matches!(request.head.method, Method::Get | Method::Head) {
        return Err(Failure::Method { allow: "GET, HEAD" });
    }
    let (status, text) = match asked.iter().find_map(|health| health.illness()) {
        Some(illness) => (503, illness),
        None => (200, "ok\n".to_owned()),
    };
    Ok(Response::new(status, Content::Bytes(text.into()))
        .with("Content-Type", "text/plain; charset=utf-8")
        .with("Cache-Control", "no-store"))
}
