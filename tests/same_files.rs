//! The same files by nginx and by us: a tree and requests that are made up from a seed, and the same answers, to the byte. Where
//! the two do not agree stands in a table, with the reason.
//!
//! Another seed with each run; `STACK_SEED` repeats one. Runs where nginx is installed, and says so where it is not.

use std::{
    fs,
    io::{Read, Write},
    os::unix::{fs::symlink, net::UnixStream},
    path::Path,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use crate::harness::{Answer, Client, Site, nginx::Nginx};

const SITE: &str = r#"
[server]
http = ["127.0.0.1:0"]
[[site]]
routes = [{ path = "/", files = "public" }]
"#;

/// As ours where both can be told: since a date, not at it, and sixteen ranges.
const NGINX: &str =
    "if_modified_since before; max_ranges 16; gzip_static on; gzip_vary on; sendfile on;";

/// When all files were changed last, and the same as nobody else writes it.
const CHANGED: u64 = 1_764_000_000;
const BEFORE: &str = "Mon, 24 Nov 2025 15:59:59 GMT";
const SAME: &str = "Mon, 24 Nov 2025 16:00:00 GMT";
const AFTER: &str = "Mon, 24 Nov 2025 16:00:01 GMT";

/// Requests of one run.
const REQUESTS: usize = 2000;

/// Numbers that look random (splitmix64), the same for a seed.
struct Chance(u64);

impl Chance {
    fn from_environment() -> Self {
        let given = std::env::var("STACK_SEED").ok();
        let seed = given.and_then(|seed| seed.parse().ok()).unwrap_or_else(|| {
            let since = SystemTime::now().duration_since(UNIX_EPOCH);
            u64::from(since.expect("later").subsec_nanos())
        });
        println!("STACK_SEED={seed}");
        Self(seed)
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    fn below(&mut self, end: usize) -> usize {
        let below = self.next() % u64::try_from(end.max(1)).expect("it fits");
        usize::try_from(below).expect("it fits")
    }

    fn of<'a, T: ?Sized>(&mut self, all: &[&'a T]) -> &'a T {
        all[self.below(all.len())]
    }

    fn one_in(&mut self, count: usize) -> bool {
        self.below(count) == 0
    }
}

/// What may be asked for.
struct Tree {
    /// Paths as they stand in a request line, and the lengths of what is there.
    files: Vec<(String, usize)>,
}

/// Segments and endings as they come about; each is a name of the other in another spelling.
const NAMES: [(&str, &str); 8] = [
    ("a", "a"),
    ("with space", "with%20space"),
    ("50%", "50%25"),
    ("plus+and&", "plus+and&"),
    ("ümlaut", "%C3%BCmlaut"),
    ("q?#", "q%3F%23"),
    ("semi;colon", "semi;colon"),
    ("quo'te\"", "quo'te%22"),
];
const ENDINGS: [&str; 6] = ["css", "html", "bin", "png", "js", "txt"];

impl Tree {
    fn grow(root: &Path, chance: &mut Chance) -> Self {
        let mut files = Vec::new();
        for number in 0..60 {
            let (mut name, mut path) = (root.to_owned(), String::new());
            for _ in 0..chance.below(3) {
                let (segment, written) = NAMES[chance.below(8)];
                name.push(segment);
                path.push('/');
                path.push_str(written);
            }
            fs::create_dir_all(&name).expect("ours");
            let (segment, written) = NAMES[chance.below(8)];
            let ending = ENDINGS[chance.below(6)];
            name.push(format!("{segment}{number}.{ending}"));
            path.push_str(&format!("/{written}{number}.{ending}"));
            let length = match chance.below(4) {
                0 => chance.below(3),
                1 => chance.below(1000),
                2 => 1000 + chance.below(70_000),
                _ => 60_000 + chance.below(300_000),
            };
            write(&name, &content(length, chance));
            files.push((path, length));
            if chance.one_in(3) {
                name.as_mut_os_string().push(".gz");
                write(&name, &gzip(&content(length, chance)));
            }
        }
        Self { files }
    }

