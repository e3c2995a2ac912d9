//! An HTTP/2 client over TLS.

use std::{net::SocketAddr, sync::Arc};

use bytes::Bytes;
use h2::{RecvStream, client::SendRequest};
use rustls::pki_types::ServerName;
use tokio_rustls::TlsConnector;

use super::{Answer, PATIENCE, tls};

/// A connection that speaks HTTP/2, chosen by ALPN.
pub struct H2 {
    runtime: tokio::runtime::Runtime,
    send: SendRequest<Bytes>,
    authority: String,
}

impl H2 {
    pub fn connect(address: SocketAddr, name: &str) -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .expect("a runtime");
        let server = ServerName::try_from(name.to_owned()).expect("a valid name");
        let send = runtime.block_on(async {
            let tcp = tokio::net::TcpStream::connect(address)
                .await
                .expect("the stack listens");
            let connector = TlsConnector::from(Arc::new(tls::config(&[b"h2", b"http/1.1"])));
            let stream = connector.connect(server, tcp).await.expect("a handshake");
            assert_eq!(
                stream.get_ref().1.alpn_protocol(),
                Some(&b"h2"[..]),
                "ALPN chooses h2"
            );
            let (send, connection) = h2::client::handshake(stream).await.expect("a preface");
            tokio::spawn(connection);
            send
        });
        Self {
            runtime,
            send,
            authority: format!("{name}:{}", address.port()),
        }
    }

    pub fn get(&mut self, path: &str) -> Answer {
        self.request("GET", path, &[], b"")
    }

    pub fn request(
        &mut self,
        method: &str,
        path: &str,
        fields: &[(&str, &str)],
        body: &[u8],
    ) -> Answer {
        let uri = format!("https://{}{path}", self.authority);
        let mut request = http::Request::builder()
            .method(method)
            .uri(uri)
            .version(http::Version::HTTP_2);
        for (name, value) in fields {
            request = request.header(*name, *value);
        }
        let request = request.body(()).expect("a valid request");
        let body = Bytes::copy_from_slice(body);
        let exchange = exchange(self.send.clone(), request, body);
        self.wait(exchange)
    }

    /// Asks, and reads nothing but the head: the window stays as it is.
    pub fn get_head(&mut self, path: &str) -> http::Response<RecvStream> {
        let uri = format!("https://{}{path}", self.authority);
        let request = http::Request::builder().uri(uri).body(());
        let request = request.expect("a valid request");
        let exchange = begin(self.send.clone(), request, Bytes::new());
        self.wait(exchange)
    }

    /// Opens a WebSocket (RFC 8441), sends all of this while it reads, and returns what came.
    pub fn through_tunnel(&mut self, path: &str, bytes: Vec<u8>) -> Vec<u8> {
        let request = http::Request::connect(format!("https://{}{path}", self.authority))
            .extension(h2::ext::Protocol::from_static("websocket"))
            .body(())
            .expect("a valid request");
        let send = self.send.clone();
        let exchange = async {
            let mut send = send.ready().await.expect("the connection is open");
            let (response, mut stream) = send.send_request(request, false).expect("offered");
            let response = response.await.expect("a response");
            stream
                .send_data(bytes.into(), true)
                .expect("it can be sent");
            finish(response).await
        };
        let answer = self.wait(exchange);
        assert_eq!(answer.status, 200);
        answer.body
    }

    /// Reads the rest.
    pub fn rest(&mut self, response: http::Response<RecvStream>) -> Answer {
        self.wait(finish(response))
    }

    fn wait<T>(&self, exchange: impl Future<Output = T>) -> T {
        self.runtime
            .block_on(async { tokio::time::timeout(PATIENCE, exchange).await })
            .expect("an answer in time")
    }
}

async fn exchange(send: SendRequest<Bytes>, request: http::Request<()>, body: Bytes) -> Answer {
    finish(begin(send, request, body).await).await
}

async fn begin(
    send: SendRequest<Bytes>,
    request: http::Request<()>,
    body: Bytes,
) -> http::Response<RecvStream> {
    let mut send = send.ready().await.expect("the connection is open");
    let (response, mut stream) = send
        .send_request(request, body.is_empty())
        .expect("it can be sent");
    if !body.is_empty() {
        stream.send_data(body, true).expect("it can be sent");
    }
    response.await.expect("a response")
}

async fn finish(response: http::Response<RecvStream>) -> Answer {
    let (parts, mut body) = response.into_parts();
    let mut content = Vec::new();
    while let Some(piece) = body.data().await {
        let piece = piece.expect("the body is whole");
        body.flow_control()
            .release_capacity(piece.len())
            .expect("it was received");
        content.extend_from_slice(&piece);
    }
    let text = |value: &http::HeaderValue| String::from_utf8_lossy(value.as_bytes()).into_owned();
    Answer {
        status: parts.status.as_u16(),
        fields: parts
            .headers
            .iter()
            .map(|(name, value)| (name.to_string(), text(value)))
            .collect(),
        body: content,
    }
}
