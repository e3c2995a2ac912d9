//! Tables that find what answers a request: the site by host, the route by longest path.
//!
//! Both are hash tables over parts of the text, so a request costs the same with one site and with a thousand: a host is
//! looked up whole, then without its first label, and so on; a path whole, then at each of its slashes from the right.

use std::collections::HashMap;

use config::site::{HostPattern, RoutePath};

/// Finds a value by host name.
#[derive(Debug)]
pub(crate) struct Hosts<T> {
    exact: HashMap<Vec<u8>, T>,
    wildcard: HashMap<Vec<u8>, T>,
    any: Option<T>,
}

impl<T> Default for Hosts<T> {
    fn default() -> Self {
        Self {
            exact: HashMap::new(),
            wildcard: HashMap::new(),
            any: None,
        }
    }
}

impl<T> Hosts<T> {
    /// Names are unique in a valid configuration; of two, the first stays.
    pub(crate) fn insert(&mut self, pattern: &HostPattern, value: T) {
        match pattern {
            HostPattern::Any => {
                self.any.get_or_insert(value);
            }
            HostPattern::Exact(name) => {
                self.exact.entry(name.clone().into_bytes()).or_insert(value);
            }
            HostPattern::Wildcard(parent) => {
                self.wildcard
                    .entry(parent.clone().into_bytes())
                    .or_insert(value);
            }
        }
    }

    /// The value for `host` (lower case, without port): exact before wildcard, longer wildcard before shorter, then `*`.
    pub(crate) fn find(&self, host: &[u8]) -> Option<&T> {
        if !self.exact.is_empty()
            && let Some(value) = self.exact.get(host)
        {
            return Some(value);
        }
        if !self.wildcard.is_empty() {
            let parents = memchr::memchr_iter(b'.', host).map(|dot| &host[dot + 1..]);
            if let Some(value) = parents
                .into_iter()
                .find_map(|parent| self.wildcard.get(parent))
            {
                return Some(value);
            }
        }
        self.any.as_ref()
    }
}

/// Finds a value by path.
#[derive(Debug)]
pub(crate) struct Paths<T> {
    exact: HashMap<Vec<u8>, T>,
    subtrees: HashMap<Vec<u8>, T>,
}

impl<T> Default for Paths<T> {
    fn default() -> Self {
        Self {
            exact: HashMap::new(),
            subtrees: HashMap::new(),
        }
    }
}

impl<T> Paths<T> {
    /// Paths are unique in a valid configuration; of two, the first stays.
    pub(crate) fn insert(&mut self, path: &RoutePath, value: T) {
        let (table, path) = match path {
            RoutePath::Exact(path) => (&mut self.exact, path),
            RoutePath::Subtree(path) => (&mut self.subtrees, path),
        };
        table.entry(path.clone().into_bytes()).or_insert(value);
    }

    /// The value for a decoded path: exact first, then the longest subtree. Also says how long the matched prefix is.
    pub(crate) fn find(&self, path: &[u8]) -> Option<(&T, usize)> {
        if !self.exact.is_empty()
            && let Some(value) = self.exact.get(path)
        {
            return Some((value, path.len()));
        }
        memchr::memrchr_iter(b'/', path).find_map(|slash| {
            self.subtrees
                .get(&path[..=slash])
                .map(|value| (value, slash + 1))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts() {
        let mut hosts = Hosts::default();
        hosts.insert(&HostPattern::Exact("example.org".into()), 1);
        hosts.insert(&HostPattern::Wildcard("example.org".into()), 2);
        hosts.insert(&HostPattern::Wildcard("deep.example.org".into()), 3);
        for (host, found) in [
            ("example.org", Some(1)),
            ("www.example.org", Some(2)),
            ("a.b.example.org", Some(2)),
            ("x.deep.example.org", Some(3)),
            ("deep.example.org", Some(2)),
            ("notexample.org", None),
            ("org", None),
            ("", None),
        ] {
            assert_eq!(hosts.find(host.as_bytes()).copied(), found, "{host}");
        }
        hosts.insert(&HostPattern::Any, 9);
        assert_eq!(hosts.find(b"anything").copied(), Some(9));
        assert_eq!(hosts.find(b"").copied(), Some(9));
    }

    #[test]
    fn paths() {
        let mut paths = Paths::default();
        paths.insert(&RoutePath::Subtree("/".into()), "root");
        paths.insert(&RoutePath::Subtree("/static/".into()), "static");
        paths.insert(&RoutePath::Subtree("/static/deep/".into()), "deep");
        paths.insert(&RoutePath::Exact("/static/one".into()), "one");
        paths.insert(&RoutePath::Exact("/old".into()), "old");
        for (path, found, prefix) in [
            ("/", "root", 1),
            ("/x", "root", 1),
            ("/static", "root", 1),
            ("/static/", "static", 8),
            ("/static/a/b.css", "static", 8),
            ("/static/deep/", "deep", 13),
            ("/static/deep/a", "deep", 13),
            ("/static/one", "one", 11),
            ("/static/one/", "static", 8),
            ("/old", "old", 4),
            ("/older", "root", 1),
        ] {
            assert_eq!(
                paths.find(path.as_bytes()),
                Some((&found, prefix)),
                "{path}"
            );
        }
        assert_eq!(paths.find(b"*"), None);
    }
}
