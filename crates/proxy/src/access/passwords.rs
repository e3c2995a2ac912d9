//! Files of names and passwords: one `name:hash` a line, as `htpasswd` writes them.
//!
//! Only hashes that are slow on purpose are read: Argon2 (RFC 9106), bcrypt, and crypt(3)'s SHA-256 and SHA-512. What is
//! guessed at a thousand million a second (MD5, SHA-1, DES, plain text) is refused with the place and what to do.

use std::collections::HashMap;

use argon2::{Argon2, PasswordHasher, PasswordVerifier};
use sha_crypt::ShaCrypt;

/// The names that may come in, and what their passwords are checked against.
#[derive(Debug)]
pub(crate) struct Users {
    by_name: HashMap<String, Hash>,
    /// What a name that is not there is checked against, so that it takes as long as one that is.
    decoy: Hash,
}

/// What is kept in place of a password. It verifies, and never shows.
#[derive(Clone)]
enum Hash {
    Argon2(String),
    Bcrypt(String),
    ShaCrypt(String),
}

impl std::fmt::Debug for Hash {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Argon2(_) => "Argon2",
            Self::Bcrypt(_) => "Bcrypt",
            Self::ShaCrypt(_) => "ShaCrypt",
        })
    }
}

/// What is wrong with a line of the file.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("line {line}: {what}")]
pub(crate) struct BadLine {
    /// Counted from 1; 0 is the file as a whole.
    line: usize,
    what: String,
}

impl Users {
    /// Reads a file. Empty lines and those that begin with `#` mean nothing.
    ///
    /// # Errors
    /// The first line that cannot be used. It never quotes a hash.
    pub(crate) fn parse(text: &str) -> Result<Self, BadLine> {
        let mut by_name = HashMap::new();
        for (index, line) in text.lines().enumerate() {
            let line = line.trim();
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            let bad = |what: String| BadLine {
                line: index + 1,
                what,
            };
            let (name, hash) = line
                .split_once(':')
                .filter(|(name, _)| !name.is_empty())
                .ok_or_else(|| bad("it is not `name:hash`".to_owned()))?;
            if !name.bytes().all(|byte| byte.is_ascii_graphic()) {
                return Err(bad("a name has no spaces, and only ASCII".to_owned()));
            }
            // Some tools write a comment behind a second colon.
            let hash = Hash::parse(hash.split(':').next().unwrap_or_default()).map_err(bad)?;
            if by_name.insert(name.to_owned(), hash).is_some() {
                return Err(bad(format!("the name {name:?} is there twice")));
            }
        }
        let decoy = by_name.values().next().cloned().ok_or_else(|| BadLine {
            line: 0,
            what: "there is no name in it".to_owned(),
        })?;
        Ok(Self { by_name, decoy })
    }

    /// How many names there are.
    pub(crate) fn len(&self) -> usize {
        self.by_name.len()
    }

    /// Whether this is the password of this name. Takes as long for a name that is not there. Slow on purpose: it blocks.
    pub(crate) fn verify(&self, name: &str, password: &[u8]) -> bool {
        let known = self.by_name.get(name);
        let fits = known.unwrap_or(&self.decoy).fits(password);
        fits && known.is_some()
    }
}

impl Hash {
    fn parse(text: &str) -> Result<Self, String> {
        let begins = |starts: &[&str]| starts.iter().any(|start| text.starts_with(start));
        if begins(&["$argon2id$", "$argon2i$", "$argon2d$"]) {
            let hash = argon2::PasswordHash::new(text).map_err(|_| broken("Argon2"))?;
            if hash.salt.is_none() || hash.hash.is_none() {
                return Err(broken("Argon2"));
            }
            return Ok(Self::Argon2(text.to_owned()));
        }
        if begins(&["$2y$", "$2b$", "$2a$"]) {
            text.parse::<bcrypt::HashParts>()
                .map_err(|_| broken("bcrypt"))?;
            return Ok(Self::Bcrypt(text.to_owned()));
        }
        if begins(&["$5$", "$6$"]) {
            sha_crypt::PasswordHash::new(text).map_err(|_| broken("SHA-crypt"))?;
            return Ok(Self::ShaCrypt(text.to_owned()));
        }
        let kind = match text {
            _ if begins(&["$apr1$", "$1$"]) => "MD5 hashes are guessed in no time",
            _ if begins(&["{SHA}"]) => "SHA-1 hashes are guessed in no time",
            _ if begins(&["$"]) => "this kind of hash is not known",
            _ => "this is no hash that is known, perhaps the password itself",
        };
        Err(format!(
            "{kind}: make a new one with `stack passwd` or `htpasswd -B`"
        ))
    }

