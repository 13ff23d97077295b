//! What is on the broker before the shop comes, declared by an older version or by the operator.

use lapin::{
    BasicProperties, Connection, ConnectionProperties, ExchangeKind,
    options::{BasicPublishOptions, ExchangeDeclareOptions, QueueBindOptions, QueueDeclareOptions},
    types::{AMQPValue, FieldTable},
};

use crate::{
    servers,
    support::{Backend, Shop, eventually, run_to_end},
};

/// As the first version declared the queues of requests, which later versions declare otherwise.
async fn declare_as_before(backend: &Backend, as_user: &str) -> Connection {
    let connection = Connection::connect(as_user, ConnectionProperties::default());
    let connection = connection.await.expect("connects");
    let channel = connection.create_channel().await.expect("opens");
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

/// An order is settled, junk is laid aside, and the log names what is not as it should be.
async fn works_on(backend: &Backend, reason: &str) {
    backend.stock(&[(100, 10)]).await;
    let (shop, worker) = (Shop::serve(backend), Shop::work(backend));
    let client = shop.client();
    let id = client.order(&[(1, 1)]).await;
    assert_eq!(client.pay(&id).await.status, 202);
    assert_eq!(client.settled(&id).await["status"], "PAID");
    eventually("the junk is a dead letter", || async {
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
async fn queues_that_an_older_version_declared_otherwise_are_used_as_they_are() {
    let backend = Backend::servers();
    let _connection = declare_as_before(&backend, &backend.queue_url).await;
    works_on(&backend, "PRECONDITION_FAILED").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_user_that_may_not_declare_works_on_what_the_operator_declared() {
    let mut backend = Backend::servers();
    let _connection = declare_as_before(&backend, &backend.queue_url).await;
    let rabbitmq = &servers::shared().rabbitmq;
    let user = format!("{}-user", backend.prefix);
    rabbitmq.ctl(&["add_user", &user, "secret"]);
    rabbitmq.ctl(&["set_permissions", &user, "^amq\\.gen", ".*", ".*"]);
    backend.queue_url = backend.queue_url.replace("guest:guest", &format!("{user}:secret"));
    works_on(&backend, "ACCESS_REFUSED").await;
}
