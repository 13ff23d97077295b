//! A `PostgreSQL` cluster with the durability it has by default: tests of a crash rely on it.

use std::{
    env,
    ffi::{OsStr, OsString},
    fs::{self, Permissions},
    ops::Deref,
    os::unix::{
        fs::{PermissionsExt, chown},
        process::CommandExt,
    },
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::atomic::{AtomicUsize, Ordering},
};

use super::{
    process::{PortTaken, Process, on_a_free_port},
    run::{self, chosen, folders_in, is_root, program, run},
};

pub struct Postgres {
    port: u16,
    folder: PathBuf,
    databases: AtomicUsize,
    process: Process,
}

impl Postgres {
    pub fn start() -> Self {
        Self::start_with("")
    }

    /// With `settings` as further lines of `postgresql.conf`.
    pub fn start_with(settings: &str) -> Self {
        let (name, folder) = run().new_folder("postgres");
        init(&folder);
        let file = folder.join("postgresql.conf");
        let defaults = fs::read_to_string(&file).expect("it was made by initdb");
        fs::write(&file, format!("{defaults}\n{settings}\n")).expect("the folder is ours");
        on_a_free_port(|port| Self::start_on(port, &name, &folder))
    }

    /// A standby that follows this server, and answers reads.
    pub fn start_standby(&self) -> Self {
        let (name, folder) = run().new_folder("postgres");
        give_away(&folder);
        fs::set_permissions(&folder, Permissions::from_mode(0o700)).expect("the folder is ours");
        self.back_up_to(&folder);
        on_a_free_port(|port| Self::start_on(port, &name, &folder))
    }

    /// A base backup by SQL, since packages that bring nothing but a server have no `pg_basebackup`, and one of another version
    /// refuses. The standby finds what is missing in the primary's log.
    fn back_up_to(&self, folder: &Path) {
        let (from, to) = (self.folder.display(), folder.display());
        let mut backup = psql(
            &self.folder,
            &self.maintenance_url(),
            "SELECT pg_backup_start('standby', true)",
        );
        backup
            .args(["-c", &format!("\\! cp -a {from}/. {to} && rm -f {to}/postmaster.*")])
            .args(["-c", &format!("\\o {to}/backup_label")])
            .args(["-c", "SELECT labelfile FROM pg_backup_stop(false)"]);
        run().output(&mut backup);

        let file = folder.join("postgresql.auto.conf");
        let settings = fs::read_to_string(&file).expect("it was copied");
        let primary = format!("primary_conninfo = '{}'", self.maintenance_url());
        fs::write(&file, format!("{settings}\n{primary}\n")).expect("the folder is ours");
        fs::write(folder.join("standby.signal"), "").expect("the folder is ours");
    }

    /// Makes a standby the primary.
    pub fn promote(&self) {
        self.psql(&self.maintenance_url(), "SELECT pg_promote()");
    }

    /// Refuses writes on all connections from now on, as a primary does that was demoted and stays up.
    pub fn refuse_writes(&self) {
        let url = self.maintenance_url();
        self.psql(&url, "ALTER SYSTEM SET default_transaction_read_only = on");
        self.psql(&url, "SELECT pg_reload_conf()");
    }

    /// Ends the sessions of all other clients.
    pub fn end_sessions(&self) {
        let end = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE pid <> pg_backend_pid() AND application_name = 'shop'";
        self.psql(&self.maintenance_url(), end);
    }

    pub fn port(&self) -> u16 {
        self.port
    }

    /// The URL of a database of this server.
    pub fn url_of(&self, database_url: &str) -> String {
        let (_, database) = database_url.rsplit_once('/').expect("a URL");
        url(self.port, database)
    }

    /// A file below the data directory, such as a log.
    pub fn read_file(&self, path: &str) -> String {
        let file = self.folder.join(path);
        fs::read_to_string(&file).unwrap_or_else(|error| panic!("{}: {error}", file.display()))
    }

    /// The database that administrators connect to.
    pub fn maintenance_url(&self) -> String {
        url(self.port, "postgres")
    }

    /// A fresh database, by its URL.
    pub fn create_database(&self) -> String {
        let number = self.databases.fetch_add(1, Ordering::Relaxed);
        let name = format!("shop_{number}");
        self.psql(&url(self.port, "postgres"), &format!("CREATE DATABASE {name}"));
        url(self.port, &name)
    }

    /// A superuser who has to give a password, unlike all other users.
    pub fn require_password(&self, user: &str, password: &str) {
        let create = format!("CREATE ROLE {user} SUPERUSER LOGIN PASSWORD '{password}'");
        self.psql(&url(self.port, "postgres"), &create);
        self.ask_for_passwords(user);
    }

    /// These users, with commas between them, have to give a password from now on.
    pub fn ask_for_passwords(&self, users: &str) {
        let file = self.folder.join("pg_hba.conf");
        let others = fs::read_to_string(&file).expect("it was made by initdb");
        fs::write(&file, format!("host all {users} 127.0.0.1/32 scram-sha-256\n{others}")).expect("ours");
        self.psql(&url(self.port, "postgres"), "SELECT pg_reload_conf()");
    }