    /// Each library compares in constant time.
    fn fits(&self, password: &[u8]) -> bool {
        match self {
            Self::Argon2(hash) => Argon2::default()
                .verify_password(password, hash.as_str())
                .is_ok(),
            Self::Bcrypt(hash) => bcrypt::verify(password, hash).unwrap_or(false),
            Self::ShaCrypt(hash) => ShaCrypt::default()
                .verify_password(password, hash.as_str())
                .is_ok(),
        }
    }
}

fn broken(kind: &str) -> String {
    format!("its {kind} hash is not whole")
}

/// The line's hash for a new password: Argon2id with the parameters that OWASP gives first (19 MiB, two passes).
///
/// # Errors
/// When the system has no randomness to give.
pub fn hash(password: &[u8]) -> Result<String, std::io::Error> {
    let hash: argon2::PasswordHash = Argon2::default()
        .hash_password(password)
        .map_err(std::io::Error::other)?;
    Ok(hash.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    // "open sesame" by htpasswd -B, openssl passwd -5 and -6.
    const BCRYPT: &str = "$2y$05$XZdm/YAc083zuUuIPOl2/enldwzaBIzG8Q5kxd1XfQCtIbr4FscEi";
    const SHA256: &str = "$5$ewMwnVMnnwVweTRT$1RCtdIGzePkArjDf/SWQhkgN7nAAymviH.aiQXrusU7";
    const SHA512: &str = "$6$rxWdkOvlxoHeFX1T$fjJ1MPfAmhsrIC6LRTQFDl6q6TtELaD2rT6Sa3ngk/hPsvfdtEer9MkE6YSI.j.qB7cxonUVV0Y1ODDZsxQ95/";

    #[test]
    fn a_password_that_was_hashed_here_fits() {
        let line = hash(b"open sesame").expect("hashed");
        let users = Users::parse(&format!("# ours\n\nann:{line}\n")).expect("read");
        assert!(users.verify("ann", b"open sesame"));
        assert!(!users.verify("ann", b"open sesam"));
        assert!(!users.verify("ann", b""));
        assert!(!users.verify("bob", b"open sesame"));
    }

    #[test]
    fn other_programs_hashes_are_read() {
        for line in [BCRYPT, SHA256, SHA512] {
            let users = Users::parse(&format!("ann:{line}")).expect("read");
            assert!(users.verify("ann", b"open sesame"), "{line}");
            assert!(!users.verify("ann", b"open Sesame"), "{line}");
        }
    }

    #[test]
    fn what_is_no_good_is_refused_with_its_line() {
        for (text, what) in [
            ("", "line 0: there is no name in it"),
            ("# nobody\n", "line 0: there is no name in it"),
            ("ann", "line 1: it is not `name:hash`"),
            ("\n:x", "line 2: it is not `name:hash`"),
            ("a b:x", "line 1: a name has no spaces, and only ASCII"),
            (
                "ann:$apr1$x$y",
                "line 1: MD5 hashes are guessed in no time: make a new one with `stack passwd` or `htpasswd -B`",
            ),
            (
                "ann:{SHA}x",
                "line 1: SHA-1 hashes are guessed in no time: make a new one with `stack passwd` or `htpasswd -B`",
            ),
            (
                "ann:$9$x",
                "line 1: this kind of hash is not known: make a new one with `stack passwd` or `htpasswd -B`",
            ),
            (
                "ann:sesame",
                "line 1: this is no hash that is known, perhaps the password itself: make a new one with `stack passwd` or `htpasswd -B`",
            ),
            ("ann:$2y$05$short", "line 1: its bcrypt hash is not whole"),
            (
                "ann:$argon2id$v=19$m=1",
                "line 1: its Argon2 hash is not whole",
            ),
        ] {
            assert_eq!(Users::parse(text).expect_err(text).to_string(), what);
        }
        let twice = format!("ann:{SHA256}\nann:{SHA512}");
        assert_eq!(
            Users::parse(&twice).expect_err("twice").to_string(),
            "line 2: the name \"ann\" is there twice"
        );
        let shown = format!(
            "{:?}",
            Users::parse(&format!("ann:{SHA256}")).expect("read")
        );
        assert!(!shown.contains(SHA256), "{shown}");
    }
}
