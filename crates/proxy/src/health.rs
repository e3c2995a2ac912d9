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

    /// 200 or 503, with a word for people.
    pub(crate) fn respond(&self, request: &Request<'_>) -> Result<Response, Failure> {
        if !matches!(request.head.method, Method::Get | Method::Head) {
            return Err(Failure::Method { allow: "GET, HEAD" });
        }
        let missing = || self.pools.iter().find(|(_, pool)| !pool.has_workers());
        let (status, text) = if self.draining.load(Ordering::Relaxed) {
            (503, "stopping\n".to_owned())
        } else if let Some((app, _)) = missing() {
            (503, format!("app {app} is not ready\n"))
        } else {
            (200, "ok\n".to_owned())
        };
        Ok(Response::new(status, Content::Bytes(text.into()))
            .with("Content-Type", "text/plain; charset=utf-8")
            .with("Cache-Control", "no-store"))
    }
}
