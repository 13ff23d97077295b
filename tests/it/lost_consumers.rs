//! A consumer that the broker has lost without an error. Brokers do that by accident; here a proxy causes it: on the
//! client's connection it sends the broker a `basic.cancel` that the client does not know of.

use std::{
    slice,
    sync::{Arc, Mutex},
    time::Duration,
};

use lapin::{
    options::{QueueBindOptions, QueueDeclareOptions},
    types::FieldTable,
};
use shop::{
    queue::{Queue, SettleRequest},
    telemetry::traces::new_traceparent,
};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream, tcp::OwnedWriteHalf},
    sync::Mutex as AsyncMutex,
    time::{sleep, timeout},
};
use uuid::Uuid;

use crate::support::{Backend, MAX_WAIT, channel, eventually};

/// Longer than the queue needs to notice a lost consumer.
const QUIET: Duration = Duration::from_secs(10);
/// Class and method of `basic.consume-ok` (AMQP 0-9-1, section 1.8.3).
const CONSUME_OK: [u8; 4] = [0, 60, 0, 21];
/// Class and method of `basic.cancel`.
const CANCEL: [u8; 4] = [0, 60, 0, 30];

/// Passes everything on between the clients and the broker.
struct CancellingProxy {
    url: String,
    /// The consumers that were started, each with the connection to the broker that it uses.
    consumers: Arc<Mutex<Vec<Registered>>>,
}

#[derive(Clone)]
struct Registered {
    channel: [u8; 2],
    tag: Vec<u8>,
    broker: Arc<AsyncMutex<OwnedWriteHalf>>,
}

impl CancellingProxy {
    async fn before(url: &str) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let port = listener.local_addr().expect("bound").port();
        let (_, rest) = url.split_once('@').expect("user, host");
        let (host, vhost) = rest.split_once('/').expect("host, virtual host");

        let consumers = Arc::default();
        tokio::spawn(accept(listener, host.to_owned(), Arc::clone(&consumers)));

        Self {
            url: format!("amqp://guest:guest@127.0.0.1:{port}/{vhost}"),
            consumers,
        }
    }

    /// Cancels all consumers at the broker.
    async fn cancel_all(&self) {
        let consumers = eventually("a consumer has started", || async {
            let consumers = self.consumers.lock().expect("whole").clone();
            (!consumers.is_empty()).then_some(consumers)
        })
        .await;

        for consumer in consumers {
            let tag = u8::try_from(consumer.tag.len()).expect("a short string");
            // The last byte is the flag `no-wait`: the broker sends no answer.
            let payload = [&CANCEL[..], &[tag], &consumer.tag, &[1]].concat();
            let size = u32::try_from(payload.len()).expect("short").to_be_bytes();
            let frame = [&[1][..], &consumer.channel, &size, &payload, &[0xCE]].concat();
            consumer.broker.lock().await.write_all(&frame).await.expect("sent");
        }
    }
}

async fn accept(listener: TcpListener, host: String, consumers: Arc<Mutex<Vec<Registered>>>) {
    while let Ok((client, _)) = listener.accept().await {
        let broker = TcpStream::connect(&host).await.expect("the broker is there");
        let (mut from_client, mut to_client) = client.into_split();
        let (mut from_broker, to_broker) = broker.into_split();
        let to_broker = Arc::new(AsyncMutex::new(to_broker));

        let requests = Arc::clone(&to_broker);
        tokio::spawn(async move {
            while let Some(frame) = frame(&mut from_client).await {
                requests.lock().await.write_all(&frame).await?;
            }
            requests.lock().await.shutdown().await
        });

        let consumers = Arc::clone(&consumers);
        tokio::spawn(async move {
            while let Some(frame) = frame(&mut from_broker).await {
                if frame.get(7..11) == Some(&CONSUME_OK[..]) {
                    consumers.lock().expect("whole").push(Registered {
                        channel: [frame[1], frame[2]],
                        tag: frame[12..12 + usize::from(frame[11])].to_vec(),
                        broker: Arc::clone(&to_broker),
                    });
                }
                to_client.write_all(&frame).await?;
            }
            to_client.shutdown().await
        });
    }
}

/// The next frame: type, channel, size, payload, end. Before the first there is the client's greeting.
async fn frame(from: &mut (impl tokio::io::AsyncRead + Unpin)) -> Option<Vec<u8>> {
    let mut frame = vec![0; 7];
    from.read_exact(&mut frame).await.ok()?;
    if frame.starts_with(b"AMQP") {
        frame.push(from.read_u8().await.ok()?);
        return Some(frame);
    }
    let size = u32::from_be_bytes(frame[3..7].try_into().ok()?);
    let mut rest = vec![0; usize::try_from(size).ok()? + 1];
    from.read_exact(&mut rest).await.ok()?;
    frame.append(&mut rest);
    Some(frame)
}

fn request() -> SettleRequest {
    SettleRequest {
        order_id: Uuid::now_v7(),
        traceparent: new_traceparent(),
    }
}

