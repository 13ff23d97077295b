//! Orders by reference and time, and what else is left of references.

use super::*;

#[rstest]
#[tokio::test]
async fn orders_are_listed_by_reference_and_by_time(#[values("embedded", "servers")] backend: &str) {
    let backend = Backend::named(backend);
    backend.stock(&[(100, 10)]).await;
    let shop = Shop::serve(&backend);
    let client = shop.client();
    let (mut made, mut times) = (Vec::new(), Vec::new());
    for number in 0..6 {
        let answer = client
            .post("/orders", &order(7 + number % 2, &format!("r{number}")))
            .await;
        made.push(id_of(&answer));
        times.push(answer.body["created_at"].as_str().expect("a time").to_owned());
    }
    let newest_first =
        |numbers: &[usize]| -> Vec<String> { numbers.iter().map(|number| made[*number].clone()).collect() };

    let from_to = format!("created_from={}&created_to={}", times[1], times[4]);
    assert_eq!(
        ids(&client, &from_to).await,
        newest_first(&[3, 2, 1]),
        "from is included, and to is not"
    );
    assert_eq!(ids(&client, &format!("user_id=7&{from_to}")).await, newest_first(&[2]));
    assert_eq!(
        ids(&client, &format!("created_from={}", times[4])).await,
        newest_first(&[5, 4])
    );
    assert_eq!(
        ids(&client, &format!("created_to={}&limit=1", times[2])).await,
        newest_first(&[1])
    );
    let page = client.get(&format!("/orders?{from_to}&limit=2")).await.body;
    let cursor = page["next_cursor"].as_str().expect("more follow");
    assert_eq!(
        ids(&client, &format!("{from_to}&cursor={cursor}")).await,
        newest_first(&[1])
    );

    // Another zone, and times of other ages.
    let exact = OffsetDateTime::parse(&times[3], &Rfc3339).expect("RFC 3339");
    let there = exact.to_offset(time::UtcOffset::from_hms(-3, 30, 0).expect("an offset"));
    let there = there.format(&Rfc3339).expect("written");
    assert_eq!(
        ids(&client, &format!("created_from={there}&limit=200")).await,
        newest_first(&[5, 4, 3])
    );
    let later = (exact + Duration::microseconds(1)).format(&Rfc3339).expect("written");
    assert_eq!(
        ids(&client, &format!("created_from={later}")).await,
        newest_first(&[5, 4])
    );
    // Times that say more than the database keeps.
    let between = (exact + Duration::nanoseconds(1)).format(&Rfc3339).expect("written");
    assert_eq!(
        ids(&client, &format!("created_from={between}")).await,
        newest_first(&[5, 4]),
        "it was made before"
    );
    assert_eq!(
        ids(&client, &format!("created_to={between}&limit=1")).await,
        newest_first(&[3]),
        "it was made before"
    );
    assert_eq!(ids(&client, "created_from=9999-12-31T23:59:59Z").await, [""; 0]);
    assert_eq!(ids(&client, "created_to=0000-01-01T00:00:00Z").await, [""; 0]);
    assert_eq!(ids(&client, "created_from=1600-01-01T00:00:00Z").await.len(), 6);

    only_what_all_filters_name(&client, &made, &times).await;
}

async fn only_what_all_filters_name(client: &Client, made: &[String], times: &[String]) {
    for (query, found) in [
        ("reference=r2".to_owned(), &[2][..]),
        ("reference=r2&user_id=8".to_owned(), &[]),
        ("reference=r2&status=PENDING".to_owned(), &[2]),
        ("reference=r2&status=PAID".to_owned(), &[]),
        (format!("reference=r2&created_to={}", times[2]), &[]),
        (format!("reference=r2&created_from={}", times[2]), &[2]),
        (format!("reference=r2&cursor={}", made[2]), &[]),
    ] {
        let found: Vec<String> = found.iter().map(|number: &usize| made[*number].clone()).collect();
        assert_eq!(ids(client, &query).await, found, "{query}");
    }
    for bad in [
        "reference=",
        "reference=two%20words",
        "created_from=today",
        "created_to=2026-01-01",
        // Longer than the document allows.
        "created_to=2026-01-01T00:00:00.000000000000000000Z",
        "cursor=urn:uuid:01900000-0000-7000-8000-000000000000",
    ] {
        client
            .get(&format!("/orders?{bad}"))
            .await
            .problem(400, "invalid-request");
    }
}

#[tokio::test]
async fn references_and_metadata_that_cannot_be_kept_are_refused_with_every_error() {
    let backend = Backend::embedded();
    backend.stock(&[(100, 10)]).await;
    let shop = Shop::serve(&backend);
    let client = shop.client();
    let field = |count: usize| -> Value { (0..count).map(|number| (format!("f{number}"), json!("x"))).collect() };
    let large = |bytes: usize| json!({ "": "x".repeat(bytes) });

    for (reference, metadata, expected) in [
        (json!(""), json!({ "a": 1 }), &["/metadata/a", "/reference"][..]),
        (json!("two words"), field(21), &["/metadata", "/reference"]),
        (json!("é"), large(4_097), &["/metadata", "/metadata/", "/reference"]),
        (
            json!("x".repeat(65)),
            json!({ "a": "\u{0}", "b\u{0}": "" }),
            &["/metadata", "/metadata/a", "/reference"],
        ),
        (json!(7), json!(["a"]), &["/metadata", "/reference"]),
    ] {
        let mut body = order(7, "");
        (body["reference"], body["metadata"]) = (reference, metadata);
        let answer = client.post("/orders", &body).await;
        let mut pointers = answer.problem(400, "invalid-request");
        pointers.sort();
        pointers.dedup();
        assert_eq!(pointers, expected, "{answer:?}");
    }
    for metadata in [field(20), large(4_096), json!({ "ä".repeat(1_024): "ä".repeat(1_024) })] {
        let mut body = order(7, &Uuid::now_v7().to_string());
        body["metadata"] = metadata;
        let made = client.post("/orders", &body).await;
        assert_eq!((made.status, &made.body["metadata"]), (201, &body["metadata"]));
    }

    let id = client.order(&[(1, 1)]).await;
    for charge in ["", "two words", &"x".repeat(256)] {
        assert_eq!(
            pay(&client, &id, charge).await.problem(400, "invalid-request")[0],
            "/payment_reference"
        );
    }
    assert_eq!(pay(&client, &id, &"x".repeat(255)).await.status, 202);
}
