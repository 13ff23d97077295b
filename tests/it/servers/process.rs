//! One server process: started, waited for, stopped, killed, paused, and started again on the same port and data.

use std::{
    fs::{self, File},
    path::PathBuf,
    process::{Child, Command, ExitStatus},
    sync::{Mutex, MutexGuard, PoisonError},
    thread,
    time::{Duration, Instant},
};

use super::run::{Stat, free_port, run};

/// How long a server may take to start or to stop.
const MAX_WAIT: Duration = Duration::from_secs(90);
const POLL: Duration = Duration::from_millis(20);
const ATTEMPTS: usize = 20;

/// What the servers and `epmd` log when another process has the port.
const TAKEN: [&str; 4] = [
    "ddress already in use",
    "eaddrinuse",
    "already a epmd running",
    "already an epmd running",
];

#[derive(Debug)]
pub struct PortTaken;

pub struct Process {
    name: String,
    log: PathBuf,
    ready: Box<dyn Fn() -> bool + Send + Sync>,
    /// The signal that asks for a graceful end.
    stop_signal: &'static str,
    state: Mutex<State>,
}

struct State {
    command: Command,
    child: Option<Child>,
}

/// Calls `start` with one free port after another until no other process was faster.
pub fn on_a_free_port<T>(start: impl Fn(u16) -> Result<T, PortTaken>) -> T {
    (0..ATTEMPTS)
        .find_map(|_| start(free_port()).ok())
        .expect("a port stays free long enough to be taken")
}

impl Process {
    /// Starts `command`, whose output goes to `<name>.log`, and waits until `ready`.
    pub fn start(
        name: String,
        mut command: Command,
        stop_signal: &'static str,
        ready: impl Fn() -> bool + Send + Sync + 'static,
    ) -> Result<Self, PortTaken> {
        let log = run().folder.join(format!("{name}.log"));
        let file = File::options().create(true).append(true).open(&log);
        let file = file.expect("the log can be written");
        command.stderr(file.try_clone().expect("a file can be shared"));
        command.stdout(file);

        let state = State { command, child: None };
        let process = Self {
            name,
            log,
            ready: Box::new(ready),
            stop_signal,
            state: Mutex::new(state),
        };
        process.spawn(&mut process.state())?;
        Ok(process)
    }

    /// Ends the server gracefully.
    pub fn stop(&self) {
        let mut state = self.state();
        let Some(mut child) = state.child.take() else {
            return;
        };

        signal("CONT", &family(child.id()));
        signal(self.stop_signal, &[child.id()]);

        if exited(&mut child, MAX_WAIT).is_none() {
            kill(&mut child);
            panic!("{} does not stop.\n{}", self.name, self.end_of_log());
        }

        run().unregister(&child);
    }

    /// SIGKILL, as in a crash; the server's children are killed as well.
    pub fn kill(&self) {
        if let Some(mut child) = self.state().child.take() {
            kill(&mut child);
        }
    }

    /// Same port, same data. Waits until it accepts connections.
    pub fn start_again(&self) {
        let mut state = self.state();
        assert!(state.child.is_none(), "{} is still running", self.name);
        let is_back = (0..ATTEMPTS).any(|attempt| {
            if attempt > 0 {
                thread::sleep(MAX_WAIT / 100);
            }
            self.spawn(&mut state).is_ok()
        });
        assert!(is_back, "another process took the port of {}", self.name);
    }

    /// SIGSTOP: connections stay open and nothing answers, as when a machine hangs.
    pub fn pause(&self) {
        let state = self.state();
        let child = state.child.as_ref().expect("a running server is paused");
        // The server first, so that it starts no more children while they are listed.
        signal("STOP", &[child.id()]);
        signal("STOP", &family(child.id()));
        let stopped = wait_until(MAX_WAIT, || Stat::of(child.id()).is_some_and(|stat| stat.state == "T"));
        assert!(stopped, "{} does not pause", self.name);
    }

    pub fn resume(&self) {
        let state = self.state();
        let child = state.child.as_ref().expect("a paused server is resumed");
        signal("CONT", &family(child.id()));
    }

    fn spawn(&self, state: &mut State) -> Result<(), PortTaken> {
        let log_before = self.log().len();
        let mut child = run().spawn(&mut state.command);
        let mut end = None;
        let ready = wait_until(MAX_WAIT, || {
            end = end.or_else(|| exited(&mut child, Duration::ZERO));
            end.is_some() || (self.ready)()
        });
        if ready && end.is_none() {
            state.child = Some(child);
            return Ok(());
        }
        kill(&mut child);
        let log = self.log();
        if TAKEN.iter().any(|words| log[log_before..].contains(words)) {
            return Err(PortTaken);
        }
        let end = end.map_or_else(|| "no answer".to_owned(), |status| status.to_string());
        panic!("{} does not start: {end}.\n{}", self.name, self.end_of_log());
    }

    fn log(&self) -> String {
        fs::read(&self.log)
            .map(|bytes| String::from_utf8_lossy(&bytes).into_owned())
            .unwrap_or_default()
    }

    fn end_of_log(&self) -> String {
        let log = self.log();
        let lines: Vec<&str> = log.lines().collect();
        lines[lines.len().saturating_sub(40)..].join("\n")
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
    }
}

fn kill(child: &mut Child) {
    // Stopped first, so that it cannot start another child after its children were listed.
    signal("STOP", &[child.id()]);
    let family = family(child.id());
    signal("KILL", &family);
    child.wait().expect("a killed child can be waited for");
    run().unregister(child);
    // The children die a moment later, and until then hold memory and ports that the next start needs.
    wait_until(MAX_WAIT, || {
        let dying = family.iter().filter_map(|pid| Stat::of(*pid));
        dying.filter(|stat| stat.state != "Z").count() == 0
    });
}

fn exited(child: &mut Child, max_wait: Duration) -> Option<ExitStatus> {
    let mut status = None;
    wait_until(max_wait, || {
        status = child.try_wait().expect("a child can be waited for");
        status.is_some()
    });
    status
}

/// Whether `done` became true within `max_wait`; it is called at least once.
fn wait_until(max_wait: Duration, mut done: impl FnMut() -> bool) -> bool {
    let started = Instant::now();
    loop {
        if done() {
            return true;
        }
        if started.elapsed() >= max_wait {
            return false;
        }
        thread::sleep(POLL);
    }
}

/// The process and all that descend from it.
fn family(root: u32) -> Vec<u32> {
    let processes = Stat::all();
    let mut family = vec![root];
    let mut next = 0;
    while let Some(&parent) = family.get(next) {
        let children = processes.iter().filter(|process| process.parent == parent);
        family.extend(children.map(|process| process.pid));
        next += 1;
    }
    family
}

/// Through the shell's own `kill`: a slim image has no other, and std has none that is safe.
fn signal(name: &str, pids: &[u32]) {
    Command::new("sh")
        .args([
            "-c",
            r#"signal=$1; shift; kill -s "$signal" "$@" 2>/dev/null"#,
            "kill",
            name,
        ])
        .args(pids.iter().map(u32::to_string))
        .status()
        .expect("sh is on every machine");
}
