//! Behind other proxies: whom they speak for is believed of those that are trusted, in the one way that they write it, and of
//! nobody else.

use std::os::unix::net::UnixStream;

use crate::harness::{Client, Site, Stack};

/// Answers with what it was told.
const ECHO: &str = r#"
import json

def app(environ, start_response):
    start_response("200 OK", [("Content-Type", "application/json")])
    return [json.dumps({k: v for k, v in environ.items() if isinstance(v, str)}).encode()]
"#;

fn stack(server: &str) -> Stack {
    let text = format!(
        "[server]\n{server}\n[app.web]\nwsgi = \"app:app\"\nroot = \".\"\nworkers = 1\nthreads = 1\n\
         [[site]]\ntls = \"off\"\nhosts = [\"a\", \"outside.example\"]\nroutes = [{{ path = \"/\", app = \"web\" }}]\n\
         [[site]]\nhosts = [\"tls.example\"]\ntls = TLS\nroutes = [{{ path = \"/\", app = \"web\" }}]\n"
    );
    let tls = if server.contains("https") {
        "\"self-signed\""
    } else {
        "\"off\""
    };
    Site::new(&text.replace("TLS", tls))
        .file("app.py", ECHO)
        .start()
}

/// The environ of a request for host `a` with these lines, sent behind these bytes.
fn environ(client: &mut Client, before: &[u8], fields: &str) -> serde_json::Value {
    let head = format!("GET / HTTP/1.1\r\nHost: a\r\n{fields}\r\n");
    client.send([before, head.as_bytes()].concat());
    let answer = client.answer(false);
    assert_eq!(answer.status, 200, "{fields:?}: {answer:?}");
    serde_json::from_slice(&answer.body).expect("JSON")
}

const HTTP: &str = "http = [\"127.0.0.1:0\"]\n";

#[test]
fn a_trusted_proxy_is_believed_from_the_right() {
    let stack = stack(&format!(
        "{HTTP}trusted_proxies = [\"127.0.0.0/8\", \"10.0.0.0/8\"]"
    ));
    for (fields, address, scheme) in [
        ("X-Forwarded-For: 192.0.2.1\r\n", "192.0.2.1", "http"),
        (
            "X-Forwarded-For: 6.6.6.6, 192.0.2.1, 10.1.1.1\r\nX-Forwarded-Proto: https\r\n",
            "192.0.2.1",
            "https",
        ),
        ("X-Forwarded-For: unknown\r\n", "127.0.0.1", "http"),
        ("", "127.0.0.1", "http"),
        // The proxy passes on what its client said in the tongue that it does not speak itself.
        (
            "X-Forwarded-For: 192.0.2.1\r\nForwarded: for=6.6.6.6;proto=https\r\n",
            "192.0.2.1",
            "http",
        ),
        ("Forwarded: for=6.6.6.6\r\n", "127.0.0.1", "http"),
        // And hosts, unless it is said that it writes them itself.
        (
            "X-Forwarded-Host: outside.example\r\nX-Forwarded-Port: 8443\r\n",
            "127.0.0.1",
            "http",
        ),
    ] {
        let environ = environ(&mut stack.client(), b"", fields);
        assert_eq!(environ["REMOTE_ADDR"], address, "{fields:?}");
        assert_eq!(environ["HTTP_X_FORWARDED_FOR"], address, "{fields:?}");
        assert_eq!(environ["wsgi.url_scheme"], scheme, "{fields:?}");
        assert_eq!(environ["SERVER_NAME"], "a", "{fields:?}");
        assert_eq!(environ["HTTP_HOST"], "a", "{fields:?}");
        assert!(!environ.to_string().contains("6.6.6.6"), "{environ}");
    }
}

#[test]
fn rfc_7239_is_read_where_proxies_write_it() {
    let stack = stack(&format!(
        "{HTTP}trusted_proxies = [\"private\"]\nforwarded = \"forwarded\""
    ));
    for (fields, address, scheme, host) in [
        (
            "Forwarded: for=6.6.6.6, for=\"[2001:db8::1]:7\";proto=https\r\n",
            "2001:db8::1",
            "https",
            "a",
        ),
        (
            "Forwarded: for=192.0.2.1;host=outside.example\r\nX-Forwarded-For: 6.6.6.6\r\n",
            "192.0.2.1",
            "http",
            "outside.example",
        ),
        (
            "X-Forwarded-For: 6.6.6.6\r\nX-Forwarded-Proto: https\r\n",
            "127.0.0.1",
            "http",
            "a",
        ),
    ] {
        let environ = environ(&mut stack.client(), b"", fields);
        assert_eq!(environ["REMOTE_ADDR"], address, "{fields:?}");
        assert_eq!(environ["wsgi.url_scheme"], scheme, "{fields:?}");
        assert_eq!(environ["HTTP_HOST"], host, "{fields:?}");
        assert_eq!(environ["SERVER_NAME"], host, "{fields:?}");
    }
}

