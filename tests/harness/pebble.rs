//! Pebble, Let's Encrypt's ACME server for tests, and the DNS that it asks.

use std::{
    collections::BTreeMap,
    fs,
    io::{Read, Write},
    net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream},
    path::Path,
    process::{Child, Command, Stdio},
    sync::{
        Arc, Mutex,
        atomic::{AtomicU16, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use super::{
    PATIENCE, Site, read_some,
    tls::{Authority, Pair, accept},
};

/// A port that nobody listens on. Those that a system gives away by itself are above.
pub fn free_port() -> u16 {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    // Another run of the tests begins elsewhere.
    let first = u16::try_from(std::process::id() % 9000 * 131 % 9000).expect("small");
    loop {
        let next = NEXT.fetch_add(1, Ordering::Relaxed);
        let port = 20_000 + (first + next) % 9000;
        if TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok() {
            return port;
        }
    }
}

/// An authority that is about to be started.
pub struct Pebble {
    folder: Arc<tempfile::TempDir>,
    /// Its server's certificate is signed by this one.
    pub ca: String,
    pair: Pair,
    pub port: u16,
    pub dns: u16,
    management: u16,
    /// Where it looks for the sites.
    pub http: u16,
    pub https: u16,
    /// How long its certificates are valid, in seconds.
    life: u64,
    environment: Vec<(&'static str, &'static str)>,
    /// Whom it gives accounts to; everybody without.
    customer: Option<(&'static str, &'static str)>,
}

/// One that runs.
pub struct Running {
    pebble: Child,
}

/// The names that it asks for; all are 127.0.0.1 at first.
pub struct Names {
    management: u16,
    server: Child,
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.pebble.kill();
        let _ = self.pebble.wait();
    }
}

impl Drop for Names {
    fn drop(&mut self) {
        let _ = self.server.kill();
        let _ = self.server.wait();
    }
}

impl Pebble {
    /// `None`, and loudly, where it is not installed.
    pub fn new() -> Option<Self> {
        let there = |name: &str| {
            let paths = std::env::var_os("PATH").unwrap_or_default();
            std::env::split_paths(&paths).any(|folder| folder.join(name).is_file())
        };
        if !there("pebble") || !there("pebble-challtestsrv") {
            println!("!!! NOT TESTED: there is no pebble here (Debian: apt install pebble)");
            return None;
        }
        let folder = Arc::new(tempfile::tempdir().expect("a temporary folder"));
        let authority = Authority::new("pebble's own");
        let pair = authority.sign_server("127.0.0.1");
        fs::write(folder.path().join("cert.pem"), &pair.cert).expect("the folder is ours");
        fs::write(folder.path().join("key.pem"), &pair.key).expect("the folder is ours");
        Some(Self {
            folder,
            ca: authority.cert,
            pair,
            port: free_port(),
            dns: free_port(),
            management: free_port(),
            http: free_port(),
            https: free_port(),
            life: 90 * 86_400,
            environment: vec![
                ("PEBBLE_VA_NOSLEEP", "1"),
                ("PEBBLE_WFE_NONCEREJECT", "0"),
                ("PEBBLE_AUTHZREUSE", "0"),
            ],
            customer: None,
        })
    }

    /// Its certificates are valid for so many seconds.
    pub fn life(mut self, seconds: u64) -> Self {
        self.life = seconds;
        self
    }

    /// It gives accounts to this customer alone: the name of a key, and the key.
    pub fn customer(mut self, id: &'static str, key: &'static str) -> Self {
        self.customer = Some((id, key));
        self
    }

    pub fn env(mut self, name: &'static str, value: &'static str) -> Self {
        self.environment.retain(|(known, _)| *known != name);
        self.environment.push((name, value));
        self
    }

    /// A site that gets its certificate there, with these listeners.
    pub fn site(&self, hosts: &[&str], listeners: &str) -> Site {
        let listeners = listeners
            .replace("HTTPS", &format!("127.0.0.1:{}", self.https))
            .replace("HTTP", &format!("127.0.0.1:{}", self.http));
        let text = format!(
            "[server]\n{listeners}\n\
             [acme]\nemail = \"you@example.com\"\n\
             directory = \"https://127.0.0.1:{}/dir\"\nca = \"ca.pem\"\nstate = \"state\"\n\
             [[site]]\nhosts = {hosts:?}\ntls = \"acme\"\n\
             routes = [{{ path = \"/\", respond = \"hello\" }}]\n",
            self.port
        );
        Site::new(&text).file("ca.pem", &self.ca)
    }

    /// Starts it; it answers when this returns.
    pub fn start(&self) -> Running {
        let config = serde_json::json!({ "pebble": {
            "listenAddress": format!("127.0.0.1:{}", self.port),
            "managementListenAddress": "",
            "certificate": self.path().join("cert.pem"),
            "privateKey": self.path().join("key.pem"),
            "httpPort": self.http,
            "tlsPort": self.https,
            "ocspResponderURL": "",
            "externalAccountBindingRequired": self.customer.is_some(),
            "externalAccountMACKeys": self.customer.into_iter().collect::<BTreeMap<_, _>>(),
            "certificateValidityPeriod": self.life,
        }});
        let file = self.path().join("pebble.json");
        fs::write(&file, config.to_string()).expect("the folder is ours");
        let log = fs::File::create(self.path().join("pebble.log")).expect("the folder is ours");
        let pebble = Command::new("pebble")
            .arg("-config")
            .arg(&file)
            .args(["-dnsserver", &format!("127.0.0.1:{}", self.dns)])
            .envs(self.environment.iter().copied())
            .stdin(Stdio::null())
            .stdout(log.try_clone().expect("a descriptor"))
            .stderr(log)
            .spawn()
            .expect("it is installed");
        let running = Running { pebble };
        until_open(self.port);
        running
    }

    /// Starts the names.
    pub fn names(&self) -> Names {
        let none = ["-http01", "", "-https01", "", "-tlsalpn01", ""];
        let server = Command::new("pebble-challtestsrv")
            .args(none)
            .args(["-defaultIPv6", ""])
            .args(["-dns01", &format!("127.0.0.1:{}", self.dns)])
            .args(["-management", &format!("127.0.0.1:{}", self.management)])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("it is installed");
        let names = Names {
            management: self.management,
            server,
        };
        until_open(self.management);
        names
    }

    fn path(&self) -> &Path {
        self.folder.path()
    }
}

impl Names {
    /// Lets this name be that address from now on.
    pub fn lead(&self, name: &str, address: &str) {
        let content = serde_json::json!({ "host": format!("{name}."), "addresses": [address] });
        self.post(
            "/clear-a",
            &serde_json::json!({ "host": format!("{name}.") }),
        );
        self.post("/add-a", &content);
    }

    fn post(&self, path: &str, content: &serde_json::Value) {
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, self.management));
        let mut stream = TcpStream::connect(address).expect("it listens");
        let content = content.to_string();
        let request = format!(
            "POST {path} HTTP/1.1\r\nHost: names\r\nConnection: close\r\nContent-Length: {}\r\n\r\n{content}",
            content.len()
        );
        stream.write_all(request.as_bytes()).expect("it reads");
        let mut answer = String::new();
        stream.read_to_string(&mut answer).expect("it answers");
        assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    }
}

