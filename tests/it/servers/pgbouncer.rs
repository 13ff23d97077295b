//! `PgBouncer` before a `PostgreSQL` of the run: in transaction mode from 1.21 on, the first that keeps prepared statements
//! in it; in session mode where the machine has an older one.

use std::{fs, net::TcpStream, ops::Deref, os::unix::process::CommandExt, path::Path, process::Command};

use super::{
    postgres::{Postgres, owner},
    process::{Process, on_a_free_port},
    run::{self, program, run},
};

pub struct PgBouncer {
    port: u16,
    /// `transaction` or `session`.
    pub pool_mode: &'static str,
    process: Process,
}

impl PgBouncer {
    pub fn before(postgres: &Postgres) -> Self {
        Self::for_role(postgres, "postgres")
    }

    /// Whoever connects, it is `role` that the database sees.
    pub fn for_role(postgres: &Postgres, role: &str) -> Self {
        Self::start(postgres, role, "ignore_startup_parameters = extra_float_digits,options")
    }

    /// As it is without the setting that the documentation asks for.
    pub fn that_refuses_options(postgres: &Postgres) -> Self {
        Self::start(postgres, "postgres", "ignore_startup_parameters = extra_float_digits")
    }

    fn start(postgres: &Postgres, role: &str, ignored: &str) -> Self {
        let bouncer = program("pgbouncer", "pgbouncer", &["/usr/sbin".into()]);
        let (pool_mode, pool) = if keeps_statements(&bouncer) {
            ("transaction", "default_pool_size = 20\nmax_prepared_statements = 100")
        } else {
            ("session", "default_pool_size = 60")
        };
        let (name, folder) = run().new_folder("pgbouncer");

        on_a_free_port(|port| {
            let settings = format!(
                "[databases]\n* = host=127.0.0.1 port={} user={role}\n\
                 [pgbouncer]\nlisten_addr = 127.0.0.1\nlisten_port = {port}\nunix_socket_dir =\nauth_type = any\n\
                 pool_mode = {pool_mode}\n{pool}\nmax_client_conn = 200\n{ignored}\n",
                postgres.port(),
            );
            let file = folder.join("pgbouncer.ini");
            fs::write(&file, settings).expect("the folder is ours");

            let mut command = run::command(&bouncer, &folder);
            command.arg(&file);
            if let Some((user, group)) = owner() {
                command.uid(user).gid(group);
            }

            let process = Process::start(name.clone(), command, "INT", move || {
                TcpStream::connect(("127.0.0.1", port)).is_ok()
            })?;
            Ok(Self {
                port,
                pool_mode,
                process,
            })
        })
    }

    /// The same database, through `PgBouncer`.
    pub fn url(&self, database_url: &str) -> String {
        let (_, database) = database_url.rsplit_once('/').expect("a URL");
        format!("postgres://postgres@127.0.0.1:{}/{database}", self.port)
    }
}

/// Reads `PgBouncer 1.24.1` from the first line of `--version`.
fn keeps_statements(bouncer: &Path) -> bool {
    let output = run().output(Command::new(bouncer).arg("--version"));
    let version = output.split_whitespace().nth(1).unwrap_or_default();
    let mut numbers = version.split('.').map(|number| number.parse::<u32>().unwrap_or(0));
    (numbers.next(), numbers.next()) >= (Some(1), Some(21))
}

impl Deref for PgBouncer {
    type Target = Process;

    fn deref(&self) -> &Process {
        &self.process
    }
}
