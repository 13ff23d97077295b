//! The blocks of docs/backup.md, and the servers that they are run on. What a test replaces in them is what differs from one
//! machine to the next: folders, the name of a backup, the moment.

use std::{
    ffi::OsString,
    fs,
    os::unix::fs::symlink,
    path::{Path, PathBuf},
    process::Command,
};

use crate::{
    docs::pages::{ROOT, blocks, read},
    servers::{
        Postgres,
        run::{is_root, path, run},
        search_path,
    },
    support::{Backend, eventually},
};

/// The programs of PostgreSQL that Debian has on everybody's `PATH`, and that the page uses.
const ON_THE_PATH: [&str; 2] = ["psql", "pg_basebackup"];

/// The block of docs/backup.md that is marked with this word.
pub fn block(word: &str) -> String {
    let all = blocks(&read("docs/backup.md"));
    let mut marked = all.into_iter().filter(|block| block.is(word));
    let block = marked.next().unwrap_or_else(|| panic!("no block is marked {word}"));
    assert!(marked.next().is_none(), "two blocks are marked {word}");
    block.body
}

/// Runs a script as somebody who looks after the shop does, beside its program.
pub fn run_script(script: &str, folder: &Path, backend: &Backend) {
    let program = Path::new(env!("CARGO_BIN_EXE_shop")).parent().expect("a folder");
    let mut path = program.as_os_str().to_owned();
    path.push(":");
    path.push(search_path());

    let mut bash = Command::new("bash");
    bash.args(["-euo", "pipefail", "-c", script])
        .current_dir(folder)
        .env("PATH", path)
        .env("ADMIN_URL", &backend.database_url)
        .envs(backend.environment());
    let output = bash.output().expect("bash is on every machine");
    assert!(
        output.status.success(),
        "{script}\n{}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
}

/// PostgreSQL with an archive of its log, and a shop on it.
pub struct Drill {
    pub postgres: Postgres,
    pub backend: Backend,
    /// Where the page has `/var/backups/shop`.
    backups: PathBuf,
    /// Of the user postgres.
    path: OsString,
}

impl Drill {
    pub fn start() -> Self {
        let (_, folder) = run().new_folder("backups");
        let backups = folder.join("shop");
        let mut backend = Backend::servers();

        let mut prepare = block("drill-prepare").replace("/var/backups/shop", &backups.display().to_string());
        if !is_root() {
            // The servers then run as whoever runs the tests.
            prepare = prepare.replace("-o postgres -g postgres", "-o $(id -un) -g $(id -gn)");
        }
        run_script(&prepare, &folder, &backend);
        let archive = block("drill-archive").replace("/var/backups/shop", &backups.display().to_string());
        let postgres = Postgres::start_with(&archive);

        backend.database_url = postgres.create_database();
        Self {
            postgres,
            backend,
            backups,
            path: debian_path(&folder),
        }
    }

    /// The block, for this server's folders.
    fn block(&self, word: &str) -> String {
        block(word)
            .replace("/var/backups/shop", &self.backups.display().to_string())
            .replace(
                "/var/lib/postgresql/15/main",
                &self.postgres.data_folder().display().to_string(),
            )
            .replace(
                "/usr/lib/postgresql/15/bin",
                &Postgres::folder_of("pg_verifybackup").display().to_string(),
            )
    }

    fn run_as_postgres(&self, script: &str) {
        self.postgres.run_script(script, &self.path);
    }

    pub fn back_up(&self) {
        self.run_as_postgres(&self.block("drill-backup"));
    }

    /// The name of the last backup.
    fn last_backup(&self) -> String {
        let entries = fs::read_dir(&self.backups).expect("a folder").flatten();
        let names = entries.map(|entry| entry.file_name().into_string().expect("UTF-8"));
        let last = names.filter(|name| name.starts_with("base-")).max();
        last.expect("a backup was taken")
    }

    /// A product that is not in the ledger's way: it has no units.
    pub fn add_product(&self, name: &str) {
        let add = format!("INSERT INTO products (name, price, stock) VALUES ('{name}', 100, 0)");
        self.postgres.psql(&self.backend.database_url, &add);
    }

    /// The names of all products, in the order in which they were added.
    pub fn products(&self) -> Vec<String> {
        let names = self
            .postgres
            .psql(&self.backend.database_url, "SELECT name FROM products ORDER BY id");
        names.lines().map(str::to_owned).collect()
    }

    fn psql(&self, sql: &str) -> String {
        self.postgres.psql(&self.postgres.maintenance_url(), sql)
    }

    /// This moment, as a setting of the recovery.
    pub fn moment(&self, target: &str) -> String {
        let value = if target == "recovery_target_time" {
            self.psql("SELECT clock_timestamp()")
        } else {
            self.psql("SELECT pg_create_restore_point('before-the-mistake')");
            "before-the-mistake".to_owned()
        };
        format!("{target} = '{value}'")
    }

    /// Waits until the archive has all that was written until now.
    pub async fn archive_log(&self) {
        let written = self.psql("SELECT pg_walfile_name(pg_current_wal_insert_lsn())");
        self.psql("SELECT pg_switch_wal()");
        eventually("the log is archived", || async {
            let archived = self.psql("SELECT last_archived_wal FROM pg_stat_archiver");
            (archived >= written).then_some(())
        })
        .await;
    }

    /// Restores the database to `moment`, and does what is to be done after that.
    pub async fn restore(&self, moment: &str) {
        let mut script = self.block("drill-restore");
        for (shown, here) in [
            ("recovery_target_time = '2026-11-25 15:58:29.789668+00'", moment),
            ("base-20261125T030000Z", &self.last_backup()),
        ] {
            assert!(script.contains(shown), "{script}");
            script = script.replace(shown, here);
        }

        self.postgres.stop();
        self.run_as_postgres(&script);
        self.postgres.start_again();
        eventually("the recovery is over", || async {
            (self.psql("SELECT pg_is_in_recovery()") == "f").then_some(())
        })
        .await;
        self.run_as_postgres(&self.block("drill-promoted"));
        run_script(&self.block("drill-after"), Path::new(ROOT), &self.backend);
    }
}

/// `PATH` as Debian has it, with links to the programs of the server's version.
fn debian_path(folder: &Path) -> OsString {
    let links = folder.join("bin");
    fs::create_dir(&links).expect("the folder is new");
    for name in ON_THE_PATH {
        symlink(Postgres::folder_of(name).join(name), links.join(name)).expect("the folder is new");
    }
    format!("{}:{}", links.display(), path()).into()
}