/// Stands before pebble, for what that does not know: says where its places are, and answers at some itself.
pub struct Front {
    pub port: u16,
    said: Arc<Mutex<Vec<(String, String)>>>,
    asked: Arc<Mutex<Vec<String>>>,
}

impl Front {
    /// Where orders are placed, when it is here.
    pub const ORDER: &str = "/order";
    /// Where renewal is asked about, always here.
    pub const RENEWAL: &str = "/renewal";

    pub fn before(pebble: &Pebble) -> Self {
        let front = Self {
            port: free_port(),
            said: Arc::default(),
            asked: Arc::default(),
        };
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, front.port)).expect("it is free");
        let (said, asked) = (Arc::clone(&front.said), Arc::clone(&front.asked));
        let (pair, port, pebble) = (pebble.pair.clone(), front.port, pebble.port);
        thread::spawn(move || {
            for tcp in listener.incoming().flatten() {
                let mut stream = accept(tcp, &pair, "http/1.1");
                let Some(path) = asked_for(&mut stream) else {
                    continue;
                };
                let said = said.lock().expect("nobody panics with it");
                let known = said
                    .iter()
                    .find(|(place, _)| path.starts_with(place.as_str()));
                let answer = match known {
                    Some((_, answer)) => answer.clone(),
                    None => directory(
                        port,
                        pebble,
                        said.iter().any(|(place, _)| place == Self::ORDER),
                    ),
                };
                drop(said);
                asked.lock().expect("nobody panics with it").push(path);
                let _ = stream.write_all(answer.as_bytes());
                stream.conn.send_close_notify();
                let _ = stream.flush();
            }
        });
        front
    }

    /// Answers so at a place from now on.
    pub fn say(&self, place: &str, status: &str, fields: &str, content: &str) {
        let length = content.len();
        let answer = format!(
            "HTTP/1.1 {status}\r\nConnection: close\r\nContent-Length: {length}\r\n{fields}\r\n{content}"
        );
        let mut said = self.said.lock().expect("nobody panics with it");
        said.retain(|(known, _)| known != place);
        said.push((place.to_owned(), answer));
    }

    /// How often something was asked for at a place.
    pub fn asked(&self, place: &str) -> usize {
        let asked = self.asked.lock().expect("nobody panics with it");
        asked.iter().filter(|path| path.starts_with(place)).count()
    }
}

/// The path of a request that is read whole.
fn asked_for(stream: &mut impl Read) -> Option<String> {
    let mut text = Vec::new();
    let mut piece = [0; 4096];
    loop {
        let length = read_some(stream, &mut piece)
            .ok()
            .filter(|length| *length > 0)?;
        text.extend_from_slice(&piece[..length]);
        let whole = String::from_utf8_lossy(&text);
        let Some((head, content)) = whole.split_once("\r\n\r\n") else {
            continue;
        };
        let stated = head.lines().find_map(|line| {
            let (name, value) = line.split_once(": ")?;
            name.eq_ignore_ascii_case("content-length")
                .then(|| value.parse::<usize>().ok())?
        });
        if content.len() >= stated.unwrap_or(0) {
            return Some(head.split(' ').nth(1)?.to_owned());
        }
    }
}

fn directory(front: u16, pebble: u16, orders: bool) -> String {
    let here = |path: &str| format!("https://127.0.0.1:{front}{path}");
    let there = |path: &str| format!("https://127.0.0.1:{pebble}{path}");
    let content = serde_json::json!({
        "newNonce": there("/nonce-plz"),
        "newAccount": there("/sign-me-up"),
        "newOrder": if orders { here(Front::ORDER) } else { there("/order-plz") },
        "revokeCert": there("/revoke-cert"),
        "keyChange": there("/rollover-account-key"),
        "renewalInfo": here(Front::RENEWAL),
    });
    let content = content.to_string();
    let length = content.len();
    format!(
        "HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Type: application/json\r\nContent-Length: {length}\r\n\r\n{content}"
    )
}

fn until_open(port: u16) {
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    let deadline = Instant::now() + PATIENCE;
    while TcpStream::connect(address).is_err() {
        assert!(Instant::now() < deadline, "nobody listens on {port}");
        thread::sleep(Duration::from_millis(20));
    }
}