    fn ask(&self, chance: &mut Chance) -> Asked {
        let (path, length) = &self.files[chance.below(self.files.len())];
        let mut path = path.clone();
        if chance.one_in(20) {
            path = chance.of(ELSEWHERE).to_owned();
        }
        let mut fields = Vec::new();
        if chance.one_in(2) {
            fields.push(("Range", range(*length, chance)));
        }
        for (name, values) in CONDITIONS {
            if chance.one_in(5) {
                fields.push((*name, chance.of(values).to_owned()));
            }
        }
        if chance.one_in(3) {
            fields.push(("Accept-Encoding", chance.of(CODINGS).to_owned()));
        }
        Asked {
            method: chance.of(&["GET", "GET", "GET", "HEAD"]).to_owned(),
            path,
            fields,
        }
    }
}

/// What is no file of the tree.
const ELSEWHERE: &[&str] = &[
    "/",
    "/folder",
    "/folder?a=%20b",
    "/folder/",
    "/bare",
    "/bare/",
    "/folder/../folder/index.html",
    "/folder//index.html",
    "/missing",
    "/folder/index.html/",
    "/folder%2Findex.html",
    "/.hidden",
    "/draft.txt~",
    "/outside",
    "/inside",
];

/// `ETAG` is the entity tag that the server itself has told.
const CONDITIONS: &[(&str, &[&str])] = &[
    ("If-Match", &["ETAG", "\"other\"", "*", "\"other\", ETAG"]),
    ("If-None-Match", &["ETAG", "W/ETAG", "\"other\"", "*"]),
    ("If-Modified-Since", &[BEFORE, SAME, AFTER, "never"]),
    ("If-Unmodified-Since", &[BEFORE, SAME, AFTER, "never"]),
    ("If-Range", &["ETAG", "\"other\"", SAME, BEFORE, AFTER]),
];

const CODINGS: &[&str] = &[
    "gzip",
    "gzip;q=0",
    "identity",
    "deflate",
    "*;q=0",
    "gzip;q=0.5",
];

fn range(length: usize, chance: &mut Chance) -> String {
    let one = |chance: &mut Chance| {
        let first = chance.below(length + length / 8 + 2);
        let last = first + chance.below(length / 3 + 2);
        match chance.below(8) {
            0 => format!("-{}", chance.below(length + 10)),
            1 => format!("{first}-"),
            2 => format!("{last}-{first}"),
            3 if chance.one_in(4) => chance.of(&["-", "a-b", "1", ""]).to_owned(),
            _ => format!("{first}-{last}"),
        }
    };
    let count = if chance.one_in(3) {
        2 + chance.below(3)
    } else {
        1
    };
    let all: Vec<String> = (0..count).map(|_| one(chance)).collect();
    format!("bytes={}", all.join(","))
}

fn content(length: usize, chance: &mut Chance) -> Vec<u8> {
    // Text enough to gain by a coding.
    (0..length)
        .map(|_| b"abcdefgh \n"[chance.below(10)])
        .collect()
}

fn gzip(content: &[u8]) -> Vec<u8> {
    let mut coder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    coder.write_all(content).expect("memory takes it");
    coder.finish().expect("memory takes it")
}

fn write(path: &Path, content: &[u8]) {
    let mut file = fs::File::create(path).expect("ours");
    file.write_all(content).expect("ours");
    let changed = UNIX_EPOCH + Duration::from_secs(CHANGED);
    file.set_modified(changed).expect("ours");
}

/// One request.
struct Asked {
    method: String,
    path: String,
    fields: Vec<(&'static str, String)>,
}

impl Asked {
    fn field(&self, name: &str) -> Option<&str> {
        let found = self.fields.iter().find(|(known, _)| *known == name);
        found.map(|(_, value)| value.as_str())
    }

