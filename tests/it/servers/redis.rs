//! A Redis without persistence, since the shop uses it as a cache only.

use std::{
    io::{Read, Write},
    net::{SocketAddr, TcpStream},
    ops::Deref,
    time::Duration,
};

use super::{
    process::{PortTaken, Process, on_a_free_port},
    run::{command, program, run},
};

pub struct Redis {
    port: u16,
    process: Process,
}

impl Redis {
    pub fn start() -> Self {
        on_a_free_port(Self::start_on)
    }

    pub fn url(&self) -> String {
        format!("redis://127.0.0.1:{}", self.port)
    }

    pub fn port(&self) -> u16 {
        self.port
    }

    /// What `redis-cli` prints for a command.
    pub fn cli(&self, arguments: &[&str]) -> String {
        let client = program("redis-cli", "redis-tools", &[]);
        let mut client = command(&client, &run().folder);
        client
            .args(["-h", "127.0.0.1", "-p", &self.port.to_string()])
            .args(arguments);
        run().output(&mut client).trim_end().to_owned()
    }

    fn start_on(port: u16) -> Result<Self, PortTaken> {
        let server = program("redis-server", "redis-server", &[]);
        let (name, folder) = run().new_folder("redis");
        let mut command = command(&server, &folder);
        command
            .args(["--bind", "127.0.0.1", "--daemonize", "no"])
            .args(["--save", "", "--appendonly", "no"])
            .args(["--port", &port.to_string()]);
        let process = Process::start(name, command, "TERM", move || {
            request(port, b"PING\r\n", 5).is_some_and(|answer| answer == b"+PONG")
        })?;
        Ok(Self { port, process })
    }
}

impl Deref for Redis {
    type Target = Process;

    fn deref(&self) -> &Process {
        &self.process
    }
}

/// Connects, sends `words`, and reads the first `length` bytes of the answer.
pub fn request(port: u16, words: &[u8], length: usize) -> Option<Vec<u8>> {
    let max_wait = Duration::from_secs(2);
    let address = SocketAddr::from(([127, 0, 0, 1], port));
    let mut stream = TcpStream::connect_timeout(&address, max_wait).ok()?;
    stream.set_read_timeout(Some(max_wait)).ok()?;
    stream.write_all(words).ok()?;
    let mut answer = vec![0; length];
    stream.read_exact(&mut answer).ok()?;
    Some(answer)
}
