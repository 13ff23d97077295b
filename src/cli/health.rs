//! `shop health`: asks a running process on this machine, for HEALTHCHECK and scripts.

use std::{net::SocketAddr, time::Duration};

use anyhow::bail;
use http_body_util::{BodyExt as _, Empty, Limited};
use hyper::{Request, body::Bytes, client::conn::http1, header::HOST};
use hyper_util::rt::TokioIo;
use tokio::{net::TcpStream, time::timeout};

use super::print::print_line;
use crate::config::{Bind, Config, reachable};

const MAX_WAIT: Duration = Duration::from_secs(3);
const MAX_ANSWER: usize = 64 * 1024;
const PORTS: [u16; 2] = [8081, 8082];

/// Asks the configured management address, or where none is configured, where `serve` and then `work` listen.
pub(super) async fn ask(config: &Config) -> anyhow::Result<()> {
    let mut asked = Vec::new();
    for port in PORTS {
        let Bind::At(address) = config.management_bind(port)? else {
            bail!("there is nobody to ask: `management_bind` is off");
        };
        match ask_at(reachable(address)).await {
            Ok((true, state)) => {
                return print_line(state);
            }
            Ok((false, state)) => bail!("not ready: {state}"),
            Err(error) => asked.push(format!("{address}: {error}")),
        }
    }
    asked.dedup();
    bail!(
        "nobody answers ({}): is it running, and is `management_bind` the same?",
        asked.join("; ")
    )
}

async fn ask_at(address: SocketAddr) -> anyhow::Result<(bool, String)> {
    timeout(MAX_WAIT, get_readyz(address)).await?
}

async fn get_readyz(address: SocketAddr) -> anyhow::Result<(bool, String)> {
    let stream = TcpStream::connect(address).await?;
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
    tokio::spawn(connection);
    let request = Request::get("/readyz")
        .header(HOST, address.to_string())
        .body(Empty::<Bytes>::new())?;
    let response = sender.send_request(request).await?;
    let ready = response.status().is_success();
    let body = Limited::new(response.into_body(), MAX_ANSWER).collect().await;
    let body = body.map_err(|error| anyhow::anyhow!(error))?.to_bytes();
    Ok((ready, String::from_utf8_lossy(&body).into_owned()))
}
