//! Where the bytes that a client sends stand in HTTP/1.1's framing (RFC 9112, sections 2.2, 6 and 7.1): between two
//! requests or within one. The HTTP library keeps that to itself. It alone decides what a request is; what is found here
//! decides time limits, who may close their sending side, and whether the lengths that a request announces conflict.

use std::io::BufRead as _;

/// As much of a line is kept that arrives in pieces, in bytes: enough for the headers that are looked for.
const MAX_LINE: usize = 256;

/// Follows the bytes of a connection from request to request.
#[derive(Default)]
pub(super) struct Framing {
    state: State,
    /// The beginning of a line whose end has not arrived.
    line: Vec<u8>,
    head: Head,
    /// The requests whose headers have arrived.
    requests: usize,
    conflicting_lengths: Option<usize>,
}

#[derive(Default)]
enum State {
    /// In the request line or the headers, or before them.
    #[default]
    Head,
    /// In a body that has so many bytes left.
    Body(u64),
    ChunkSize,
    /// In a chunk, of which so many bytes are left, the end of its line included.
    Chunk(u64),
    Trailers,
    /// The library will refuse what came.
    Lost,
}

/// What the lines of a request have said so far.
#[derive(Default)]
struct Head {
    started: bool,
    length: Option<u64>,
    chunked: bool,
}

impl Framing {
    /// Takes the bytes that arrived next.
    pub fn read(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            bytes = match self.state {
                State::Body(left) | State::Chunk(left) => self.skip(bytes, left),
                State::Lost => return,
                State::Head | State::ChunkSize | State::Trailers => self.read_line(bytes),
            };
        }
    }

    /// Whether all requests that began have arrived as a whole, bodies included.
    pub fn is_between_requests(&self) -> bool {
        matches!(self.state, State::Head) && !self.is_in_head()
    }

    /// Whether a part of a request's line or headers has arrived, and not all of it.
    pub fn is_in_head(&self) -> bool {
        matches!(self.state, State::Head) && (self.head.started || !self.line.is_empty())
    }

    /// The first request with both a `Content-Length` and a `Transfer-Encoding`, counted from 1.
    pub fn conflicting_lengths(&self) -> Option<usize> {
        self.conflicting_lengths
    }

    /// Passes over as much of a body or chunk as there is, and gives what follows.
    fn skip<'a>(&mut self, bytes: &'a [u8], left: u64) -> &'a [u8] {
        let skipped = usize::try_from(left).unwrap_or(usize::MAX).min(bytes.len());
        let left = left - skipped as u64;

        self.state = match (left, &self.state) {
            (0, State::Chunk(_)) => State::ChunkSize,
            (0, _) => State::Head,
            (_, State::Chunk(_)) => State::Chunk(left),
            (_, _) => State::Body(left),
        };
        &bytes[skipped..]
    }

    /// Takes the bytes up to the end of the line, and gives what follows.
    fn read_line<'a>(&mut self, bytes: &'a [u8]) -> &'a [u8] {
        let mut rest = bytes;
        // Cannot fail: the bytes are in memory. Of all ways to find a byte in the standard library it is the fastest.
        let _ = rest.skip_until(b'\n');
        let line = &bytes[..bytes.len() - rest.len()];

        let Some(whole) = line.strip_suffix(b"\n") else {
            self.keep(line);
            return rest;
        };
        if self.line.is_empty() {
            self.end_line(whole);
        } else {
            self.keep(whole);
            let whole = std::mem::take(&mut self.line);
            self.end_line(&whole);
        }
        rest
    }

    fn keep(&mut self, part: &[u8]) {
        let room = MAX_LINE - self.line.len();
        self.line.extend_from_slice(&part[..part.len().min(room)]);
    }

    fn end_line(&mut self, line: &[u8]) {
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        match self.state {
            // Empty lines before a request line are passed over (RFC 9112, section 2.2).
            State::Head if line.is_empty() && !self.head.started => {}
            State::Head if line.is_empty() => self.end_head(),
            State::Head => self.head.read(line),
            State::Trailers if line.is_empty() => self.state = State::Head,
            State::ChunkSize => self.state = after_chunk_size(line),
            _ => {}
        }
    }

    fn end_head(&mut self) {
        let head = std::mem::take(&mut self.head);
        self.requests += 1;
        if head.chunked && head.length.is_some() {
            self.conflicting_lengths.get_or_insert(self.requests);
        }

        self.state = match head.length {
            _ if head.chunked => State::ChunkSize,
            Some(length @ 1..) => State::Body(length),
            Some(0) | None => State::Head,
        };
    }
}

