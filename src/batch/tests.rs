//! What gathers, what runs beside what, and what is refused.

use std::sync::Mutex;

use tokio::sync::Notify;

use super::*;

const LIMITS: Limits = Limits {
    batch: 100,
    batch_weight: 1_000,
    queued: 10,
    queued_weight: 10_000,
    in_flight: 1,
    max_wait: Duration::from_millis(200),
};

#[tokio::test]
async fn what_arrives_while_a_batch_runs_becomes_the_next_batch() {
    let sizes = Arc::new(Mutex::new(Vec::new()));
    let gate = Arc::new(Notify::new());
    let started = Arc::new(Notify::new());
    let batcher = {
        let (sizes, gate, started) = (Arc::clone(&sizes), Arc::clone(&gate), Arc::clone(&started));
        Batcher::start(
            LIMITS,
            |_| 1,
            move |batch: Arc<[u32]>| {
                let (sizes, gate, started) = (Arc::clone(&sizes), Arc::clone(&gate), Arc::clone(&started));
                async move {
                    let first = {
                        let mut sizes = sizes.lock().expect("not poisoned");
                        sizes.push(batch.len());
                        sizes.len() == 1
                    };
                    if first {
                        started.notify_one();
                        gate.notified().await;
                    }
                    Ok(batch.iter().map(|item| Ok(item * 2)).collect())
                }
            },
        )
    };
    let submit = |item| {
        let batcher = batcher.clone();
        tokio::spawn(async move { batcher.submit(item).await })
    };

    let mut answers = vec![submit(0)];
    started.notified().await;
    answers.extend((1..=5).map(submit));
    while batcher.requests.capacity() > LIMITS.queued - 5 {
        tokio::task::yield_now().await;
    }
    gate.notify_one();

    for (item, answer) in (0..).zip(answers) {
        assert_eq!(answer.await.expect("runs").ok(), Some(item * 2));
    }
    assert_eq!(*sizes.lock().expect("not poisoned"), [1, 5]);
}

#[tokio::test]
async fn a_second_batch_runs_beside_the_first_only_once_it_is_worth_a_transaction() {
    let limits = Limits {
        in_flight: 2,
        queued: 100,
        ..LIMITS
    };
    let sizes = Arc::new(Mutex::new(Vec::new()));
    let started = Arc::new(Notify::new());
    let batcher: Batcher<(), ()> = {
        let (sizes, started) = (Arc::clone(&sizes), Arc::clone(&started));
        Batcher::start(
            limits,
            |()| 1,
            move |batch: Arc<[()]>| {
                sizes.lock().expect("not poisoned").push(batch.len());
                started.notify_one();
                std::future::pending()
            },
        )
    };
    let submit = || {
        let batcher = batcher.clone();
        tokio::spawn(async move { batcher.submit(()).await })
    };

    let mut requests = vec![submit()];
    started.notified().await;
    requests.extend((1..WORTH_A_TRANSACTION).map(|_| submit()));
    // One too few: they have gathered, and wait.
    for _ in 0..100 {
        tokio::task::yield_now().await;
    }
    assert_eq!(*sizes.lock().expect("not poisoned"), [1]);

    requests.push(submit());
    started.notified().await;
    assert_eq!(*sizes.lock().expect("not poisoned"), [1, WORTH_A_TRANSACTION]);
    requests.iter().for_each(tokio::task::JoinHandle::abort);
}

#[tokio::test]
async fn one_poisoned_request_does_not_fail_its_neighbours() {
    let batcher = Batcher::start(
        LIMITS,
        |_| 1,
        |batch: Arc<[i32]>| async move {
            if batch.iter().any(|item| *item < 0) {
                return Err(Error::Internal("refused".to_owned()));
            }
            Ok(batch.iter().map(|item| Ok(*item)).collect())
        },
    );

    let submits = [1, -1, 3].map(|item| {
        let batcher = batcher.clone();
        tokio::spawn(async move { batcher.submit(item).await })
    });

    let mut answers = Vec::new();
    for submit in submits {
        answers.push(submit.await.expect("runs").ok());
    }
    assert_eq!(answers, [Some(1), None, Some(3)]);
}