    /// The output of `psql` for `sql`: a line a row, `|` between columns, no heading. Panics when it fails.
    pub fn psql(&self, url: &str, sql: &str) -> String {
        let mut psql = psql(&self.folder, url, sql);
        run().output(&mut psql).trim_end().to_owned()
    }

    /// Runs a shell script as an administrator on the machine of the server does: as the user whom its files belong to, with
    /// `path` as its `PATH`.
    pub fn run_script(&self, script: &str, path: &OsStr) {
        let mut bash = command("bash", &self.folder);
        bash.env("PATH", path)
            .envs([("PGHOST", "127.0.0.1"), ("PGUSER", "postgres")])
            .env("PGPORT", self.port.to_string())
            .args(["-euo", "pipefail", "-c", script]);
        run().output(&mut bash);
    }

    pub fn data_folder(&self) -> &Path {
        &self.folder
    }

    /// The folder that this program of the server is in.
    pub fn folder_of(name: &str) -> PathBuf {
        let program = program(name, "postgresql", &program_folders());
        program.parent().expect("a folder").to_owned()
    }

    fn start_on(port: u16, name: &str, folder: &Path) -> Result<Self, PortTaken> {
        let mut command = command("postgres", folder);
        // No socket file: its path would be too long in some temporary folders. Shared memory in files: that in
        // /dev/shm is small in a container, and stays behind when the server is killed.
        command
            .arg("-D")
            .arg(folder)
            .args(["-p", &port.to_string(), "-c", "listen_addresses=127.0.0.1"])
            .args(["-c", "unix_socket_directories=", "-c", "max_connections=300"])
            .args(["-c", "dynamic_shared_memory_type=mmap"]);

        let probed = folder.to_owned();
        // SIGINT is the fast shutdown, which does not wait for clients to disconnect.
        let process = Process::start(name.to_owned(), command, "INT", move || {
            let mut psql = psql(&probed, &url(port, "postgres"), "SELECT 1");
            let status = psql.stdout(Stdio::null()).stderr(Stdio::null()).status();
            status.is_ok_and(|status| status.success())
        })?;
        Ok(Self {
            port,
            folder: folder.to_owned(),
            databases: AtomicUsize::new(1),
            process,
        })
    }
}

impl Deref for Postgres {
    type Target = Process;

    fn deref(&self) -> &Process {
        &self.process
    }
}

fn url(port: u16, database: &str) -> String {
    format!("postgres://postgres@127.0.0.1:{port}/{database}")
}

/// Gives a folder to the user whom the server runs as.
fn give_away(folder: &Path) {
    if let Some((user, group)) = owner() {
        chown(folder, Some(user), Some(group)).expect("root may give its folder away");
    }
}

fn init(folder: &Path) {
    give_away(folder);
    // Not synced: the cluster exists before any crash that a test causes.
    let mut initdb = command("initdb", folder);
    initdb
        .arg("-D")
        .arg(folder)
        .args(["--username=postgres", "--auth=trust", "--encoding=UTF8"])
        .args(["--no-locale", "--no-sync"]);
    run().output(&mut initdb);
}

fn psql(folder: &Path, url: &str, sql: &str) -> Command {
    let mut psql = command("psql", folder);
    psql.env("PGCONNECT_TIMEOUT", "10")
        .args(["-X", "-q", "-A", "-t", "-v", "ON_ERROR_STOP=1", "-d", url])
        .args(["-c", sql]);
    psql
}

/// A program of the `PostgreSQL` that `TEST_POSTGRES_BIN` names, else of the newest on the machine, run as a user who may run
/// it.
fn command(name: &str, folder: &Path) -> Command {
    let mut command = run::command(&program(name, "postgresql", &program_folders()), folder);
    if let Some((user, group)) = owner() {
        command.uid(user).gid(group);
    }
    command
}

/// Where the programs of `PostgreSQL` are: those that were chosen, then the newest version first.
fn program_folders() -> Vec<PathBuf> {
    let mut installed = folders_in("/usr/lib/postgresql", "bin");
    installed.sort_by_key(|bin| std::cmp::Reverse(version(bin)));
    chosen("TEST_POSTGRES_BIN").into_iter().chain(installed).collect()
}

/// `PATH`, with the programs of the newest `PostgreSQL` first.
pub fn search_path() -> OsString {
    let path = run::path();
    let folders = program_folders().into_iter().chain(env::split_paths(&path));
    env::join_paths(folders).expect("they come from PATH")
}

/// 15 for `/usr/lib/postgresql/15/bin`.
fn version(bin: &Path) -> Option<u32> {
    bin.parent()?.file_name()?.to_str()?.parse().ok()
}

/// The ids of the user and group that stand in for root, as whom `PostgreSQL` refuses to run.
pub fn owner() -> Option<(u32, u32)> {
    if !is_root() {
        return None;
    }
    let users = fs::read_to_string("/etc/passwd").expect("every system has users");
    let ids = users.lines().find_map(|line| {
        let mut fields = line.strip_prefix("postgres:")?.split(':').skip(1);
        Some((fields.next()?.parse().ok()?, fields.next()?.parse().ok()?))
    });
    Some(ids.expect(
        "PostgreSQL does not run as root, and there is no user `postgres` to run it as: `apt-get install postgresql`, \
         or run the tests as another user",
    ))
}
