//! Reading a body: at most so large, at most so slowly.

use std::{io, pin::pin, time::Duration};

use bytes::{Bytes, BytesMut};
use futures_util::StreamExt as _;
use poem::{Body, Request, RequestBody, http::header};
use tokio::time::timeout;

use super::problem::{
    Problem,
    types::{PAYLOAD_TOO_LARGE, REQUEST_TIMEOUT},
};

/// The largest body that is accepted, in bytes, where an operation does not take more.
pub(super) const MAX_BODY: u64 = 64 * 1024;
/// The most that is read of a body that is too large, in bytes.
const MAX_DRAINED: u64 = 2 * 1024 * 1024;
/// How long a body may take to arrive.
const BODY_TIMEOUT: Duration = Duration::from_secs(5);

/// The whole body of a request, of `max` bytes at most.
pub(super) async fn read(request: &Request, body: &mut RequestBody, max: u64) -> poem::Result<Bytes> {
    let announced = request.headers().get(header::CONTENT_LENGTH);
    let announced = announced.and_then(|length| length.to_str().ok()?.parse::<u64>().ok());
    let is_too_large = announced.is_some_and(|length| length > max);
    // A client that asks first has sent nothing yet (RFC 9110, section 10.1.1), and need not.
    let asks_first = request.headers().contains_key(header::EXPECT);
    if announced.is_some_and(|length| length > MAX_DRAINED) || (is_too_large && asks_first) {
        return Err(too_large(max).into());
    }

    let problem = match timeout(BODY_TIMEOUT, read_to_end(body.take()?, max)).await {
        Ok(Ok(Some(bytes))) => return Ok(bytes),
        Ok(Ok(None)) => too_large(max),
        Ok(Err(error)) => Problem::invalid_field("", format!("the body could not be read: {error}")),
        Err(_) if is_too_large => too_large(max),
        Err(_) => Problem::new(REQUEST_TIMEOUT, "the body did not arrive within 5 seconds"),
    };
    Err(problem.into())
}

fn too_large(max: u64) -> Problem {
    Problem::new(PAYLOAD_TOO_LARGE, format!("the body is larger than {} KiB", max / 1024))
}

/// The body, or nothing if it is larger than `max` bytes. A larger one is read on and dropped up to [`MAX_DRAINED`]: a
/// client whose connection is closed while it still sends never sees the answer.
async fn read_to_end(body: Body, max: u64) -> io::Result<Option<Bytes>> {
    let mut pieces = pin!(body.into_bytes_stream());
    let (mut bytes, mut length) = (BytesMut::new(), 0);

    while let Some(piece) = pieces.next().await {
        let piece = piece?;
        length += piece.len() as u64;
        if length > MAX_DRAINED {
            break;
        }
        if length <= max {
            bytes.extend_from_slice(&piece);
        }
    }

    Ok((length <= max).then(|| bytes.freeze()))
}
