//! Redis as the shared cache, shared by all processes. Every command is bounded by a few milliseconds and fails at once
//! while there is no connection; whoever asked goes to the database instead.

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
    telemetry::metrics::BUSY,
};

/// The most that a command may take.
const COMMAND_TIMEOUT: Duration = Duration::from_millis(20);
/// The most that setting the first generation may take, which is two commands: with the one before them, a request
/// waits for the cache for less than 50 ms.
const FIRST_GENERATION: Duration = Duration::from_millis(25);
/// The most commands that wait for the connection; beyond it they fail.
const MAX_WAITING: usize = 2_000;
/// The longest pause between two attempts to connect.
const MAX_RECONNECT_MS: u32 = 1_000;
/// Changes with the form of what is stored, so that two versions of the program never read each other's entries.
const FORM: &str = "v1";
const GENERATION_BYTES: usize = 16;
const USER_ID_BYTES: usize = 8;

#[derive(Clone)]
pub(super) struct Redis {
    client: Client,
    /// In braces, so that all keys live on one node of a cluster and can be read together.
    prefix: String,
    ttl: Duration,
}

impl Redis {
    pub(super) fn new(url: &str, prefix: &str, ttl: Duration) -> Result<Self, String> {
        let mut config = Config::from_url(url).map_err(|error| error.details().to_owned())?;
        config.fail_fast = false;
        let mut builder = Builder::from_config(config);
        builder
            .with_performance_config(|performance| performance.default_command_timeout = COMMAND_TIMEOUT)
            .with_connection_config(|connection| {
                connection.connection_timeout = Duration::from_secs(2);
                connection.internal_command_timeout = Duration::from_secs(2);
                connection.max_command_attempts = 1;
                connection.max_command_buffer_len = MAX_WAITING;
                connection.unresponsive.max_timeout = Some(Duration::from_secs(2));
            })
            .set_policy(ReconnectPolicy::new_exponential(0, 50, MAX_RECONNECT_MS, 2));
        let client = builder.build().map_err(|error| error.details().to_owned())?;
        // The connection looks after itself from here on; it ends with the client.
        drop(client.connect());
        Ok(Self {
            client,
            prefix: format!("{{{prefix}:{FORM}}}"),
            ttl,
        })
    }

    /// The page from Redis if it was stored under the generation of now, else from `load`. The generation is read
    /// before the database is, so what a slow reader stores is never taken for newer than it is.
    pub(super) async fn page<F>(&self, key: &str, load: F) -> Result<Bytes, Error>
    where
        F: Future<Output = Result<Bytes, Error>>,
    {
        let page_key = format!("{}:page:{key}", self.prefix);
        let found = self.fast().mget(vec![self.generation_key(), page_key.clone()]).await;
        let found: Option<(Option<Bytes>, Option<Bytes>)> = found.ok();
        let generation = match found {
            Some((Some(generation), Some(stored))) if stored.starts_with(&generation) => {
                BUSY.far_pages.increment(1);
                return Ok(stored.slice(generation.len()..));
            }
            Some((Some(generation), _)) => Some(generation),
            Some((None, _)) => timeout(FIRST_GENERATION, self.first_generation()).await.ok().flatten(),
            None => None,
        };
        let body = load.await?;
        if let Some(generation) = generation.filter(|generation| generation.len() == GENERATION_BYTES) {
            let mut stored = BytesMut::with_capacity(generation.len() + body.len());
            stored.put(generation);
            stored.put(body.clone());
            self.store_later(page_key, stored.freeze(), self.ttl);
        }
        Ok(body)
    }

    pub(super) async fn invalidate_pages(&self) {
        let (client, key) = (self.fast(), self.generation_key());
        let set: Result<(), _> = client.set(key, new_generation(), None, None, false).await;
        if let Err(error) = set {
            tracing::debug!(%error, "the cache was not told of a change; its time to live bounds what is stale");
        }
    }

    pub(super) async fn order(&self, id: OrderId) -> Option<SettledOrder> {
        let stored: Option<Bytes> = self.fast().get(self.order_key(id)).await.ok()?;
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
        self.store_later(self.order_key(id), stored.freeze(), ttl);
    }

    pub(super) async fn ping(&self) -> Result<(), String> {
        let answer: Result<(), _> = self.fast().ping(None).await;
        answer.map_err(|error| error.details().to_owned())
    }

    /// When nobody has set a generation yet, the first one to ask does.
    async fn first_generation(&self) -> Option<Bytes> {
        let key = self.generation_key();
        let client = self.fast();
        let _: Option<String> = client
            .set(&key, new_generation(), None, Some(SetOptions::NX), false)
            .await
            .ok()?;
        client.get(&key).await.ok()?
    }

    /// Nobody waits for something to be stored.
    fn store_later(&self, key: String, value: Bytes, ttl: Duration) {
        let client = self.clone();
        tokio::spawn(async move {
            let expire = Expiration::PX(i64::try_from(ttl.as_millis()).unwrap_or(i64::MAX));
            let stored: Result<(), _> = client.fast().set(key, value, Some(expire), None, false).await;
            stored.ok()
        });
    }

    fn fast(&self) -> fred::clients::WithOptions<Client> {
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

/// Unlike a counter, never the same again after Redis has lost its memory.
fn new_generation() -> Bytes {
    Bytes::copy_from_slice(Uuid::new_v4().as_bytes())
}
