//! `shop health`: asks a process on this machine for its readiness, as the image's HEALTHCHECK and scripts do.

use std::{net::SocketAddr, time::Duration};

use anyhow::{bail, ensure};
use reqwest::{Client, redirect::Policy};

use super::{output::print_line, serve, work};
use crate::config::{Bind, Config, reachable};

/// How long one process may take to answer.
const TIMEOUT: Duration = Duration::from_secs(3);
/// The longest answer that is read, in bytes.
const MAX_BODY: usize = 64 * 1024;

/// Asks at the configured management address. Where none is configured, asks at the default address of `serve`, then at
/// that of `work`.
pub(super) async fn run(config: &Config) -> anyhow::Result<()> {
    let client = client()?;
    let mut failures = Vec::new();

    for default_port in [serve::MANAGEMENT_PORT, work::MANAGEMENT_PORT] {
        let Bind::At(address) = config.management_bind(default_port)? else {
            bail!("no management address to ask at: `management_bind` is off");
        };
        match get_readyz(&client, reachable(address)).await {
            Ok((true, state)) => return print_line(state),
            Ok((false, state)) => bail!("not ready: {state}"),
            Err(error) => failures.push(format!("{address}: {}", error.root_cause())),
        }
    }

    failures.dedup();
    bail!(
        "no process answers ({}): is it running, and does it have the same `management_bind`?",
        failures.join("; ")
    )
}

fn client() -> anyhow::Result<Client> {
    // The client sets up TLS although only plain HTTP is spoken, and so it needs a provider, but no certificates.
    let _ = rustls::crypto::ring::default_provider().install_default();

    Ok(Client::builder()
        .timeout(TIMEOUT)
        .no_proxy()
        .redirect(Policy::none())
        .tls_certs_only([])
        .build()?)
}

/// Whether the process is ready, and what it says about its parts.
async fn get_readyz(client: &Client, address: SocketAddr) -> anyhow::Result<(bool, String)> {
    let mut response = client.get(format!("http://{address}/readyz")).send().await?;
    let ready = response.status().is_success();

    let mut body = Vec::new();
    while let Some(chunk) = response.chunk().await? {
        ensure!(
            body.len() + chunk.len() <= MAX_BODY,
            "the answer is longer than {MAX_BODY} bytes"
        );
        body.extend_from_slice(&chunk);
    }
    Ok((ready, String::from_utf8_lossy(&body).into_owned()))
}

#[cfg(test)]
mod tests {
    use tokio::{
        io::{AsyncReadExt as _, AsyncWriteExt as _},
        net::TcpListener,
    };

    use super::*;

    /// Asks a server that reads the request, sends `answer`, and closes the connection.
    async fn ask_server_that_sends(answer: String) -> anyhow::Result<(bool, String)> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let address = listener.local_addr()?;
        let server = tokio::spawn(async move {
            let (mut stream, _) = listener.accept().await?;
            assert_ne!(stream.read(&mut [0; 1_024]).await?, 0);
            stream.write_all(answer.as_bytes()).await?;
            stream.shutdown().await
        });

        let state = get_readyz(&client()?, address).await;
        server.abort();
        state
    }

    #[tokio::test]
    async fn the_status_decides_and_the_body_is_shown() {
        let ready = ask_server_that_sends("HTTP/1.1 200 OK\r\n\r\n{\"database\":\"up\"}".to_owned()).await;
        assert_eq!(ready.expect("an answer"), (true, "{\"database\":\"up\"}".to_owned()));

        let not_ready = ask_server_that_sends("HTTP/1.1 503 Service Unavailable\r\n\r\n".to_owned()).await;
        assert_eq!(not_ready.expect("an answer"), (false, String::new()));

        let elsewhere = "HTTP/1.1 302 Found\r\nlocation: http://127.0.0.1:1/\r\n\r\n";
        assert!(!ask_server_that_sends(elsewhere.to_owned()).await.expect("an answer").0);
    }

    #[tokio::test]
    async fn an_answer_without_end_is_not_read_to_its_end() {
        let body = "x".repeat(MAX_BODY + 1);
        let error = ask_server_that_sends(format!("HTTP/1.1 200 OK\r\n\r\n{body}")).await;
        assert!(error.expect_err("it is refused").to_string().contains("65536 bytes"));
    }
}
