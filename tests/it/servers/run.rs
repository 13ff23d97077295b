//! What all servers of one test run share: the temporary folder, the reaper that outlives the test process, and
//! the search for binaries and free ports.

use std::{
    env, fs,
    hash::{BuildHasher, RandomState},
    io::Write,
    net::TcpListener,
    os::unix::{
        fs::{MetadataExt, PermissionsExt},
        process::CommandExt,
    },
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::{
        Mutex, OnceLock, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
};

/// Waits for the end of its input, which is the end of the test process, SIGKILL included.
///
/// Then it kills what was registered and all that descends from it: a paused `PostgreSQL` backend does not notice
/// that its postmaster died. The start time distinguishes a registered process from a later one with the same id.
/// It also removes what a killed `PostgreSQL` leaves outside its folder: files of `initdb` in `/dev/shm`, and the System V
/// segment of a postmaster, which its pid file names.
const REAPER: &str = r#"
trap '' INT TERM HUP
folder=$1 ours= family=' ' parents= shared=

while read -r word pid born; do
    kept=
    for one in $ours; do [ "${one%%:*}" = "$pid" ] || kept="$kept $one"; done
    ours=$kept
    [ "$word" = gone ] || ours="$ours $pid:$born"
done

for stat in /proc/[0-9]*/stat; do
    read -r line 2>/dev/null <"$stat" || continue
    pid=${line%% *}
    set -- ${line##*) }
    parents="$parents $pid:$2"
    case "$ours " in *" $pid:${20} "*) family="$family$pid " ;; esac
done

found=yes
while [ "$found" ]; do
    found=
    for one in $parents; do
        case $family in *" ${one%:*} "*) continue ;; esac
        case $family in *" ${one#*:} "*) family="$family${one%:*} " found=yes ;; esac
    done
done
for pid in $family; do
    shared="$shared $(grep -hos '/dev/shm/PostgreSQL\.[0-9]*' "/proc/$pid/maps")"
done
[ "$family" = ' ' ] || kill -KILL $family
rm -f $shared