impl Head {
    fn read(&mut self, line: &[u8]) {
        self.started = true;
        match line[0] | 0x20 {
            b'c' => {
                if let Some(value) = value_of(line, b"content-length") {
                    self.length = Some(digits(value, 10).unwrap_or_default());
                }
            }
            // The library refuses every other coding, and any that comes after it.
            b't' => self.chunked |= value_of(line, b"transfer-encoding").is_some(),
            _ => {}
        }
    }
}

/// The value of a header line, if it is the header of this name.
fn value_of<'a>(line: &'a [u8], name: &[u8]) -> Option<&'a [u8]> {
    let (found, value) = line.split_at_checked(name.len())?;
    let value = value.strip_prefix(b":")?;
    found.eq_ignore_ascii_case(name).then(|| value.trim_ascii())
}

fn after_chunk_size(line: &[u8]) -> State {
    let size = line.split(|byte| *byte == b';').next().unwrap_or_default();
    match digits(size.trim_ascii(), 16) {
        Some(0) => State::Trailers,
        Some(size) => State::Chunk(size.saturating_add(2)),
        None => State::Lost,
    }
}

fn digits(text: &[u8], radix: u32) -> Option<u64> {
    let text = str::from_utf8(text).ok()?;
    let signed = text.starts_with(['+', '-']);
    u64::from_str_radix(text, radix).ok().filter(|_| !signed)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What stands where after these bytes, however they are cut into pieces.
    fn after(text: &str) -> (bool, bool, Option<usize>) {
        let state = |framing: &Framing| {
            (
                framing.is_between_requests(),
                framing.is_in_head(),
                framing.conflicting_lengths(),
            )
        };
        let mut whole = Framing::default();
        whole.read(text.as_bytes());

        for size in [1, 2, 3, 7] {
            let mut pieces = Framing::default();
            text.as_bytes().chunks(size).for_each(|piece| pieces.read(piece));
            assert_eq!(state(&pieces), state(&whole), "in pieces of {size}: {text}");
        }
        state(&whole)
    }

    #[test]
    fn the_place_between_two_requests_is_found() {
        let chunked = "POST / HTTP/1.1\r\ntransfer-ENCODING: chunked\r\n\r\n";
        for between in [
            String::new(),
            "GET / HTTP/1.1\r\nHost: x\r\n\r\n".to_owned(),
            "GET / HTTP/1.1\nHost: x\n\n".to_owned(),
            "GET / HTTP/1.1\r\n\r\nGET / HTTP/1.1\r\n\r\n\r\n".to_owned(),
            "POST / HTTP/1.1\r\ncontent-Length:  5\r\n\r\n\r\n\r\n1".to_owned(),
            "POST / HTTP/1.1\r\nContent-Length: 0\r\n\r\n".to_owned(),
            format!("{chunked}0\r\n\r\n"),
            format!("{chunked}3;x=\"y\"\r\nabc\r\nA\r\n0123456789\r\n0\r\nX: y\r\n\r\n"),
        ] {
            assert_eq!(after(&between), (true, false, None), "{between}");
        }

        for body in [
            "POST / HTTP/1.1\r\nContent-Length: 5\r\n\r\n1234".to_owned(),
            format!("{chunked}3\r\nabc\r\n"),
            format!("{chunked}0\r\nX: y\r\n"),
            format!("{chunked}zz\r\n\r\n"),
        ] {
            assert_eq!(after(&body), (false, false, None), "{body}");
        }
    }

    #[test]
    fn a_part_of_the_next_request_is_seen_behind_a_whole_one() {
        let one = "POST / HTTP/1.1\r\nContent-Length: 2\r\n\r\n{}";
        let long = format!("X: {}", "x".repeat(1_000));
        for part in ["G", "GET / HTTP/1.1", "GET / HTTP/1.1\r\nHost: x\r\n", &long] {
            assert_eq!(after(&format!("{one}{part}")), (false, true, None), "{part}");
            assert_eq!(after(part), (false, true, None), "{part}");
        }
    }

    #[test]
    fn the_first_request_with_conflicting_lengths_is_known() {
        let (length, chunked) = ("Content-Length: 3\r\n", "Transfer-Encoding: gzip, chunked\r\n");
        let one = "GET / HTTP/1.1\r\nX-Content-Length: 3\r\nTE: trailers\r\n\r\n";
        for headers in [format!("{length}{chunked}"), format!("{chunked}{length}")] {
            let two = format!("POST / HTTP/1.1\r\n{headers}\r\n0\r\n\r\n");
            assert_eq!(after(&format!("{one}{two}{one}{two}")).2, Some(2), "{two}");
        }
    }
}