/// The number of consumers of the queue of settle requests, as the broker counts them.
async fn consumers(backend: &Backend) -> u32 {
    let (_connection, channel) = channel(&backend.queue_url).await;
    let passive = QueueDeclareOptions {
        passive: true,
        ..Default::default()
    };
    let settle = format!("{}.orders.settle", backend.prefix);
    let queue = channel.queue_declare(settle.into(), passive, FieldTable::default());
    queue.await.expect("it is there").consumer_count()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_consumer_that_the_broker_lost_silently_is_replaced() {
    let backend = Backend::servers();
    let proxy = CancellingProxy::before(&backend.queue_url).await;
    let queue = Queue::new(&proxy.url, &backend.prefix, 100).expect("a known URL");
    let first = request();
    queue
        .publish_settle_requests(slice::from_ref(&first))
        .await
        .expect("published");
    let deliveries = queue.next(10).await.expect("delivers");
    queue.acknowledge(&deliveries).await.expect("acknowledges");

    assert_eq!(consumers(&backend).await, 1);
    proxy.cancel_all().await;
    eventually("the broker has no consumer", || async {
        (consumers(&backend).await == 0).then_some(())
    })
    .await;

    // Another consumer holds as many messages as it may, so that the number of consumers proves nothing.
    let full = Queue::new(&backend.queue_url, &backend.prefix, 1).expect("a known URL");
    let held = request();
    full.publish_settle_requests(slice::from_ref(&held))
        .await
        .expect("published");
    let unacknowledged = full.next(1).await.expect("delivers");
    assert_eq!(unacknowledged.messages[0].order_id, Ok(held.order_id));

    let waiting = request();
    queue
        .publish_settle_requests(slice::from_ref(&waiting))
        .await
        .expect("published");
    let lost = timeout(MAX_WAIT, queue.next(10)).await.expect("it is noticed");
    assert!(matches!(lost, Err(error) if error.to_string().contains("lost the consumer")));
    let deliveries = queue.next(10).await.expect("delivers again");
    assert_eq!(deliveries.messages[0].order_id, Ok(waiting.order_id));
}

/// A broker can also count messages as delivered that never arrive. Here it routes them to another queue.
#[tokio::test(flavor = "multi_thread")]
async fn the_consumer_is_replaced_when_published_messages_never_arrive() {
    let backend = Backend::servers();
    let queue = Queue::new(&backend.queue_url, &backend.prefix, 100).expect("a known URL");
    queue.publish_settle_requests(&[request()]).await.expect("published");
    let deliveries = queue.next(10).await.expect("delivers");
    queue.acknowledge(&deliveries).await.expect("acknowledges");

    let (_connection, channel) = channel(&backend.queue_url).await;
    let (settle, orders) = (
        format!("{}.orders.settle", backend.prefix),
        format!("{}.orders", backend.prefix),
    );
    let elsewhere = format!("{}.elsewhere", backend.prefix);
    let (declared, none) = (QueueDeclareOptions::default(), FieldTable::default());
    let declare = channel.queue_declare(elsewhere.as_str().into(), declared, none.clone());
    declare.await.expect("declared");
    let bind = QueueBindOptions::default();
    let bound = channel.queue_bind(
        elsewhere.into(),
        orders.as_str().into(),
        "settle".into(),
        bind,
        none.clone(),
    );
    bound.await.expect("bound");
    let unbound = channel.queue_unbind(settle.into(), orders.into(), "settle".into(), none);
    unbound.await.expect("unbound");

    queue.publish_settle_requests(&[request()]).await.expect("published");
    let lost = timeout(MAX_WAIT, queue.next(10)).await.expect("it is noticed");
    assert!(matches!(lost, Err(error) if error.to_string().contains("delivers none")));

    // The next connection binds the queue again.
    let next = request();
    let (delivered, published) = tokio::join!(queue.next(10), async {
        sleep(Duration::from_secs(1)).await;
        queue.publish_settle_requests(slice::from_ref(&next)).await
    });
    published.expect("published");
    assert_eq!(delivered.expect("delivers").messages[0].order_id, Ok(next.order_id));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_idle_or_busy_consumer_is_left_alone() {
    let backend = Backend::servers();
    let queue = Queue::new(&backend.queue_url, &backend.prefix, 1).expect("a known URL");
    let idle = timeout(QUIET, queue.next(10)).await;

    assert!(
        idle.is_err(),
        "an idle consumer was replaced: {:?}",
        idle.map(Result::err)
    );
    queue
        .publish_settle_requests(&[request(), request()])
        .await
        .expect("published");

    let first = queue.next(10).await.expect("delivers");
    assert_eq!(first.messages.len(), 1);
    let full = timeout(QUIET, queue.next(10)).await;
    assert!(
        full.is_err(),
        "a busy consumer was replaced: {:?}",
        full.map(Result::err)
    );
    queue.acknowledge(&first).await.expect("the session is the same");
    let second = queue.next(10).await.expect("delivers");
    assert!(!second.messages[0].redelivered);
}