#[tokio::test]
async fn a_request_that_waited_too_long_is_refused_and_never_run() {
    let (started, gate) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
    let ran = Arc::new(Mutex::new(Vec::new()));
    let batcher = {
        let (started, gate, ran) = (Arc::clone(&started), Arc::clone(&gate), Arc::clone(&ran));
        Batcher::start(
            LIMITS,
            |_| 1,
            move |batch: Arc<[i32]>| {
                ran.lock().expect("not poisoned").extend(batch.iter().copied());
                let (started, gate) = (Arc::clone(&started), Arc::clone(&gate));
                async move {
                    started.notify_one();
                    gate.notified().await;
                    Ok(batch.iter().map(|_| Ok(())).collect())
                }
            },
        )
    };
    let submit = |item| {
        let batcher = batcher.clone();
        tokio::spawn(async move { batcher.submit(item).await })
    };

    let first = submit(1);
    started.notified().await;
    let expired = submit(2);
    tokio::time::sleep(LIMITS.max_wait * 2).await;
    gate.notify_one();

    assert!(first.await.expect("runs").is_ok());
    assert!(matches!(expired.await.expect("runs"), Err(Error::Overloaded)));
    assert_eq!(*ran.lock().expect("not poisoned"), [1]);
}

#[tokio::test]
async fn beyond_the_bound_requests_are_refused_at_once() {
    let started = Arc::new(Notify::new());
    let starting = Arc::clone(&started);
    let batcher: Batcher<(), ()> = Batcher::start(
        LIMITS,
        |()| 1,
        move |_| {
            starting.notify_one();
            std::future::pending()
        },
    );
    let submit = || {
        let batcher = batcher.clone();
        tokio::spawn(async move { batcher.submit(()).await })
    };

    let mut busy = vec![submit()];
    started.notified().await;
    busy.extend((0..LIMITS.queued).map(|_| submit()));
    while batcher.requests.capacity() > 0 {
        tokio::task::yield_now().await;
    }

    assert!(matches!(batcher.submit(()).await, Err(Error::Overloaded)));
    busy.iter().for_each(tokio::task::JoinHandle::abort);
}

/// What `run` is given while the first batch runs, and the answers of all.
#[tokio::test]
async fn a_batch_is_bounded_by_weight_and_what_is_left_comes_next() {
    let limits = Limits {
        batch_weight: 100,
        ..LIMITS
    };
    let (started, gate) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
    let ran = Arc::new(Mutex::new(Vec::new()));
    let batcher = {
        let (started, gate, ran) = (Arc::clone(&started), Arc::clone(&gate), Arc::clone(&ran));
        Batcher::start(
            limits,
            |weight: &usize| *weight,
            move |batch: Arc<[usize]>| {
                ran.lock().expect("not poisoned").push(batch.to_vec());
                let (started, gate) = (Arc::clone(&started), Arc::clone(&gate));
                async move {
                    started.notify_one();
                    gate.notified().await;
                    Ok(batch.iter().map(|_| Ok(())).collect())
                }
            },
        )
    };
    let submit = |weight| {
        let batcher = batcher.clone();
        tokio::spawn(async move { batcher.submit(weight).await })
    };

    let mut answers = vec![submit(1)];
    started.notified().await;
    // The heavy one is more than a batch may weigh, and has one of its own.
    answers.extend([60, 40, 30, 500, 1, 2].map(submit));
    while batcher.requests.capacity() > LIMITS.queued - 6 {
        tokio::task::yield_now().await;
    }
    gate.notify_one();
    for _ in 0..4 {
        started.notified().await;
        gate.notify_one();
    }

    for answer in answers {
        assert!(answer.await.expect("runs").is_ok());
    }
    let expected: [&[usize]; 4] = [&[1], &[60, 40], &[30], &[500]];
    let ran = ran.lock().expect("not poisoned");
    assert_eq!(ran[..4], expected);
    assert_eq!(ran[4..].concat(), [1, 2]);
}

#[tokio::test]
async fn beyond_the_bound_of_weight_requests_are_refused_at_once() {
    let limits = Limits {
        queued_weight: 100,
        ..LIMITS
    };
    let started = Arc::new(Notify::new());
    let starting = Arc::clone(&started);
    let batcher: Batcher<usize, ()> = Batcher::start(
        limits,
        |weight| *weight,
        move |_| {
            starting.notify_one();
            std::future::pending()
        },
    );
    let submit = |weight| {
        let batcher = batcher.clone();
        tokio::spawn(async move { batcher.submit(weight).await })
    };

    let busy = [submit(5_000)];
    started.notified().await;
    // What runs does not wait.
    let waiting = [submit(60), submit(40)];
    while batcher.waiting.load(Ordering::Relaxed) < 100 {
        tokio::task::yield_now().await;
    }
    assert!(matches!(batcher.submit(1).await, Err(Error::Overloaded)));
    assert_eq!(batcher.waiting.load(Ordering::Relaxed), 100);
    busy.iter().chain(&waiting).for_each(tokio::task::JoinHandle::abort);
}
