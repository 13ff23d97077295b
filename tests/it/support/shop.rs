//! The program, as users run it.

use std::{
    fs::File,
    io::{BufRead as _, BufReader},
    process::{Child, Command, ExitStatus, Output, Stdio},
    sync::{Arc, Condvar, Mutex, PoisonError},
    thread,
    time::Instant,
};

use serde_json::Value;

use super::{Backend, Client, MAX_WAIT};
use crate::servers::run::run;

/// A running `serve` or `work`. Killed when dropped.
pub struct Shop {
    child: Child,
    log: Arc<Log>,
}

#[derive(Default)]
struct Log {
    lines: Mutex<(Vec<String>, bool)>,
    more: Condvar,
}

impl Shop {
    pub fn serve(backend: &Backend) -> Self {
        let shop = Self::start(backend, &["serve"], &[]);
        shop.wait_for("serving");
        shop
    }

    pub fn work(backend: &Backend) -> Self {
        let shop = Self::start(backend, &["work"], &[]);
        shop.wait_for("working");
        shop
    }

    /// `count` `work` processes; none on the embedded back end, where `serve` settles orders itself.
    pub fn workers(backend: &Backend, count: usize) -> Vec<Self> {
        let count = if backend.is_embedded() { 0 } else { count };
        (0..count).map(|_| Self::work(backend)).collect()
    }

    pub fn start(backend: &Backend, arguments: &[&str], environment: &[(&str, &str)]) -> Self {
        Self::spawn(backend, program(arguments), environment)
    }

    /// A process whose files may have `bytes` at most; a longer write fails with an error instead of a signal.
    pub fn serve_with_file_size_limit(backend: &Backend, bytes: u64) -> Self {
        let mut command = Command::new("sh");
        let limited = "trap '' XFSZ; ulimit -Sf \"$0\" && exec \"$@\"";
        let blocks = (bytes / 512).to_string();
        command.args(["-c", limited, &blocks, env!("CARGO_BIN_EXE_shop"), "serve"]);
        let shop = Self::spawn(backend, command, &[]);
        shop.wait_for("serving");
        shop
    }

    /// Lifts the limit on the size of files.
    pub fn lift_file_size_limit(&self) {
        let pid = self.child.id().to_string();
        let lifted = Command::new("prlimit")
            .args(["--pid", &pid, "--fsize=unlimited:"])
            .status();
        assert!(lifted.expect("every Linux has it").success());
    }

    /// What it prints is added to the file `stdout` in the folder of the back end.
    fn spawn(backend: &Backend, mut command: Command, environment: &[(&str, &str)]) -> Self {
        let stdout = File::options()
            .create(true)
            .append(true)
            .open(backend.folder.join("stdout"));
        let stdout = stdout.expect("the folder can be written");
        command
            .envs(backend.environment())
            .envs(environment.iter().copied())
            .current_dir(&backend.folder)
            .stdin(Stdio::null())
            .stdout(stdout)
            .stderr(Stdio::piped());

        let mut child = run().spawn(&mut command);
        let log = Arc::new(Log::default());
        let stderr = child.stderr.take().expect("piped");
        let reading = Arc::clone(&log);

        thread::spawn(move || {
            for line in BufReader::new(stderr).lines().map_while(Result::ok) {
                reading.lines().0.push(line);
                reading.more.notify_all();
            }
            reading.lines().1 = true;
            reading.more.notify_all();
        });

        Self { child, log }
    }

    pub fn client(&self) -> Client {
        Client::new(&self.wait_for("serving"))
    }

    pub fn management(&self) -> Client {
        Client::new(&self.wait_for("management"))
    }

    /// Waits for a log line with this message, and returns its `address`.
    pub fn wait_for(&self, message: &str) -> String {
        let found = |line: &String| {
            let line: Value = serde_json::from_str(line).ok()?;
            (line["message"] == message).then(|| line["address"].as_str().unwrap_or_default().to_owned())
        };

        let started = Instant::now();
        let mut lines = self.log.lines();
        loop {
            if let Some(address) = lines.0.iter().find_map(found) {
                return address;
            }
            let waiting = !lines.1 && started.elapsed() < MAX_WAIT;
            assert!(
                waiting,
                "the message {message:?} was never logged:\n{}",
                lines.0.join("\n")
            );
            let (again, _) = self
                .log
                .more
                .wait_timeout(lines, MAX_WAIT)
                .unwrap_or_else(PoisonError::into_inner);
            lines = again;
        }
    }

    pub fn log(&self) -> String {
        self.log.lines().0.join("\n")
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    pub fn has_ended(&self) -> bool {
        self.log.lines().1
    }

    /// Waits until the process has ended by itself.
    pub fn wait_for_end(&self) {
        let started = Instant::now();
        let mut lines = self.log.lines();
        while !lines.1 {
            assert!(
                started.elapsed() < MAX_WAIT,
                "it is still running:\n{}",
                lines.0.join("\n")
            );
            let waited = self.log.more.wait_timeout(lines, MAX_WAIT);
            lines = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    /// Waits for the end of the process.
    pub fn exit_code(&mut self) -> Option<i32> {
        self.wait_for_end();
        let status = self.child.wait().expect("it can be waited for");
        run().unregister(&self.child);
        status.code()
    }

    /// SIGKILL.
    pub fn kill(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        run().unregister(&self.child);
    }

    /// Sends SIGINT, as Ctrl-C does.
    pub fn interrupt(&self) {
        signal(self.child.id(), "INT");
    }

    /// Sends SIGTERM and waits for the end of the process.
    pub fn terminate(&mut self) -> ExitStatus {
        signal(self.child.id(), "TERM");
        let status = self.child.wait().expect("it can be waited for");
        run().unregister(&self.child);
        status
    }
}

impl Drop for Shop {
    fn drop(&mut self) {
        if thread::panicking() {
            eprintln!("--- log of process {}:\n{}", self.child.id(), self.log());
        }
        if self.child.try_wait().is_ok_and(|status| status.is_none()) {
            self.kill();
        }
    }
}

impl Log {
    fn lines(&self) -> std::sync::MutexGuard<'_, (Vec<String>, bool)> {
        self.lines.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Runs a command that ends by itself.
pub fn run_to_end(backend: &Backend, arguments: &[&str], environment: &[(&str, &str)]) -> Output {
    program(arguments)
        .envs(backend.environment())
        .envs(environment.iter().copied())
        .current_dir(&backend.folder)
        .stdin(Stdio::null())
        .output()
        .expect("it can be run")
}

/// Without the `SHOP_` variables of this process.
fn program(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_shop"));
    let own = std::env::vars_os().filter(|(key, _)| key.to_string_lossy().starts_with("SHOP_"));
    for (key, _) in own {
        command.env_remove(key);
    }
    command.args(arguments);
    command
}

fn signal(pid: u32, name: &str) {
    Command::new("sh")
        .args(["-c", "kill -s \"$0\" \"$1\"", name, &pid.to_string()])
        .status()
        .expect("sh is on every machine");
}
