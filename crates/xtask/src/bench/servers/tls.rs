//! Files in the clear and over TLS, by ours and by nginx, with one certificate. The first page is asked for in the clear.

use std::process::Command;

use anyhow::{Context, Result, ensure};

use super::{nginx, stack};
use crate::bench::peer::{Address, Scene, Started, free_port};

/// A certificate of ECDSA P-256, as most sites have.
fn certificate(scene: &Scene<'_>) -> Result<()> {
    let status = Command::new("openssl")
        .args([
            "req",
            "-x509",
            "-newkey",
            "ec",
            "-pkeyopt",
            "ec_paramgen_curve:prime256v1",
        ])
        .args(["-nodes", "-days", "7", "-subj", "/CN=localhost", "-keyout"])
        .arg(scene.folder.join("key.pem"))
        .arg("-out")
        .arg(scene.folder.join("cert.pem"))
        .output()
        .context("cannot run openssl; it is in the package of that name")?
        .status;
    ensure!(status.success(), "openssl ended with {status}");
    Ok(())
}

pub(super) fn stack(scene: &Scene<'_>) -> Result<Started> {
    certificate(scene)?;
    let (port, tls) = (scene.port, free_port()?);
    // The one site has the certificate, the other one answers on both ports.
    let files = scene.place.app.join("static");
    let text = format!(
        "[server]\nhttp = [\"127.0.0.1:{port}\"]\nhttps = [\"127.0.0.1:{tls}\"]\n\
         access_log = {{ file = \"access.log\", format = \"combined\" }}\n\
         [limits]\nkeepalive_requests = 100000000\n\
         [[site]]\nhosts = [\"example.org\"]\ntls = {{ cert = \"cert.pem\", key = \"key.pem\" }}\n\
         routes = [{{ path = \"/\", respond = \"ready\" }}]\n\
         [[site]]\nhosts = [\"*\"]\ntls = \"off\"\n\
         routes = [{{ path = \"/static/\", files = {files:?} }}, {{ path = \"/\", respond = \"ready\" }}]\n"
    );
    Ok(Started {
        trees: vec![stack::start(scene, &text)?],
        address: Address::Tls { port, tls },
    })
}

pub(super) fn nginx(scene: &Scene<'_>) -> Result<Started> {
    certificate(scene)?;
    let (port, tls) = (scene.port, free_port()?);
    let text = format!(
        "ssl_certificate {run}/cert.pem; ssl_certificate_key {run}/key.pem; ssl_protocols TLSv1.2 TLSv1.3;\n\
         ssl_ecdh_curve X25519; ssl_session_cache shared:x:10m;\n\
         server {{ listen 127.0.0.1:{tls} ssl http2; listen 127.0.0.1:{port};\n\
         location / {{ return 200 ready; }}\n\
         location /static/ {{ root {app}; sendfile on; tcp_nopush on; open_file_cache max=20000; }} }}\n",
        run = scene.folder.display(),
        app = scene.place.app.display(),
    );
    Ok(Started {
        trees: vec![nginx::start(scene, &text)?],
        address: Address::Tls { port, tls },
    })
}