    fn accepts_gzip(&self) -> bool {
        matches!(self.field("Accept-Encoding"), Some("gzip" | "gzip;q=0.5"))
    }

    fn is_text(&self) -> bool {
        ["css", "html", "js", "txt"]
            .iter()
            .any(|ending| self.path.ends_with(ending))
    }

    /// The answer of a server, which has its own entity tag for the file. Each request has a connection of its own: nginx closes
    /// it after some.
    fn of(&self, connect: impl Fn() -> Client) -> Answer {
        let codings: Vec<(&str, &str)> = self
            .fields
            .iter()
            .filter(|(name, _)| *name == "Accept-Encoding")
            .map(|(name, value)| (*name, value.as_str()))
            .collect();
        let known = connect().request("HEAD", &self.path, &codings, b"");
        let etag = known.field("etag").unwrap_or("\"none\"").to_owned();
        let fields: Vec<(&str, String)> = self
            .fields
            .iter()
            .map(|(name, value)| (*name, value.replace("ETAG", &etag)))
            .collect();
        let fields: Vec<(&str, &str)> = fields
            .iter()
            .map(|(name, value)| (*name, value.as_str()))
            .collect();
        connect().request(&self.method, &self.path, &fields, b"")
    }
}

/// What of an answer must be the same.
#[derive(Debug, PartialEq, Eq)]
struct Seen {
    status: u16,
    /// `Content-Range`, `Content-Length`, `Content-Encoding`, `Last-Modified`, and the path of `Location`.
    fields: Vec<Option<String>>,
    /// The parts, each with its place; one without, if it is no `multipart/byteranges`.
    parts: Vec<(String, Vec<u8>)>,
}

impl Seen {
    fn of(answer: &Answer) -> Self {
        let field = |name: &str| answer.field(name).map(str::to_owned);
        let is_good = matches!(answer.status, 200 | 206);
        let kind = answer.field("content-type").unwrap_or_default();
        let boundary = kind.strip_prefix("multipart/byteranges; boundary=");
        let location = field("location").map(|place| match place.split_once("://") {
            Some((_, rest)) => rest[rest.find('/').unwrap_or(0)..].to_owned(),
            None => place,
        });
        Self {
            status: answer.status,
            fields: vec![
                field("content-range"),
                // What is between parts, and what an error says, is each server's own.
                field("content-length").filter(|_| is_good && boundary.is_none()),
                field("content-encoding"),
                field("last-modified"),
                location,
            ],
            parts: match boundary {
                // Of a HEAD there is nothing to take apart.
                _ if !is_good || answer.body.is_empty() => Vec::new(),
                Some(boundary) => parts(&answer.body, boundary),
                None => vec![(String::new(), answer.body.clone())],
            },
        }
    }

