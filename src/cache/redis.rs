//! Redis as the shared tier of the cache. A command takes a few milliseconds at most and fails at once while there is no
//! connection; the caller then reads from the database. What is read there is served only if it is whole: Redis is trusted
//! with nothing.

use std::{
    future::Future,
    hash::{DefaultHasher, Hash as _, Hasher as _},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use bytes::{BufMut as _, Bytes, BytesMut};
use fred::{
    clients::{Client, WithOptions},
    interfaces::{ClientLike as _, EventInterface as _, KeysInterface as _},
    types::{
        Builder, ClusterHash, CustomCommand, Expiration, SetOptions, Value,
        config::{Config, Options, ReconnectPolicy, Server},
    },
};
use tokio::{
    sync::broadcast::{Receiver, error::RecvError},
    time::timeout,
};
use uuid::Uuid;

use super::SettledOrder;
use crate::{
    domain::{Error, OrderId},
    telemetry::metrics::CACHE,
};

/// How long a command may take.
const COMMAND_TIMEOUT: Duration = Duration::from_millis(20);
/// When the client forgets a script that nobody waits for any more.
const SCRIPT_TIMEOUT: Duration = Duration::from_millis(500);
/// How long the commands of a ping may take. No request waits for them.
const PING_TIMEOUT: Duration = Duration::from_secs(1);
const PING_TTL_MS: i64 = 10_000;
/// How long setting the first generation may take, which is two commands: with the one before them, a request waits for
/// the cache for less than 50 ms.
const FIRST_GENERATION_TIMEOUT: Duration = Duration::from_millis(25);
/// The most commands that wait for the connection; any further one fails at once.
const MAX_QUEUED_COMMANDS: usize = 2_000;
/// The first pause between two attempts to connect, doubled after each, and the longest.
const MIN_RECONNECT_MS: u32 = 50;
const MAX_RECONNECT_MS: u32 = 1_000;
/// What wrote an entry, and how; part of its key, so that two versions of the program never read each other's. The generation is
/// the same for all of them.
const FORMAT: &str = concat!(env!("CARGO_PKG_VERSION"), "-2");
const GENERATION_BYTES: usize = 16;
const CHECKSUM_BYTES: usize = 8;
const USER_ID_BYTES: usize = 8;

#[derive(Clone)]
pub(super) struct Redis {
    client: Client,
    /// How every key begins, so that rules of access can name them.
    prefix: String,
    ttl: Duration,
    last_connection_error: Arc<Mutex<Option<String>>>,
}

impl Redis {
    pub(super) fn new(url: &str, prefix: &str, ttl: Duration) -> Result<Self, String> {
        /// Of connecting, and of the commands that the client itself sends for that.
        const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);

        let mut config = Config::from_url(url).map_err(|error| error.details().to_owned())?;
        config.fail_fast = false;
        let mut builder = Builder::from_config(config);
        builder
            .with_performance_config(|performance| performance.default_command_timeout = COMMAND_TIMEOUT)
            .with_connection_config(|connection| {
                connection.connection_timeout = CONNECT_TIMEOUT;
                connection.internal_command_timeout = CONNECT_TIMEOUT;
                connection.max_command_attempts = 1;
                connection.max_command_buffer_len = MAX_QUEUED_COMMANDS;
                connection.unresponsive.max_timeout = Some(CONNECT_TIMEOUT);
            })
            .set_policy(ReconnectPolicy::new_exponential(
                0,
                MIN_RECONNECT_MS,
                MAX_RECONNECT_MS,
                2,
            ));
        let client = builder.build().map_err(|error| error.details().to_owned())?;

        let last_connection_error = Arc::default();
        tokio::spawn(keep_last_error(client.error_rx(), Arc::clone(&last_connection_error)));
        // The task reconnects by itself and ends with the client.
        drop(client.connect());
        Ok(Self {
            client,
            prefix: prefix.to_owned(),
            ttl,
            last_connection_error,
        })
    }

    /// The page from Redis if it was stored under the present generation, else from `load`. The generation is read before
    /// the database is, so a slow reader never stores an old page under a newer generation. `database` is a part of its
    /// identity.
    pub(super) async fn page<F>(&self, database: &str, key: &str, load: F) -> Result<Bytes, Error>
    where
        F: Future<Output = Result<Bytes, Error>>,
    {
        let generation_key = self.generation_key(database);
        let page_key = self.key(database, &format!("page:{FORMAT}:{key}"));
        let found = self
            .fail_fast()
            .mget(vec![generation_key.clone(), page_key.clone()])
            .await;

        let found: Option<(Option<Bytes>, Option<Bytes>)> = found.ok();
        let generation = match found {
            Some((Some(generation), stored)) if generation.len() == GENERATION_BYTES => {
                if let Some(page) = stored.and_then(|stored| read_page(&page_key, &generation, &stored)) {
                    CACHE.shared_pages.increment(1);
                    return Ok(page);
                }
                Some(generation)
            }
            // None, or something that is none.
            Some((stored, _)) => timeout(FIRST_GENERATION_TIMEOUT, self.first_generation(&generation_key, stored))
                .await
                .ok()
                .flatten(),
            None => None,
        };

        let body = load.await?;
        if let Some(generation) = generation {
            let stored = seal(&page_key, &[&generation, &body]);
            self.store_in_background(page_key, stored, self.ttl);
        }
        Ok(body)
    }

    pub(super) async fn invalidate_pages(&self, database: &str) {
        let (client, key) = (self.fail_fast(), self.generation_key(database));
        let set: Result<(), _> = client.set(key, new_generation(), None, None, false).await;
        if let Err(error) = set {
            tracing::debug!(%error, "could not invalidate the shared cache; its pages are stale until they expire");
        }
    }

    pub(super) async fn order(&self, database: &str, id: OrderId) -> Option<SettledOrder> {
        let key = self.order_key(database, id);
        let stored: Option<Bytes> = self.fail_fast().get(&key).await.ok()?;

        let content = unseal(&key, &stored?)?;
        let (user_id, body) = content.split_at_checked(USER_ID_BYTES)?;
        Some(SettledOrder {
            user_id: i64::from_be_bytes(user_id.try_into().ok()?),
            body: content.slice_ref(body),
        })
    }

    pub(super) fn put_order(&self, database: &str, id: OrderId, order: &SettledOrder, ttl: Duration) {
        let key = self.order_key(database, id);
        let stored = seal(&key, &[&order.user_id.to_be_bytes(), &order.body]);
        self.store_in_background(key, stored, ttl);
    }

    /// Runs a Lua script on the one key `name` of `database`, and gives the strings that it returns. Sent as a
    /// custom command, because the client's own `eval` heeds no options and holds up every other command until it is
    /// answered. The caller bounds how long it waits.
    pub(super) async fn eval(
        &self,
        script: &'static str,
        database: &str,
        name: &str,
        arguments: Vec<String>,
    ) -> Result<Vec<Bytes>, String> {
        /// Where the key stands among the arguments: behind the script and the number of keys.
        const KEY: ClusterHash = ClusterHash::Offset(2);

        let first: [Value; 3] = [script.into(), 1.into(), self.key(database, name).into()];
        let arguments = first.into_iter().chain(arguments.into_iter().map(Value::from));

        let command = CustomCommand::new_static("EVAL", KEY, false);
        let client = self.with_timeout(SCRIPT_TIMEOUT);
        let answer = client.custom(command, arguments.collect()).await;
        answer.map_err(|error| error.details().to_owned())
    }

    pub(super) async fn until_connected(&self, max_wait: Duration) {
        let _ = timeout(max_wait, self.client.wait_for_connect()).await;
    }

    /// Stores something and reads it: a Redis may answer PING and refuse everything else. Where there is no connection, the
    /// error says why the last attempt at one has failed.
    pub(super) async fn ping(&self) -> Result<(), String> {
        let client = self.with_timeout(PING_TIMEOUT);
        let key = format!("{prefix}:ping", prefix = self.prefix);
        let ping = async {
            let expire = Some(Expiration::PX(PING_TTL_MS));
            let _: () = client.set(&key, 1, expire, None, false).await?;
            let _: Option<Bytes> = client.get(&key).await?;
            Ok::<_, fred::error::Error>(())
        };

        ping.await.map_err(|error| {
            let last = self
                .last_connection_error
                .lock()
                .unwrap_or_else(PoisonError::into_inner);
            match &*last {
                Some(cause) if !self.client.is_connected() => cause.clone(),
                _ => error.details().to_owned(),
            }
        })
    }

    /// Sets the generation unless another process has just set it, and reads the one that was set first. What is stored in its
    /// place and is none is written over.
    async fn first_generation(&self, key: &str, stored: Option<Bytes>) -> Option<Bytes> {
        let unless_set = stored.is_none().then_some(SetOptions::NX);
        let set: Result<(), _> = self
            .fail_fast()
            .set(key, new_generation(), None, unless_set, false)
            .await;
        set.ok()?;

        let generation: Option<Bytes> = self.fail_fast().get(key).await.ok()?;
        generation.filter(|generation| generation.len() == GENERATION_BYTES)
    }

    fn store_in_background(&self, key: String, value: Bytes, ttl: Duration) {
        let client = self.clone();
        tokio::spawn(async move {
            let expire = Expiration::PX(i64::try_from(ttl.as_millis()).unwrap_or(i64::MAX));
            let stored: Result<(), _> = client.fail_fast().set(key, value, Some(expire), None, false).await;
            stored.ok()
        });
    }

    /// Fails at once without a connection, and after [`COMMAND_TIMEOUT`] with one.
    fn fail_fast(&self) -> WithOptions<Client> {
        self.with_timeout(COMMAND_TIMEOUT)
    }

    fn with_timeout(&self, max_wait: Duration) -> WithOptions<Client> {
        self.client.with_options(&Options {
            fail_fast: true,
            timeout: Some(max_wait),
            max_attempts: Some(1),
            ..Default::default()
        })
    }

    fn generation_key(&self, database: &str) -> String {
        self.key(database, "generation")
    }

    fn order_key(&self, database: &str, id: OrderId) -> String {
        self.key(database, &format!("order:{FORMAT}:{id}"))
    }

    /// In braces a hash tag: all keys of one database live on one node of a cluster and can be read by one command.
    fn key(&self, database: &str, name: &str) -> String {
        format!("{prefix}:{{{database}}}:{name}", prefix = self.prefix)
    }
}

