//! An address as text, without the machinery of formatting: each request says its client's to the log and to its origin.

use std::{io::Write, net::IpAddr};

/// An IPv6 address has 39 characters at most; one that embeds IPv4 has 45.
const LONGEST: usize = 45;

/// On the stack, where it is made.
pub(crate) struct AddressText {
    space: [u8; LONGEST],
    length: usize,
}

impl AddressText {
    pub(crate) fn new(address: IpAddr) -> Self {
        let mut text = Self {
            space: [0; LONGEST],
            length: 0,
        };
        match address {
            // Formatting takes as long as a system call's entry.
            IpAddr::V4(address) => {
                let [first, others @ ..] = address.octets();
                text.decimal(first);
                for octet in others {
                    text.put(b'.');
                    text.decimal(octet);
                }
            }
            IpAddr::V6(address) => {
                let mut rest = &mut text.space[..];
                write!(rest, "{address}").expect("it is long enough");
                text.length = LONGEST - rest.len();
            }
        }
        text
    }

    pub(crate) fn as_str(&self) -> &str {
        str::from_utf8(self.as_bytes()).expect("addresses are ASCII")
    }

    pub(crate) fn as_bytes(&self) -> &[u8] {
        &self.space[..self.length]
    }

    fn decimal(&mut self, number: u8) {
        if number >= 100 {
            self.put(b'0' + number / 100);
        }
        if number >= 10 {
            self.put(b'0' + number / 10 % 10);
        }
        self.put(b'0' + number % 10);
    }

    fn put(&mut self, byte: u8) {
        self.space[self.length] = byte;
        self.length += 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_what_formatting_says() {
        let longest = "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff";
        for text in [
            "0.0.0.0",
            "9.10.99.100",
            "127.0.0.1",
            "255.255.255.255",
            "::",
            "::ffff:255.255.255.255",
            "2001:db8::1",
            longest,
        ] {
            let address: IpAddr = text.parse().expect("an address");
            let written = AddressText::new(address);
            assert_eq!(written.as_str(), address.to_string());
        }
    }
}