    fn coding(&self) -> Option<&str> {
        self.fields[2].as_deref()
    }
}

fn parts(body: &[u8], boundary: &str) -> Vec<(String, Vec<u8>)> {
    let between = format!("\r\n--{boundary}");
    let mut found = Vec::new();
    let mut rest = body;
    while let Some(place) = find(rest, between.as_bytes()) {
        if place > 0 {
            let (head, content) = rest[..place].split_at(find(rest, b"\r\n\r\n").expect("a head"));
            let head = String::from_utf8_lossy(head).into_owned();
            let mut lines = head.lines();
            let place = lines.find_map(|line| line.strip_prefix("Content-Range: "));
            found.push((place.expect("it has one").to_owned(), content[4..].to_vec()));
        }
        rest = &rest[place + between.len()..];
    }
    assert_eq!(rest, b"--\r\n", "the last boundary ends it");
    found
}

fn find(haystack: &[u8], needle: &[u8]) -> Option<usize> {
    haystack
        .windows(needle.len())
        .position(|window| window == needle)
}

/// What tells a case, and why we do otherwise than nginx with it.
type Reason = (fn(&Asked, &Seen, &Seen) -> bool, &'static str);

/// The first that fits explains.
const OTHERWISE: &[Reason] = &[
    (
        |asked, _, _| asked.path == "/.hidden" || asked.path == "/draft.txt~",
        "hidden files and what editors leave behind are nobody's business",
    ),
    (
        |asked, _, _| asked.path == "/outside",
        "a link leads no further than the folder",
    ),
    (
        |asked, _, _| asked.path.contains("%2F"),
        "an encoded slash is no slash: what a filter before us took for one segment is not opened as two",
    ),
    (
        |asked, ours, theirs| {
            asked.path.starts_with("/bare")
                && ours.status == 404
                && matches!(theirs.status, 301 | 403)
                || asked.path == "/" && (ours.status, theirs.status) == (404, 403)
        },
        "of a folder that has nothing to show we do not tell that it is there",
    ),
    (
        |asked, ours, theirs| {
            asked.method == "HEAD"
                && asked.field("Range").is_some()
                && ours.status == 200
                && matches!(theirs.status, 206 | 416)
        },
        "ranges are defined for GET alone (RFC 9110 §14.2)",
    ),
    (
        |asked, ours, theirs| {
            asked.field("If-None-Match").is_some()
                && asked.field("If-Modified-Since").is_some()
                && ours.status != theirs.status
        },
        "with If-None-Match, If-Modified-Since does not count (RFC 9110 §13.1.3); to nginx both must hold",
    ),
    (
        |asked, ours, theirs| {
            asked.field("If-Match").is_some()
                && asked.field("If-Unmodified-Since").is_some()
                && ours.status != 412
                && theirs.status == 412
        },
        "with If-Match, If-Unmodified-Since does not count (RFC 9110 §13.1.4); to nginx both must hold",
    ),
    (
        |asked, ours, theirs| {
            asked.field("Range").is_some_and(is_malformed)
                && ours.status == 200
                && matches!(theirs.status, 206 | 416)
        },
        "a Range that is malformed, be it in one of its parts, is ignored as a whole (RFC 9110 §14.2)",
    ),
    (
        |asked, ours, _| {
            asked
                .field("Range")
                .is_some_and(|range| range.contains(','))
                && ours.status == 416
        },
        "ranges that overlap are refused (RFC 9110 §14.2, CVE-2011-3192)",
    ),
    (
        |asked, ours, theirs| {
            asked.field("Range").is_some_and(has_empty_member)
                && matches!(ours.status, 200 | 206)
                && theirs.status == 416
        },
        "a list may have empty members, which count for nothing (RFC 9110 §5.6.1)",
    ),
    (
        |asked, _, theirs| {
            asked.field("If-Unmodified-Since") == Some("never") && theirs.status == 412
        },
        "what is no date is no condition (RFC 9110 §13.1.4)",
    ),
    (
        |asked, ours, theirs| {
            asked.accepts_gzip()
                && !asked.is_text()
                && ours.coding().is_none()
                && theirs.coding() == Some("gzip")
        },
        "pictures and bytes without a type do not gain, and `a.png.gz` is a file of its own",
    ),
    (
        |_, ours, theirs| {
            ours.fields[1].as_deref() == Some("0") && (ours.status, theirs.status) == (200, 416)
        },
        "of an empty file there are no parts: who asks for some gets all of it, which to nginx depends on where they begin",
    ),
    (
        |asked, ours, theirs| {
            asked.field("Range").is_some()
                && matches!(ours.status, 206 | 416)
                && theirs.status == 200
                && theirs.coding() == Some("gzip")
        },
        "what is there in a coding has its parts as well, under an entity tag of its own",
    ),
    (
        |asked, ours, theirs| {
            let is_good = |seen: &Seen| matches!(seen.status, 200 | 206 | 416);
            asked.accepts_gzip()
                && asked.is_text()
                && is_good(ours)
                && is_good(theirs)
                && theirs.coding().is_none()
        },
        "what gains is encoded once and kept, and has its parts; nginx was told to use what is there, as it would encode \
         each time anew, and then without parts",
    ),
];

fn has_empty_member(range: &str) -> bool {
    let mut members = range.trim_start_matches("bytes=").split(',');
    members.any(str::is_empty)
}

/// Whether a part of it is none, or ends before it begins.
fn is_malformed(range: &str) -> bool {
    let parts = range.trim_start_matches("bytes=").split(',');
    let number = |text: &str| text.parse::<u64>().ok();
    parts
        .filter(|part| !part.is_empty())
        .any(|part| match part.split_once('-') {
            None | Some(("", "")) => true,
            Some((first, "")) => number(first).is_none(),
            Some(("", last)) => number(last).is_none(),
            Some((first, last)) => match (number(first), number(last)) {
                (Some(first), Some(last)) => last < first,
                _ => true,
            },
        })
}

/// What was encoded by us is what nginx sends as it is.
fn is_same_content(asked: &Asked, ours: &Seen, theirs: &Seen) -> bool {
    if ours.coding() != Some("gzip") || theirs.coding().is_some() {
        return true;
    }
    if asked.method == "HEAD" || (ours.status, theirs.status) != (200, 200) {
        return true;
    }
    let mut decoded = Vec::new();
    let mut decoder = flate2::read::MultiGzDecoder::new(&ours.parts[0].1[..]);
    decoder.read_to_end(&mut decoded).is_ok() && decoded == theirs.parts[0].1
}

#[test]
fn nginx_sends_the_same() {
    let mut chance = Chance::from_environment();
    let site = Site::new(SITE).file("secret.txt", "secret");
    let root = site.path().join("public");
    fs::create_dir(&root).expect("ours");
    let Some(nginx) = Nginx::start(|folder| {
        let (place, root) = (folder.display(), root.display());
        format!("{NGINX}\nserver {{ listen unix:{place}/nginx.sock; root {root}; }}")
    }) else {
        return;
    };
    for folder in ["folder", "bare"] {
        fs::create_dir(root.join(folder)).expect("ours");
    }
    for name in ["folder/index.html", "bare/a", ".hidden", "draft.txt~"] {
        write(&root.join(name), name.as_bytes());
    }
    symlink(site.path().join("secret.txt"), root.join("outside")).expect("ours");
    symlink("folder/index.html", root.join("inside")).expect("ours");
    let tree = Tree::grow(&root, &mut chance);
    let stack = site.start();
    let address = stack.http();
    let ours = || Client::plain(address);
    let theirs = || Client::unix(UnixStream::connect(nginx.socket()).expect("it listens"));
    let (mut same, mut unexplained) = (0, Vec::new());
    for _ in 0..REQUESTS {
        let asked = tree.ask(&mut chance);
        let (ours, theirs) = (asked.of(ours), asked.of(theirs));
        let (ours, theirs) = (Seen::of(&ours), Seen::of(&theirs));
        if ours == theirs {
            same += 1;
            continue;
        }
        let is_explained = OTHERWISE.iter().any(|(is, _)| is(&asked, &ours, &theirs))
            && is_same_content(&asked, &ours, &theirs);
        if !is_explained {
            unexplained.push(format!(
                "{} {} {:?}\n    we {} {:?}, nginx {} {:?}",
                asked.method,
                asked.path,
                asked.fields,
                ours.status,
                ours.fields,
                theirs.status,
                theirs.fields
            ));
        }
    }
    assert!(
        unexplained.is_empty(),
        "{} of {REQUESTS}:\n{}",
        unexplained.len(),
        unexplained[..unexplained.len().min(20)].join("\n")
    );
    // The table must not explain everything away.
    assert!(
        same > REQUESTS / 2,
        "only {same} of {REQUESTS} are the same"
    );
}
