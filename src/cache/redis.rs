//! Redis as the shared tier of the cache. A command takes a few milliseconds at most and fails at once while there is no
//! connection; the caller then reads from the database.

use std::{future::Future, time::Duration};

use bytes::{BufMut as _, Bytes, BytesMut};
use fred::{
    clients::Client,
    interfaces::{ClientLike as _, KeysInterface as _},
    types::{
        Builder, Expiration, SetOptions,
        config::{Config, Options, ReconnectPolicy},
    },
};
use tokio::time::timeout;
use uuid::Uuid;

use super::SettledOrder;
use crate::{
    domain::{Error, OrderId},
    telemetry::metrics::CACHE,
};

/// How long a command may take.
const COMMAND_TIMEOUT: Duration = Duration::from_millis(20);
/// How long setting the first generation may take, which is two commands: with the one before them, a request waits for
/// the cache for less than 50 ms.
const FIRST_GENERATION_TIMEOUT: Duration = Duration::from_millis(25);
/// The most commands that wait for the connection; any further one fails at once.
const MAX_QUEUED_COMMANDS: usize = 2_000;
/// The first pause between two attempts to connect, doubled after each, and the longest.
const MIN_RECONNECT_MS: u32 = 50;
const MAX_RECONNECT_MS: u32 = 1_000;
/// The version of the format of what is stored; part of every key, so that two versions of the program never read each
/// other's entries.
const FORMAT: &str = "v1";
const GENERATION_BYTES: usize = 16;
const USER_ID_BYTES: usize = 8;

#[derive(Clone)]
pub(super) struct Redis {
    client: Client,
    /// A hash tag, in braces: all keys live on one node of a cluster and can be read by one command.
    prefix: String,
    ttl: Duration,
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

        // The task reconnects by itself and ends with the client.
        drop(client.connect());
        Ok(Self {
            client,
            prefix: format!("{{{prefix}:{FORMAT}}}"),
            ttl,
        })
    }

    /// The page from Redis if it was stored under the present generation, else from `load`. The generation is read before
    /// the database is, so a slow reader never stores an old page under a newer generation.
    pub(super) async fn page<F>(&self, key: &str, load: F) -> Result<Bytes, Error>
    where
        F: Future<Output = Result<Bytes, Error>>,
    {
        let page_key = format!("{}:page:{key}", self.prefix);
        let found = self
            .fail_fast()
            .mget(vec![self.generation_key(), page_key.clone()])
            .await;

        let found: Option<(Option<Bytes>, Option<Bytes>)> = found.ok();
        let generation = match found {
            Some((Some(generation), Some(stored))) if stored.starts_with(&generation) => {
                CACHE.shared_pages.increment(1);
                return Ok(stored.slice(generation.len()..));
            }
            Some((Some(generation), _)) => Some(generation),
            Some((None, _)) => timeout(FIRST_GENERATION_TIMEOUT, self.first_generation())
                .await
                .ok()
                .flatten(),
            None => None,
        };

        let body = load.await?;
        if let Some(generation) = generation.filter(|generation| generation.len() == GENERATION_BYTES) {
            let mut stored = BytesMut::with_capacity(generation.len() + body.len());
            stored.put(generation);
            stored.put(body.clone());
            self.store_in_background(page_key, stored.freeze(), self.ttl);
        }
        Ok(body)
    }

    pub(super) async fn invalidate_pages(&self) {
        let (client, key) = (self.fail_fast(), self.generation_key());
        let set: Result<(), _> = client.set(key, new_generation(), None, None, false).await;
        if let Err(error) = set {
            tracing::debug!(%error, "could not invalidate the shared cache; its pages are stale until they expire");
        }
    }

    pub(super) async fn order(&self, id: OrderId) -> Option<SettledOrder> {
        let stored: Option<Bytes> = self.fail_fast().get(self.order_key(id)).await.ok()?;

        let stored = stored.filter(|stored| stored.len() > USER_ID_BYTES)?;
        let (user_id, body) = stored.split_at(USER_ID_BYTES);
        Some(SettledOrder {
            user_id: i64::from_be_bytes(user_id.try_into().ok()?),
            body: stored.slice_ref(body),
        })
    }

    pub(super) fn put_order(&self, id: OrderId, order: &SettledOrder, ttl: Duration) {
        let mut stored = BytesMut::with_capacity(USER_ID_BYTES + order.body.len());
        stored.put_i64(order.user_id);
        stored.put(order.body.clone());
        self.store_in_background(self.order_key(id), stored.freeze(), ttl);
    }

    pub(super) async fn ping(&self) -> Result<(), String> {
        let answer: Result<(), _> = self.fail_fast().ping(None).await;
        answer.map_err(|error| error.details().to_owned())
    }

    /// Sets the generation unless another process has just set it, and reads the one that was set first.
    async fn first_generation(&self) -> Option<Bytes> {
        let (client, key) = (self.fail_fast(), self.generation_key());
        let _: Option<String> = client
            .set(&key, new_generation(), None, Some(SetOptions::NX), false)
            .await
            .ok()?;
        client.get(&key).await.ok()?
    }

    /// Stores without making the request wait for it. If it fails, the next request loads again.
    fn store_in_background(&self, key: String, value: Bytes, ttl: Duration) {
        let client = self.clone();
        tokio::spawn(async move {
            let expire = Expiration::PX(i64::try_from(ttl.as_millis()).unwrap_or(i64::MAX));
            let stored: Result<(), _> = client.fail_fast().set(key, value, Some(expire), None, false).await;
            stored.ok()
        });
    }

    /// Fails at once without a connection, and after [`COMMAND_TIMEOUT`] with one.
    fn fail_fast(&self) -> fred::clients::WithOptions<Client> {
        self.client.with_options(&Options {
            fail_fast: true,
            timeout: Some(COMMAND_TIMEOUT),
            max_attempts: Some(1),
            ..Default::default()
        })
    }

    fn generation_key(&self) -> String {
        format!("{}:generation", self.prefix)
    }

    fn order_key(&self, id: OrderId) -> String {
        format!("{}:order:{id}", self.prefix)
    }
}

/// Random and not a counter, which would start again after Redis has lost its data and meet pages of old generations.
fn new_generation() -> Bytes {
    Bytes::copy_from_slice(Uuid::new_v4().as_bytes())
}
