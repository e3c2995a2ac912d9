//! nginx in a folder of its own, to compare with.

use std::{
    fs,
    os::unix::net::UnixStream,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use super::{PATIENCE, kill};

/// It listens on a Unix socket, and goes when it is dropped.
pub struct Nginx {
    folder: tempfile::TempDir,
    child: Child,
}

impl Nginx {
    /// Starts it with what `http` says for the inside of its `http { }`; it is given the folder, where `nginx.sock` is to be the
    /// socket. `None` where it is not installed, which is said loudly, and is an error in CI.
    pub fn start(http: impl FnOnce(&Path) -> String) -> Option<Self> {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let place = folder.path().display();
        // As root nginx gives its workers another user, who may not come here.
        let user = match rustix::process::geteuid().is_root() {
            true => "user root;",
            false => "",
        };
        let config = format!(
            "daemon off; worker_processes 1; pid {place}/pid; error_log {place}/error.log; {user}\n\
             events {{ worker_connections 64; }}\n\
             http {{ access_log off; server_tokens off; client_body_temp_path {place}/b; proxy_temp_path {place}/p;\n\
             fastcgi_temp_path {place}/f; uwsgi_temp_path {place}/u; scgi_temp_path {place}/s;\n{}\n}}\n",
            http(folder.path())
        );
        let file = folder.path().join("nginx.conf");
        fs::write(&file, config).expect("the folder is ours");
        let child = Command::new("nginx")
            .arg("-c")
            .arg(&file)
            .args(["-e", "stderr"])
            .stdin(Stdio::null())
            .stderr(Stdio::null())
            .spawn();
        let Ok(child) = child else {
            assert!(std::env::var_os("CI").is_none(), "CI has no nginx");
            println!("!!! NOT COMPARED: nginx is not installed");
            return None;
        };
        let nginx = Self { child, folder };
        let deadline = Instant::now() + PATIENCE;
        while UnixStream::connect(nginx.socket()).is_err() {
            assert!(Instant::now() < deadline, "nginx does not listen");
            std::thread::sleep(Duration::from_millis(5));
        }
        Some(nginx)
    }

    pub fn socket(&self) -> PathBuf {
        self.folder.path().join("nginx.sock")
    }
}

impl Drop for Nginx {
    fn drop(&mut self) {
        // Asked to, it takes its worker along.
        kill(self.child.id(), rustix::process::Signal::TERM);
        let _ = self.child.wait();
    }
}
