//! What answers a challenge.

use std::net::IpAddr;

use rcgen::{CertificateParams, CustomExtension, KeyPair};

use crate::message::Answer;

/// The certificate by which a handshake for `acme-tls/1` is answered (RFC 8737 §3): the name alone, and the digest of the key
/// authorization in an extension.
pub(crate) fn tls_alpn(name: &str, digest: &[u8]) -> Result<Answer, rcgen::Error> {
    let mut params = CertificateParams::new(vec![name.to_owned()])?;
    params.custom_extensions = vec![CustomExtension::new_acme_identifier(digest)];
    let key = KeyPair::generate()?;
    Ok(Answer::Tls {
        name: server_name(name),
        certificate: params.self_signed(&key)?.pem(),
        key: key.serialize_pem(),
    })
}

/// What the handshake is for: the name, or of an address the name that leads back from it (RFC 8738 §6).
fn server_name(name: &str) -> String {
    match name.parse::<IpAddr>() {
        Err(_) => name.to_owned(),
        Ok(IpAddr::V4(address)) => {
            let [a, b, c, d] = address.octets();
            format!("{d}.{c}.{b}.{a}.in-addr.arpa")
        }
        Ok(IpAddr::V6(address)) => {
            let mut name = String::new();
            for byte in address.octets().iter().rev() {
                name.push_str(&format!("{:x}.{:x}.", byte & 0xf, byte >> 4));
            }
            name + "ip6.arpa"
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_handshake_is_for_a_name_even_of_an_address() {
        assert_eq!(server_name("example.org"), "example.org");
        assert_eq!(server_name("192.0.2.1"), "1.2.0.192.in-addr.arpa");
        assert_eq!(
            server_name("2001:db8::1"),
            "1.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.8.b.d.0.1.0.0.2.ip6.arpa"
        );
    }
}
