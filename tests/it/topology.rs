//! Exchanges and queues that exist already, declared by an older version or by the operator.

use lapin::{
    BasicProperties, Connection, ExchangeKind,
    options::{BasicPublishOptions, ExchangeDeclareOptions, QueueBindOptions, QueueDeclareOptions},
    types::{AMQPValue, FieldTable},
};

use crate::{
    servers,
    support::{Backend, Shop, channel, eventually, run_to_end},
};

/// Declares the queues with the arguments of an older version, and publishes a message that is not JSON.
async fn declare_as_before(backend: &Backend, url: &str) -> Connection {
    let (connection, channel) = channel(url).await;
    let durable = ExchangeDeclareOptions {
        durable: true,
        ..Default::default()
    };
    let (orders, events) = (
        format!("{}.orders", backend.prefix),
        format!("{}.events", backend.prefix),
    );
    let (settle, dead) = (format!("{orders}.settle"), format!("{orders}.dead"));

    for (exchange, kind) in [(&orders, ExchangeKind::Direct), (&events, ExchangeKind::Topic)] {
        let declared = channel.exchange_declare(exchange.as_str().into(), kind, durable, FieldTable::default());
        declared.await.expect("declared");
    }

    let mut arguments = FieldTable::default();
    arguments.insert("x-queue-type".into(), AMQPValue::LongString("quorum".into()));
    let options = QueueDeclareOptions::durable();
    let declared = channel.queue_declare(dead.as_str().into(), options, arguments.clone());
    declared.await.expect("declared");
    arguments.insert("x-dead-letter-exchange".into(), AMQPValue::LongString("".into()));
    arguments.insert("x-dead-letter-routing-key".into(), AMQPValue::LongString(dead.into()));
    arguments.insert("x-overflow".into(), AMQPValue::LongString("reject-publish".into()));
    let declared = channel.queue_declare(settle.as_str().into(), options, arguments);
    declared.await.expect("declared");

    let (key, options) = ("settle".into(), QueueBindOptions::default());
    let bound = channel.queue_bind(
        settle.into(),
        orders.as_str().into(),
        key,
        options,
        FieldTable::default(),
    );
    bound.await.expect("bound");

    let options = BasicPublishOptions::default();
    let junk = channel.basic_publish(
        orders.into(),
        "settle".into(),
        options,
        b"junk",
        BasicProperties::default(),
    );
    junk.await.expect("published");

    connection
}

/// Asserts that an order is settled, junk is dead-lettered, and the log names the queues that differ.
async fn works_on(backend: &Backend, reason: &str) {
    backend.stock(&[(100, 10)]).await;
    let (shop, worker) = (Shop::serve(backend), Shop::work(backend));
    let client = shop.client();
    let id = client.order(&[(1, 1)]).await;
    assert_eq!(client.pay(&id).await.status, 202);
    assert_eq!(client.settled(&id).await["status"], "PAID");

    eventually("the junk is dead-lettered", || async {
        let letters = run_to_end(backend, &["dead-letters", "list"], &[]);
        let letters = String::from_utf8_lossy(&letters.stdout).into_owned();
        (letters.contains("not JSON")).then_some(())
    })
    .await;

    for name in ["orders.settle", "orders.dead"] {
        let named = format!("{}.{name}", backend.prefix);
        let log = worker.log();
        let mut lines = log.lines().filter(|line| line.contains("is used as it is"));
        assert!(
            lines.any(|line| line.contains(&named) && line.contains(reason)),
            "{log}"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn queues_declared_differently_by_an_older_version_are_used_unchanged() {
    let backend = Backend::servers();
    let _connection = declare_as_before(&backend, &backend.queue_url).await;
    works_on(&backend, "PRECONDITION_FAILED").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_user_without_the_right_to_declare_uses_the_queues_of_the_operator() {
    let mut backend = Backend::servers();
    let _connection = declare_as_before(&backend, &backend.queue_url).await;
    let rabbitmq = &servers::shared().rabbitmq;
    let user = format!("{}-user", backend.prefix);
    rabbitmq.ctl(&["add_user", &user, "secret"]);
    rabbitmq.ctl(&["set_permissions", &user, "^amq\\.gen", ".*", ".*"]);
    backend.queue_url = backend.queue_url.replace("guest:guest", &format!("{user}:secret"));
    works_on(&backend, "ACCESS_REFUSED").await;
}
