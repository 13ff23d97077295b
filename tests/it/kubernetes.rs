//! The way to a shop on Kubernetes that docs/deployment.md shows, on a PostgreSQL whose roles need their passwords. A stand-in
//! for `kubectl` runs the Job; the test runs what the Deployments run.

use std::{
    fs,
    io::Write as _,
    os::unix::fs::PermissionsExt as _,
    path::Path,
    process::{Command, Stdio},
};

use serde_json::json;

use crate::{
    docs::pages::{ROOT, blocks, read},
    servers::{Postgres, search_path},
    support::{Backend, Shop, run_to_end},
};

/// Starts the Job when it is applied, as a cluster does, and waits for its end when that is asked for.
const KUBECTL: &str = r#"#!/usr/bin/env bash
set -eu
case "$*" in
    apply*)
        url=$(sed -n 's/^migrate=//p' "$3/database.env")
        (SHOP_DATABASE_URL=$url timeout 60 shop migrate >migrate.log 2>&1 && touch migrated) &
        ;;
    *delete*job/shop-migrate* | *delete*"job shop-migrate"*) rm -f migrated ;;
    *wait*job/shop-migrate*)
        for _ in $(seq 600); do
            [[ -e migrated ]] && exit
            sleep 0.1
        done
        cat migrate.log >&2
        exit 1
        ;;
esac
"#;
const OVERLAY: &str = "config/kubernetes/overlays/mine";

/// The lines of an overlay's first comment that are commands: how to install it, and how to upgrade it.
fn commands_of_the_overlay() -> (Vec<String>, Vec<String>) {
    let text = read("config/kubernetes/overlays/example/kustomization.yaml");
    let (install, upgrade) = text.split_once("# To upgrade").expect("both");
    let commands = |text: &str| {
        let lines = text.lines().filter_map(|line| line.strip_prefix("#   "));
        lines.map(str::to_owned).collect()
    };
    (commands(install), commands(upgrade))
}

/// Runs a script in `folder`, where no terminal asks for the passwords.
fn run(script: &str, folder: &Path, admin_url: &str) {
    let programs = Path::new(env!("CARGO_BIN_EXE_shop")).parent().expect("a folder");
    let mut path = folder.join("bin").into_os_string();
    for more in [programs.as_os_str(), &search_path()] {
        path.push(":");
        path.push(more);
    }

    let mut setsid = Command::new("setsid");
    setsid
        .args(["--wait", "timeout", "120", "bash", "-euo", "pipefail", "-c", script])
        .current_dir(folder)
        .env("PATH", path)
        .env("ADMIN_URL", admin_url)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let mut child = setsid.spawn().expect("every Linux has it");
    // Three roles, each password twice.
    let passwords = "CHANGE-ME\n".repeat(6);
    // A script that asks for none may have ended.
    let _ = child.stdin.take().expect("piped").write_all(passwords.as_bytes());
    let output = child.wait_with_output().expect("it ends");
    assert!(
        output.status.success(),
        "{script}\n{}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
}

/// A folder with `config` and `kubectl`.
fn prepare(folder: &Path) {
    let copied = Command::new("cp")
        .arg("-r")
        .arg(format!("{ROOT}/config"))
        .arg(folder)
        .status();
    assert!(copied.expect("every Linux has it").success());
    let kubectl = folder.join("bin/kubectl");
    fs::create_dir(folder.join("bin")).expect("the folder is new");
    fs::write(&kubectl, KUBECTL).expect("the folder is ours");
    fs::set_permissions(&kubectl, fs::Permissions::from_mode(0o755)).expect("ours");
}

/// The back end of a Deployment: the URL that `database.env` has for it.
fn role(backend: &Backend, name: &str) -> Backend {
    let urls = fs::read_to_string(backend.folder.join(OVERLAY).join("database.env")).expect("the overlay");
    let mut urls = urls.lines().filter_map(|line| line.split_once('='));
    let (_, url) = urls.find(|(key, _)| *key == name).expect("a URL");
    let mut own = backend.clone();
    url.clone_into(&mut own.database_url);
    own
}

#[tokio::test(flavor = "multi_thread")]
async fn the_documented_order_leads_to_a_shop_whose_roles_have_their_rights() {
    let postgres = Postgres::start();
    postgres.ask_for_passwords("shop_migrate,shop_serve,shop_work");
    let mut backend = Backend::servers();
    backend.database_url = postgres.create_database();
    let admin_url = backend.database_url.clone();
    let here = admin_url.rsplit_once('@').expect("a user").1.to_owned();
    let folder = backend.folder.clone();
    prepare(&folder);

    let page = blocks(&read("docs/deployment.md"));
    let steps: Vec<&str> = page
        .iter()
        .filter(|block| block.is("drill-kubernetes"))
        .map(|block| block.body.as_str())
        .collect();
    let [copy, roles, start] = steps[..] else {
        panic!("{steps:?}")
    };
    run(copy, &folder, &admin_url);
    let file = folder.join(OVERLAY).join("database.env");
    let urls = fs::read_to_string(&file).expect("copied");
    assert!(urls.contains("@postgres.example/shop"), "{urls}");
    fs::write(&file, urls.replace("postgres.example/shop", &here)).expect("ours");
    run(roles, &folder, &admin_url);
    run(start, &folder, &admin_url);

    let shop = Shop::serve(&role(&backend, "serve"));
    let _worker = Shop::work(&role(&backend, "work"));
    let client = shop.client();
    let product = json!({ "name": "Mug", "price": 500, "stock": 5 });
    assert_eq!(client.post("/products", &product).await.status, 201);
    let order = client.order(&[(1, 3)]).await;
    client.pay(&order).await;
    assert_eq!(client.settled(&order).await["status"], "PAID");

    let (install, upgrade) = commands_of_the_overlay();
    let shown: Vec<&str> = [roles, start].iter().flat_map(|block| block.lines()).collect();
    assert_eq!(install, shown, "the overlay and docs/deployment.md");
    run(&upgrade.join("\n"), &folder, &admin_url);
    let verified = run_to_end(&role(&backend, "serve"), &["verify"], &[]);
    assert!(verified.status.success());
}
