//! `PgBouncer` in session mode, before a `PostgreSQL` of the run.

use std::{fs, net::TcpStream, ops::Deref, os::unix::process::CommandExt};

use super::{
    postgres::{Postgres, owner},
    process::{Process, on_a_free_port},
    run::{self, program, run},
};

pub struct PgBouncer {
    port: u16,
    process: Process,
}

impl PgBouncer {
    pub fn before(postgres: &Postgres) -> Self {
        let bouncer = program("pgbouncer", "pgbouncer", &["/usr/sbin".into()]);
        let (name, folder) = run().new_folder("pgbouncer");
        on_a_free_port(|port| {
            let settings = format!(
                "[databases]\n* = host=127.0.0.1 port={} user=postgres\n\
                 [pgbouncer]\nlisten_addr = 127.0.0.1\nlisten_port = {port}\nunix_socket_dir =\nauth_type = any\n\
                 pool_mode = session\ndefault_pool_size = 60\nmax_client_conn = 200\n\
                 ignore_startup_parameters = extra_float_digits,options\n",
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
            Ok(Self { port, process })
        })
    }

    /// The same database, through this.
    pub fn url(&self, database_url: &str) -> String {
        let (_, database) = database_url.rsplit_once('/').expect("a URL");
        format!("postgres://postgres@127.0.0.1:{}/{database}", self.port)
    }
}

impl Deref for PgBouncer {
    type Target = Process;

    fn deref(&self) -> &Process {
        &self.process
    }
}
