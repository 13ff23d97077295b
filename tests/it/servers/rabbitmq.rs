//! A `RabbitMQ` node, and the port mapper (`epmd`) of the run, by which nodes and `rabbitmqctl` find each other.
//! The run starts its own mapper, because Erlang would otherwise leave a daemon behind or use one that runs already.

use std::{
    fs,
    hash::{BuildHasher, RandomState},
    net::TcpStream,
    ops::Deref,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::{self, Command},
    sync::OnceLock,
};

use super::{
    process::{Process, on_a_free_port},
    redis::request,
    run::{self, chosen, folders_in, free_port, program, run},
};

/// A node of the installed version, with the durability it has by default.
///
/// A kill within a second after the declaration of a quorum queue loses the queue for good (seen with 3.10: the table of
/// their names is written out every half second). A test that kills a node declares its queues first and waits a second.
pub struct RabbitMq {
    node: String,
    port: u16,
    process: Process,
}

impl RabbitMq {
    pub fn start() -> Self {
        let (name, folder) = run().new_folder("rabbitmq");
        let node = format!("shop-test-{}-{name}@localhost", process::id());
        Self::start_named(&node, &name, &folder)
    }

    /// `size` nodes, joined to one cluster.
    pub fn start_cluster(size: usize) -> Vec<Self> {
        let nodes: Vec<Self> = (0..size).map(|_| Self::start()).collect();
        for joining in &nodes[1..] {
            for step in [
                &["stop_app"][..],
                &["reset"],
                &["join_cluster", &nodes[0].node],
                &["start_app"],
            ] {
                joining.ctl(step);
            }
        }
        nodes
    }

    pub fn url(&self) -> String {
        format!("amqp://guest:guest@{}/%2f", self.host())
    }

    /// Address and port.
    pub fn host(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    /// The output of `rabbitmqctl` for this node. Panics when it fails.
    pub fn ctl(&self, args: &[&str]) -> String {
        let mut ctl = command("rabbitmqctl", &run().folder);
        // The command line tool is a node too, and would listen on a fixed port.
        let port = free_port().to_string();
        ctl.env("RABBITMQ_CTL_DIST_PORT_MIN", &port)
            .env("RABBITMQ_CTL_DIST_PORT_MAX", &port)
            .args(["--quiet", "--node", &self.node])
            .args(args);
        run().output(&mut ctl).trim_end().to_owned()
    }

    /// Nodes of one run share the cookie and `epmd`, and may so be joined to a cluster with [`RabbitMq::ctl`].
    fn start_named(node: &str, name: &str, folder: &Path) -> Self {
        fs::write(folder.join("plugins"), "[].").expect("the folder is ours");
        for empty in ["rabbitmq.conf", "rabbitmq-env.conf"] {
            fs::write(folder.join(empty), "").expect("the folder is ours");
        }
        on_a_free_port(|port| {
            let process = Process::start(name.to_owned(), server(node, folder, port), "TERM", move || {
                speaks_amqp(port)
            })?;
            let node = node.to_owned();
            Ok(Self { node, port, process })
        })
    }
}

impl Deref for RabbitMq {
    type Target = Process;

    fn deref(&self) -> &Process {
        &self.process
    }
}

fn server(node: &str, folder: &Path, port: u16) -> Command {
    let mut server = command("rabbitmq-server", folder);
    server
        .env("RABBITMQ_NODENAME", node)
        .env("RABBITMQ_NODE_IP_ADDRESS", "127.0.0.1")
        .env("RABBITMQ_NODE_PORT", port.to_string())
        .env("RABBITMQ_DIST_PORT", free_port().to_string())
        .env("RABBITMQ_MNESIA_BASE", folder.join("data"))
        .env("RABBITMQ_LOG_BASE", folder.join("log"))
        .env("RABBITMQ_LOGS", "-")
        .env("RABBITMQ_CONFIG_FILE", folder.join("rabbitmq.conf"))
        .env("RABBITMQ_ADVANCED_CONFIG_FILE", folder.join("advanced.config"))
        .env("RABBITMQ_ENABLED_PLUGINS_FILE", folder.join("plugins"))
        .env("RABBITMQ_CONF_ENV_FILE", folder.join("rabbitmq-env.conf"))
        // The script then becomes the server; otherwise a shell waits for it and takes the signals.
        .env("RUNNING_UNDER_SYSTEMD", "true")
        .env(
            "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS",
            "+S 2:2 +SDcpu 2:2 +SDio 2 +A 4 +sbwt none +sbwtdcpu none +sbwtdio none \
             -kernel inet_dist_use_interface {127,0,0,1}",
        );
    server
}

/// A program of the `RabbitMQ` that `TEST_RABBITMQ_BIN` names, else of the installed one, past the wrapper in `/usr/sbin` that
/// changes to a user and a folder of its own.
fn command(name: &str, folder: &Path) -> Command {
    let mut folders: Vec<PathBuf> = chosen("TEST_RABBITMQ_BIN").into_iter().collect();
    folders.push(PathBuf::from("/usr/lib/rabbitmq/bin"));
    folders.extend(folders_in("/usr/lib/rabbitmq/lib", "sbin"));
    folders.push(PathBuf::from("/opt/rabbitmq/sbin"));
    let mut command = run::command(&program(name, "rabbitmq-server", &folders), folder);
    command
        .env("HOME", erlang_home())
        .env("ERL_EPMD_ADDRESS", "127.0.0.1")
        .env("ERL_EPMD_PORT", epmd_port().to_string());
    command
}

/// The home of all nodes of the run, with the cookie that they authenticate each other by.
fn erlang_home() -> &'static Path {
    static HOME: OnceLock<PathBuf> = OnceLock::new();
    HOME.get_or_init(|| {
        let (_, home) = run().new_folder("erlang");
        let cookie = home.join(".erlang.cookie");
        let secret = RandomState::new().hash_one(process::id());
        fs::write(&cookie, format!("{secret:020}")).expect("the folder is ours");
        fs::set_permissions(&cookie, fs::Permissions::from_mode(0o400)).expect("the file is ours");
        home
    })
}

fn epmd_port() -> u16 {
    static EPMD: OnceLock<(Process, u16)> = OnceLock::new();
    EPMD.get_or_init(|| {
        let epmd = program("epmd", "erlang-base", &folders_in("/usr/lib/erlang", "bin"));
        let (name, folder) = run().new_folder("epmd");
        on_a_free_port(|port| {
            let number = port.to_string();
            let mut command = run::command(&epmd, &folder);
            command.args(["-address", "127.0.0.1", "-port", &number]);
            let process = Process::start(name.clone(), command, "TERM", move || {
                TcpStream::connect(("127.0.0.1", port)).is_ok()
            })?;
            Ok((process, port))
        })
    })
    .1
}

/// Whether the greeting of AMQP 0-9-1 is answered by Connection.Start: a method frame (1) on channel 0, class 10,
/// method 10.
fn speaks_amqp(port: u16) -> bool {
    request(port, b"AMQP\x00\x00\x09\x01", 11)
        .is_some_and(|frame| frame[..3] == [1, 0, 0] && frame[7..] == [0, 10, 0, 10])
}