#[test]
fn a_host_is_believed_where_that_is_asked_for() {
    let stack = stack(&format!(
        "{HTTP}trusted_proxies = [\"127.0.0.1\"]\nforwarded_host = true"
    ));
    for (fields, host, name, port) in [
        ("", "a", "a", "80"),
        (
            "X-Forwarded-Host: outside.example\r\n",
            "outside.example",
            "outside.example",
            "80",
        ),
        (
            "X-Forwarded-Host: outside.example:81\r\nX-Forwarded-Port: 82\r\n",
            "outside.example:81",
            "outside.example",
            "81",
        ),
        (
            "X-Forwarded-Host: outside.example\r\nX-Forwarded-Port: 82\r\n",
            "outside.example",
            "outside.example",
            "82",
        ),
        ("X-Forwarded-Port: 82\r\n", "a", "a", "82"),
        ("X-Forwarded-Proto: https\r\n", "a", "a", "443"),
        ("X-Forwarded-Host: a/b\r\n", "a", "a", "80"),
    ] {
        let environ = environ(&mut stack.client(), b"", fields);
        assert_eq!(environ["HTTP_HOST"], host, "{fields:?}");
        assert_eq!(environ["SERVER_NAME"], name, "{fields:?}");
        assert_eq!(environ["SERVER_PORT"], port, "{fields:?}");
    }
    // It is what chooses the site, and a host that no site has is nobody's.
    let mut client = stack.client();
    client.send("GET / HTTP/1.1\r\nHost: a\r\nX-Forwarded-Host: elsewhere.example\r\n\r\n");
    assert_eq!(client.answer(false).status, 421);
}

#[test]
fn who_connects_to_a_unix_socket_may_be_a_proxy() {
    for (trusted, address) in [("\"unix\"", Some("192.0.2.1")), ("\"10.0.0.0/8\"", None)] {
        let stack = stack(&format!(
            "http = [\"unix:front.sock\", \"127.0.0.1:0\"]\ntrusted_proxies = [{trusted}]"
        ));
        let socket = UnixStream::connect(stack.path().join("front.sock")).unwrap();
        let environ = environ(
            &mut Client::unix(socket),
            b"",
            "X-Forwarded-For: 192.0.2.1\r\n",
        );
        assert_eq!(
            environ
                .get("REMOTE_ADDR")
                .and_then(|address| address.as_str())
                .filter(|text| !text.is_empty()),
            address
        );
    }
}

const TCP4: &[u8] = b"PROXY TCP4 192.0.2.1 10.0.0.1 5000 80\r\n";

/// A header of version 2 with this command, family and rest.
fn version_2(command: u8, family: u8, rest: &[u8]) -> Vec<u8> {
    let length = u16::try_from(rest.len()).expect("short").to_be_bytes();
    [
        &b"\r\n\r\n\0\r\nQUIT\n"[..],
        &[command, family],
        &length,
        rest,
    ]
    .concat()
}

#[test]
fn a_load_balancer_says_whose_a_connection_is() {
    let stack = stack(
        "http = [{ listen = \"127.0.0.1:0\", proxy_protocol = true }]\ntrusted_proxies = [\"127.0.0.1\"]",
    );
    let tcp4 = [192, 0, 2, 1, 10, 0, 0, 1, 0x13, 0x88, 0, 80];
    let with_tls = [&tcp4[..], b"\x20\0\x05\x01\0\0\0\0"].concat();
    for (header, address, port, scheme) in [
        (TCP4.to_vec(), "192.0.2.1", Some("5000"), "http"),
        (
            b"PROXY TCP6 2001:db8::1 ::1 5000 80\r\n".to_vec(),
            "2001:db8::1",
            Some("5000"),
            "http",
        ),
        (b"PROXY UNKNOWN\r\n".to_vec(), "127.0.0.1", None, "http"),
        (
            version_2(0x21, 0x11, &tcp4),
            "192.0.2.1",
            Some("5000"),
            "http",
        ),
        (
            version_2(0x21, 0x11, &with_tls),
            "192.0.2.1",
            Some("5000"),
            "https",
        ),
        (version_2(0x20, 0, b""), "127.0.0.1", None, "http"),
    ] {
        let mut client = stack.client();
        let seen = environ(&mut client, &header, "X-Forwarded-For: 6.6.6.6\r\n");
        let believed = if address == "127.0.0.1" {
            "6.6.6.6"
        } else {
            address
        };
        assert_eq!(seen["REMOTE_ADDR"], believed, "{header:?}");
        if let Some(port) = port {
            assert_eq!(seen["REMOTE_PORT"], port, "{header:?}");
        }
        assert_eq!(seen["wsgi.url_scheme"], scheme, "{header:?}");
        // It holds for the whole connection.
        assert_eq!(
            environ(&mut client, b"", "")["REMOTE_ADDR"],
            address,
            "{header:?}"
        );
    }
    // Byte by byte, and with a request in the same packet.
    let mut client = stack.client();
    for byte in TCP4 {
        client.send([*byte]);
    }
    assert_eq!(environ(&mut client, b"", "")["REMOTE_ADDR"], "192.0.2.1");
}