for file in "$folder"/*/postmaster.pid; do
    while read -r key segment rest; do
        case "$key$segment$rest" in *[!0-9]* | "") continue ;; esac
        [ -z "$segment" ] || ipcrm -m "$segment"
    done <"$file"
done
for attempt in 1 2 3 4 5 6 7 8 9 10; do
    rm -rf "$folder" && exit
    sleep 0.2
done
"#;

/// `PATH` where the environment has none; also added to it, since a normal user's may lack some of these folders.
const SYSTEM_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

pub struct Run {
    pub folder: PathBuf,
    /// Its input stays open for as long as this process lives; nothing else inherits it.
    reaper: Mutex<Child>,
    folders: AtomicUsize,
}

/// The run of this test process, started on first use.
pub fn run() -> &'static Run {
    static RUN: OnceLock<Run> = OnceLock::new();
    RUN.get_or_init(Run::start)
}

impl Run {
    fn start() -> Self {
        let folder = tempfile::Builder::new()
            .prefix("shop-test-")
            .tempdir()
            .expect("a temporary folder can be made")
            .keep();

        if is_root() {
            // PostgreSQL then runs as another user, who has to reach its folder in this one.
            fs::set_permissions(&folder, fs::Permissions::from_mode(0o711)).expect("the folder is ours");
        }

        let reaper = Command::new("sh")
            .args(["-c", REAPER, "reaper"])
            .arg(&folder)
            .current_dir("/")
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .process_group(0)
            .spawn()
            .expect("sh is on every machine");
        Self {
            folder,
            reaper: Mutex::new(reaper),
            folders: AtomicUsize::new(1),
        }
    }

    /// A new folder for one server, and the name that is its own in this run: `redis-3`.
    pub fn new_folder(&self, server: &str) -> (String, PathBuf) {
        let number = self.folders.fetch_add(1, Ordering::Relaxed);
        let name = format!("{server}-{number}");
        let folder = self.folder.join(&name);
        fs::create_dir(&folder).expect("the name is used once");
        (name, folder)
    }

    /// Spawns a process that the reaper knows of until [`Run::unregister`].
    pub fn spawn(&self, command: &mut Command) -> Child {
        let child = command
            .spawn()
            .unwrap_or_else(|error| panic!("{command:?} does not start: {error}"));
        let start_time = Stat::of(child.id()).map_or(0, |stat| stat.start_time);
        self.send(&format!("pid {} {start_time}", child.id()));
        child
    }

    /// Call it after the process was waited for: from then on its id may belong to another process.
    pub fn unregister(&self, child: &Child) {
        self.send(&format!("gone {}", child.id()));
    }

    /// Runs a command to its end and returns its standard output; panics with its standard error when it fails.
    pub fn output(&self, command: &mut Command) -> String {
        let command = command.stdout(Stdio::piped()).stderr(Stdio::piped());
        let child = self.spawn(command);
        let pid = child.id();
        let output = child.wait_with_output().expect("its output can be collected");
        self.send(&format!("gone {pid}"));
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert!(
            output.status.success(),
            "{command:?} failed, {}: {text}{stderr}",
            output.status
        );
        text
    }

    fn send(&self, line: &str) {
        let reaper = self.reaper.lock().unwrap_or_else(PoisonError::into_inner);
        // One write a line: if this process is killed between two writes, the reaper would read half a line.
        let mut input = reaper.stdin.as_ref().expect("its input is a pipe");
        input
            .write_all(format!("{line}\n").as_bytes())
            .expect("the reaper lives as long as this process");
    }
}

/// A command that inherits only `PATH`, runs in `folder`, and does not get the Ctrl-C of the terminal.
pub fn command(program: &Path, folder: &Path) -> Command {
    let mut command = Command::new(program);
    command
        .env_clear()
        .env("PATH", path())
        .env("HOME", folder)
        .env("LC_ALL", "C.UTF-8")
        .current_dir(folder)
        .stdin(Stdio::null())
        .process_group(0);
    command
}

/// The first of `folders` that holds `program`, else the first of `PATH`. Panics where there is none: a test that
/// skips itself proves nothing.
pub fn program(program: &str, package: &str, folders: &[PathBuf]) -> PathBuf {
    let path = path();
    folders
        .iter()
        .cloned()
        .chain(env::split_paths(&path))
        .map(|folder| folder.join(program))
        .find(|file| file.is_file())
        .unwrap_or_else(|| {
            panic!("`{program}` is missing and these tests need it: run `tests/run`, or `apt-get install {package}`")
        })
}

/// The folder of programs that the developer has chosen by this variable, to test with another version of a server.
pub fn chosen(variable: &str) -> Option<PathBuf> {
    let folder = PathBuf::from(env::var_os(variable)?);
    assert!(
        folder.is_dir(),
        "{variable} must name a folder of programs: {}",
        folder.display()
    );
    Some(folder)
}

/// The folders in `folder`, each with `below` added; none where `folder` does not exist.
pub fn folders_in(folder: &str, below: &str) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    entries.map(|entry| entry.path().join(below)).collect()
}

pub fn path() -> String {
    env::var("PATH").map_or_else(|_| SYSTEM_PATH.to_owned(), |path| format!("{path}:{SYSTEM_PATH}"))
}

pub fn is_root() -> bool {
    fs::metadata("/proc/self").is_ok_and(|metadata| metadata.uid() == 0)
}

/// A port that was free a moment ago.
///
/// It lies below the ports that the system gives to outgoing connections: while a server is down, one of those (its
/// own client's, trying again) could take its port, and the server could not start again.
pub fn free_port() -> u16 {
    let lowest_outgoing = fs::read_to_string("/proc/sys/net/ipv4/ip_local_port_range")
        .ok()
        .and_then(|range| range.split_whitespace().next()?.parse::<u64>().ok());
    let end = lowest_outgoing.unwrap_or(32_768).clamp(12_000, 32_768);
    (0..1_000)
        .map(|attempt| 10_000 + RandomState::new().hash_one(attempt) % (end - 10_000))
        .filter_map(|port| u16::try_from(port).ok())
        .find(|port| TcpListener::bind(("127.0.0.1", *port)).is_ok())
        .expect("one port in a thousand tries is free")
}

/// A process as `/proc/PID/stat` describes it.
pub struct Stat {
    pub pid: u32,
    /// `T` is stopped, `Z` is a zombie.
    pub state: String,
    pub parent: u32,
    /// Clock ticks since the machine's start.
    pub start_time: u64,
}

impl Stat {
    pub fn of(pid: u32) -> Option<Self> {
        let line = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        // The name, in brackets, may itself hold spaces and brackets.
        let fields: Vec<&str> = line.rsplit_once(')')?.1.split_whitespace().collect();
        Some(Self {
            pid,
            state: (*fields.first()?).to_owned(),
            parent: fields.get(1)?.parse().ok()?,
            start_time: fields.get(19)?.parse().ok()?,
        })
    }

    /// Every process of the machine.
    pub fn all() -> Vec<Self> {
        let entries = fs::read_dir("/proc").expect("/proc is mounted").flatten();
        entries
            .filter_map(|entry| Self::of(entry.file_name().to_str()?.parse().ok()?))
            .collect()
    }
}