/// Keeps why an attempt to connect has failed, until the client ends.
async fn keep_last_error(mut errors: Receiver<(fred::error::Error, Option<Server>)>, last: Arc<Mutex<Option<String>>>) {
    loop {
        match errors.recv().await {
            Ok((error, _)) => {
                *last.lock().unwrap_or_else(PoisonError::into_inner) = Some(error.details().to_owned());
            }
            Err(RecvError::Lagged(_)) => {}
            Err(RecvError::Closed) => return,
        }
    }
}

/// The parts, after a checksum of them and of the key that they are stored under.
fn seal(key: &str, parts: &[&[u8]]) -> Bytes {
    let content = parts.concat();
    let mut stored = BytesMut::with_capacity(CHECKSUM_BYTES + content.len());
    stored.put_u64(checksum(key, &content));
    stored.put(&*content);
    stored.freeze()
}

/// What was sealed for this key, unless somebody has stored something else there.
fn unseal(key: &str, stored: &Bytes) -> Option<Bytes> {
    let (sum, content) = stored.split_at_checked(CHECKSUM_BYTES)?;
    let is_whole = u64::from_be_bytes(sum.try_into().ok()?) == checksum(key, content);
    is_whole.then(|| stored.slice_ref(content))
}

/// The page, if it was stored under this generation.
fn read_page(key: &str, generation: &[u8], stored: &Bytes) -> Option<Bytes> {
    let content = unseal(key, stored)?;
    let page = content.strip_prefix(generation)?;
    Some(content.slice_ref(page))
}

/// Not a secret: it finds what was damaged or put there by mistake.
fn checksum(key: &str, content: &[u8]) -> u64 {
    let mut hasher = DefaultHasher::new();
    (key, content).hash(&mut hasher);
    hasher.finish()
}

/// Random and not a counter, which would start again after Redis has lost its data and meet pages of old generations.
fn new_generation() -> Bytes {
    Bytes::copy_from_slice(Uuid::new_v4().as_bytes())
}
