//! What no server can get below: the same callable in a bare loop of Python, with an environ that is there already.

use std::process::Command;

use anyhow::{Context, Result, ensure};

use super::{
    load::Request,
    place::Place,
    report::{CPU, Row},
};

/// The request that is called.
pub(crate) struct Limit(pub(crate) Request);

/// The name of its row.
pub(crate) const NAME: &str = "(the callable alone)";

/// Calls for a second, prints microseconds for each call.
const SCRIPT: &str = r#"
import importlib, io, sys, time

entry, path, length = sys.argv[1], sys.argv[2], int(sys.argv[3])
module, name = entry.split(":")
sys.path.insert(0, "")
app = getattr(importlib.import_module(module), name)
body = b"x" * length
base = {
    "REQUEST_METHOD": "POST" if length else "GET", "SCRIPT_NAME": "", "PATH_INFO": path, "QUERY_STRING": "",
    "SERVER_NAME": "example.org", "SERVER_PORT": "80", "SERVER_PROTOCOL": "HTTP/1.1", "REMOTE_ADDR": "192.0.2.7",
    "HTTP_HOST": "example.org", "HTTP_USER_AGENT": "bench", "HTTP_ACCEPT": "*/*",
    "wsgi.version": (1, 0), "wsgi.url_scheme": "http", "wsgi.errors": sys.stderr, "wsgi.multithread": True,
    "wsgi.multiprocess": False, "wsgi.run_once": False, "wsgi.input_terminated": True, "wsgi.input": io.BytesIO(),
}
if length:
    base["CONTENT_LENGTH"] = str(length)


def start_response(status, headers, exc_info=None):
    return None


def call(count):
    for _ in range(count):
        environ = base.copy()
        if length:
            environ["wsgi.input"] = io.BytesIO(body)
        result = app(environ, start_response)
        for block in result:
            pass
        if hasattr(result, "close"):
            result.close()


call(2000)
count, start = 0, time.thread_time()
while time.thread_time() - start < 1:
    call(1000)
    count += 1000
print((time.thread_time() - start) / count * 1e6)
"#;

impl Limit {
    /// Measures it once.
    pub(crate) fn measure(&self, place: &Place, entry: &str) -> Result<Row> {
        let Request { path, body } = self.0;
        let output = Command::new(place.python())
            .args(["-c", SCRIPT, entry, path, &body.to_string()])
            .current_dir(&place.app)
            .output()
            .context("cannot run Python")?;
        let text = String::from_utf8_lossy(&output.stdout);
        ensure!(
            output.status.success(),
            "the loop failed: {}",
            String::from_utf8_lossy(&output.stderr)
        );
        Ok(vec![(CPU, text.trim().parse()?)])
    }
}