#[test]
fn the_client_of_a_load_balancer_may_be_a_trusted_proxy() {
    let stack = stack(
        "http = [{ listen = \"127.0.0.1:0\", proxy_protocol = true }]\ntrusted_proxies = [\"127.0.0.1\", \"192.0.2.0/24\"]",
    );
    let seen = environ(
        &mut stack.client(),
        TCP4,
        "X-Forwarded-For: 6.6.6.6, 203.0.113.9\r\n",
    );
    assert_eq!(seen["REMOTE_ADDR"], "203.0.113.9");
}

#[test]
fn a_load_balancer_may_pass_tls_on() {
    let stack = stack(
        "http = [\"127.0.0.1:0\"]\nhttps = [{ listen = \"127.0.0.1:0\", proxy_protocol = true }]\ntrusted_proxies = [\"127.0.0.1\"]",
    );
    let mut client = Client::tls_behind(stack.https(), "tls.example", TCP4);
    let answer = client.get("/");
    let seen: serde_json::Value = serde_json::from_slice(&answer.body).unwrap();
    assert_eq!(
        (&seen["REMOTE_ADDR"], &seen["wsgi.url_scheme"]),
        (&"192.0.2.1".into(), &"https".into())
    );
}

#[test]
fn a_connection_that_does_not_say_whose_it_is_is_closed() {
    let listener = "http = [{ listen = \"127.0.0.1:0\", proxy_protocol = true }]\n";
    let request = "GET / HTTP/1.1\r\nHost: a\r\n\r\n";
    let trusting = stack(&format!("{listener}trusted_proxies = [\"127.0.0.1\"]"));
    for before in [
        &b""[..],
        b"PROXY TCP4 192.0.2.1\r\n",
        b"PROXY TCP4 192.0.2.01 10.0.0.1 5000 80\r\n",
        b"\r\n\r\n\0\r\nQUIT\n\x21\x12\0\x0c............",
        b"\r\n\r\n\0\r\nQUIT\n\x21\x11\xff\xff",
    ] {
        let mut client = trusting.client();
        client.try_send(&[before, request.as_bytes()].concat());
        assert!(client.is_closed(), "{before:?}");
    }
    trusting.until_logged("PROXY protocol header");
    // Who is not trusted may not say so, even well.
    let stranger = stack(&format!("{listener}trusted_proxies = [\"10.0.0.0/8\"]"));
    let mut client = stranger.client();
    client.try_send(&[TCP4, request.as_bytes()].concat());
    assert!(client.is_closed());
    stranger.until_logged("it is not among `trusted_proxies`");
    // Nor is it waited for.
    let hasty = Site::new(&format!(
        "[server]\n{listener}trusted_proxies = [\"127.0.0.1\"]\n[limits]\nproxy_protocol_timeout = \"50ms\"\n\
         [[site]]\nroutes = [{{ path = \"/\", respond = \"\" }}]\n"
    ))
    .start();
    let mut client = hasty.client();
    client.send("PROXY TCP4 192.0.2.1 ");
    assert!(client.is_closed());
    hasty.until_logged("did not arrive in time");
}

/// Elsewhere the header is not spoken, and what begins so is no request.
#[test]
fn the_header_is_nothing_where_it_is_not_spoken() {
    let stack = stack(&format!("{HTTP}trusted_proxies = [\"127.0.0.1\"]"));
    let mut client = stack.client();
    client.send([TCP4, b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"].concat());
    let answer = client.answer(false);
    assert_eq!(answer.status, 400);
    assert!(client.is_closed());
}
