//! The processes and the machine themselves: memory, and what a write to the disk costs.

use std::{
    fs::File,
    io::Write as _,
    time::{Duration, Instant},
};

use super::{
    BATCHED_ORDERS, CONNECTIONS, PRODUCTS,
    setup::{self, accepted_orders, sql, two_lines},
};
use crate::{
    client::{get, load, post},
    report::{Table, median},
    seconds,
    servers::run::run,
    shop::Process,
};

/// Resident memory of both roles, idle and under load.
pub async fn memory(table: &mut Table) {
    let backend = setup::backend();
    let (serve, work) = (Process::serve(&backend), Process::work(&backend));
    tokio::time::sleep(Duration::from_secs(2)).await;
    let idle = [serve.memory(), work.memory()];

    let time = Duration::from_secs(seconds());
    load(&serve.address, CONNECTIONS, time, 201, |number| {
        post("/orders", two_lines(number))
    })
    .await;
    load(&serve.address, CONNECTIONS, time, 200, |_| get("/products")).await;
    let busy_serve = serve.memory();

    drop(work);
    let mut busy_work = 0;
    accepted_orders(&backend, BATCHED_ORDERS, PRODUCTS);
    let work = Process::work(&backend);
    sql(&backend, "UPDATE orders SET notify_after = now()");
    for _ in 0..50 {
        tokio::time::sleep(Duration::from_millis(100)).await;
        busy_work = busy_work.max(work.memory());
    }

    let megabytes = |bytes: u64| format!("{:.1} MB", bytes as f64 / 1e6);
    for (role, idle, busy) in [("serve", idle[0], busy_serve), ("work", idle[1], busy_work)] {
        let scenario = format!("memory of `{role}`, idle and under load");
        table.add([
            scenario,
            format!("{} and {}", megabytes(idle), megabytes(busy)),
            String::new(),
            String::new(),
            String::new(),
            String::new(),
        ]);
    }
}

/// The time of one small write to the disk of the database.
pub fn fsync_milliseconds() -> f64 {
    let (_, folder) = run().new_folder("fsync");
    let mut file = File::create(folder.join("probe")).expect("the folder is ours");
    let latencies = (0..200).map(|_| {
        let started = Instant::now();
        file.write_all(&[0; 8192]).expect("written");
        file.sync_data().expect("synced");
        started.elapsed().as_secs_f64() * 1e3
    });
    median(latencies.collect())
}
