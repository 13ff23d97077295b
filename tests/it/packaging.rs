//! What an operator installs, held against the program: units, the Debian package, the manifests of Kubernetes, and the
//! workflows that make a release. `tests/deb` and `tests/kubernetes` try the package and the manifests out.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
};

use serde_json::Value;

use crate::{
    docs::pages::{ROOT, files, read},
    support::{Backend, run_to_end},
};

/// The units, by the command that each runs.
const UNITS: [&str; 3] = ["serve", "work", "migrate"];

fn parse_toml(path: &str) -> Value {
    toml::from_str(&read(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// Every document of a YAML file.
fn parse_yaml(path: &Path) -> Vec<Value> {
    use serde::Deserialize as _;

    let text = fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    let documents = serde_norway::Deserializer::from_str(&text).map(Value::deserialize);
    documents
        .map(|document| document.unwrap_or_else(|error| panic!("{}: {error}", path.display())))
        .collect()
}

fn strings(value: &Value) -> Vec<&str> {
    value
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(Value::as_str)
        .collect()
}

fn version() -> String {
    let manifest = parse_toml("Cargo.toml");
    manifest["workspace"]["package"]["version"]
        .as_str()
        .expect("a version")
        .to_owned()
}

/// Whether the program knows the command and all of its arguments.
fn assert_is_command(arguments: &[&str]) {
    let backend = Backend::embedded();
    let help = run_to_end(&backend, &[arguments, &["--help"]].concat(), &[]);
    let stderr = String::from_utf8_lossy(&help.stderr);
    assert!(help.status.success(), "{arguments:?}: {stderr}");
}

/// The values of each key of a unit.
fn unit(command: &str) -> BTreeMap<String, Vec<String>> {
    let mut keys: BTreeMap<String, Vec<String>> = BTreeMap::new();
    let text = read(&format!("config/packaging/systemd/shop-{command}.service"));
    for (key, value) in text.lines().filter_map(|line| line.split_once('=')) {
        if !key.starts_with('#') {
            keys.entry(key.to_owned()).or_default().push(value.to_owned());
        }
    }
    keys
}

#[test]
fn every_unit_runs_a_command_that_there_is_with_the_packages_settings() {
    for command in UNITS {
        let start = unit(command)["ExecStart"].concat();
        let words: Vec<&str> = start.split(' ').collect();
        assert_eq!(words, ["/usr/bin/shop", command, "--config", "/etc/shop/shop.toml"]);
        assert_is_command(&words[1..]);
    }

    let count = files(&Path::new(ROOT).join("config/packaging/systemd"), "service").len();
    assert_eq!(count, UNITS.len(), "units that are not tested here");
}

#[test]
fn the_packages_settings_are_accepted_and_keep_everything_in_the_folder_of_the_units() {
    let file = format!("{ROOT}/config/packaging/debian/shop.toml");
    // Nobody answers there, so that settings that are accepted end with 1, and those that are not with 2.
    let nobody = ("SHOP_MANAGEMENT_BIND", "127.0.0.1:1");
    let output = run_to_end(&Backend::embedded(), &["health", "--config", &file], &[nobody]);
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{stderr}");

    let settings = parse_toml("config/packaging/debian/shop.toml");
    let database = settings["database_url"].as_str().expect("a URL");
    for command in UNITS {
        let folder = format!("/var/lib/{}", unit(command)["StateDirectory"].concat());
        assert!(database.starts_with(&format!("sqlite://{folder}/")), "{database}");
        assert_eq!(unit(command)["WorkingDirectory"].concat(), folder);
    }
}

#[test]
fn every_unit_is_hardened_and_ends_by_itself() {
    for command in UNITS {
        let unit = unit(command);
        for (key, value) in [
            ("User", "shop"),
            ("NoNewPrivileges", "yes"),
            ("CapabilityBoundingSet", ""),
            ("ProtectSystem", "strict"),
            ("ProtectHome", "yes"),
            ("PrivateTmp", "yes"),
            ("PrivateDevices", "yes"),
            ("MemoryDenyWriteExecute", "yes"),
        ] {
            assert_eq!(unit[key].concat(), value, "{command}: {key}");
        }
    }

    for command in ["serve", "work"] {
        let unit = unit(command);
        assert_eq!(unit["Restart"].concat(), "on-failure");
        // The exit code of wrong usage and of a configuration that cannot be used.
        assert_eq!(unit["RestartPreventExitStatus"].concat(), "2");
        // It ends within ten seconds, and is killed only after that.
        let timeout = unit["TimeoutStopSec"].concat();
        let timeout: u32 = timeout.trim_end_matches('s').parse().expect("seconds");
        assert!(timeout > 10, "{timeout}");
    }
}

#[test]
fn the_debian_package_names_files_that_there_are() {
    let manifest = parse_toml("Cargo.toml");
    let deb = &manifest["package"]["metadata"]["deb"];
    let script = read("config/packaging/build-deb");
    let mut installed = BTreeSet::new();

    for asset in deb["assets"].as_array().expect("assets") {
        let [source, target, _] = strings(asset)[..] else {
            panic!("{asset}")
        };
        installed.insert(target.to_owned());
        if let Some(made) = source.strip_prefix("target/deb/") {
            // The script that packages makes it.
            let made = made.trim_end_matches("*.1");
            let made = made.split('/').next().expect("a folder");
            assert!(script.contains(&format!("$files/{made}/")), "nothing makes {source}");
        } else if source != "target/release/shop" {
            assert!(Path::new(ROOT).join(source).is_file(), "{source}");
        }
    }
    for key in ["maintainer-scripts", "changelog"] {
        let path = deb[key].as_str().expect("a path");
        assert!(Path::new(ROOT).join(path).exists(), "{path}");
    }
    for entry in deb["systemd-units"].as_array().expect("units") {
        let [folder, name] = ["unit-scripts", "unit-name"].map(|key| entry[key].as_str().expect("text"));
        let path = format!("{folder}/{name}.service");
        assert!(Path::new(ROOT).join(&path).is_file(), "{path}");
    }

    // Where the units look.
    for folder in ["usr/bin/", "etc/shop/", "usr/lib/sysusers.d/"] {
        assert!(installed.contains(folder), "nothing is installed in {folder}");
    }
    let first = read("config/packaging/debian/changelog");
    let first = first.lines().next().expect("a line").to_owned();
    assert!(first.starts_with(&format!("shop ({}-1) ", version())), "{first}");
}

/// Neither has a copy of the repository beside it.
#[test]
fn package_and_image_have_every_script_for_the_database_in_one_place() {
    const EXAMPLES: &str = "usr/share/doc/shop/examples";
    let manifest = parse_toml("Cargo.toml");
    let assets = manifest["package"]["metadata"]["deb"]["assets"]
        .as_array()
        .expect("assets")
        .clone();
    let dockerfile = read("Dockerfile");
    let scripts = files(&Path::new(ROOT).join("config"), "sql");
    assert!(scripts.len() > 2, "{scripts:?}");

    for script in scripts {
        let script = script
            .strip_prefix(ROOT)
            .expect("below")
            .to_str()
            .expect("UTF-8")
            .to_owned();
        let folder = script.split('/').nth(1).expect("config/FOLDER/FILE");
        let packaged = [&script, &format!("{EXAMPLES}/{folder}/"), "644"];
        assert!(
            assets.iter().any(|asset| strings(asset) == packaged),
            "not in the package: {script}"
        );
        let copied = format!("\nCOPY config/{folder} /{EXAMPLES}/{folder}\n");
        assert!(dockerfile.contains(&copied), "not in the image: {script}");
    }
    assert!(read("docs/backup.md").contains(&format!("`/{EXAMPLES}`")));
}

#[test]
fn a_page_for_man_is_made_of_every_command() {
    let backend = Backend::embedded();
    let page = run_to_end(&backend, &["man"], &[]);
    let page = String::from_utf8_lossy(&page.stdout).into_owned();
    // As config/packaging/build-deb reads them.
    let named: BTreeSet<String> = page
        .lines()
        .filter_map(|line| line.strip_prefix("shop\\-")?.strip_suffix("(1)"))
        .map(|name| name.replace('\\', ""))
        .collect();

    for command in ["serve", "work", "dead-letters", "completions"] {
        assert!(named.contains(command), "{named:?}");
    }
    for command in named.iter().filter(|command| *command != "help") {
        let page = run_to_end(&backend, &["man", command], &[]);
        assert!(page.status.success(), "{command}");
        assert!(String::from_utf8_lossy(&page.stdout).contains(".TH"), "{command}");
    }
}

/// The kustomizations, each with its folder.
fn kustomizations() -> Vec<(PathBuf, Value)> {
    let files = files(&Path::new(ROOT).join("config/kubernetes"), "yaml");
    let files = files.iter().filter(|file| file.ends_with("kustomization.yaml"));
    files
        .map(|file| (file.parent().expect("a folder").to_owned(), parse_yaml(file).remove(0)))
        .collect()
}

/// The names of what the generators of a kustomization put into settings and secrets.
fn generated(folder: &Path, kustomization: &Value) -> BTreeSet<String> {
    let mut names = BTreeSet::new();
    for key in ["configMapGenerator", "secretGenerator"] {
        for generator in kustomization[key].as_array().into_iter().flatten() {
            let mut lines = strings(&generator["literals"]).join("\n");
            for file in strings(&generator["envs"]) {
                lines += "\n";
                lines += &fs::read_to_string(folder.join(file)).expect("a file of variables");
            }
            let pairs = lines.lines().filter(|line| !line.starts_with('#'));
            names.extend(pairs.filter_map(|line| Some(line.split_once('=')?.0.to_owned())));
        }
    }
    names
}

#[test]
fn every_kustomization_names_files_and_settings_that_there_are_and_this_version() {
    let defaults = parse_toml("config/default.toml");
    let mut named = BTreeSet::new();

    for (folder, kustomization) in kustomizations() {
        for key in ["resources", "components"] {
            for path in strings(&kustomization[key]) {
                let path = folder.join(path).canonicalize();
                let path = path.unwrap_or_else(|error| panic!("{key} of {}: {error}", folder.display()));
                assert!(path.is_file() || path.join("kustomization.yaml").is_file(), "{path:?}");
                named.insert(path);
            }
        }
        for image in kustomization["images"].as_array().into_iter().flatten() {
            assert_eq!(image["newTag"], version(), "{}", folder.display());
        }
        for name in generated(&folder, &kustomization) {
            if let Some(key) = name.strip_prefix("SHOP_") {
                assert!(defaults.get(key.to_lowercase()).is_some(), "{name} is not a setting");
            }
        }
    }

    for file in files(&Path::new(ROOT).join("config/kubernetes"), "yaml") {
        let is_kustomization = file.ends_with("kustomization.yaml");
        assert!(is_kustomization || named.contains(&file), "nothing names {file:?}");
    }
}

#[test]
fn every_container_of_kubernetes_is_hardened_and_runs_a_command_with_a_database_role() {
    let all = kustomizations();
    let variables: BTreeSet<String> = all
        .iter()
        .flat_map(|(folder, kustomization)| generated(folder, kustomization))
        .collect();
    let mut commands = BTreeSet::new();

    let manifests = files(&Path::new(ROOT).join("config/kubernetes"), "yaml");
    for document in manifests.iter().flat_map(|file| parse_yaml(file)) {
        if document["kind"] == "Deployment" {
            // One machine that dies takes not all processes of a kind with it.
            let spread = &document["spec"]["template"]["spec"]["topologySpreadConstraints"][0];
            assert_eq!(spread["labelSelector"], document["spec"]["selector"], "{document}");
        }
        let containers = &document["spec"]["template"]["spec"]["containers"];
        for container in containers.as_array().into_iter().flatten() {
            assert_is_hardened(container);
            let arguments = strings(&container["args"]);
            assert_is_command(&arguments);
            commands.extend(arguments.iter().map(|word| (*word).to_owned()));

            let role = &container["env"][0]["valueFrom"]["secretKeyRef"]["key"];
            assert!(variables.contains(role.as_str().expect("a key")), "{role}");
        }
    }
    assert_eq!(commands, UNITS.map(str::to_owned).into());
}

fn assert_is_hardened(container: &Value) {
    let context = &container["securityContext"];
    assert_eq!(context["readOnlyRootFilesystem"], true, "{container}");
    assert_eq!(context["allowPrivilegeEscalation"], false, "{container}");
    assert_eq!(strings(&context["capabilities"]["drop"]), ["ALL"], "{container}");
    assert!(container["resources"]["limits"]["memory"].is_string(), "{container}");
}

#[test]
fn the_image_says_what_it_is_and_which_version() {
    let dockerfile = read("Dockerfile");
    let workflow = read(".github/workflows/release.yml");
    for (text, labels) in [
        (&dockerfile, ["title", "description", "licenses", "base.name"]),
        (&workflow, ["version", "revision", "created", "source"]),
    ] {
        for label in labels {
            assert!(text.contains(&format!("org.opencontainers.image.{label}=")), "{label}");
        }
    }
    assert!(workflow.contains("sbom: true") && workflow.contains("provenance: mode=max"));
}

#[test]
fn every_workflow_runs_scripts_that_there_are_and_names_the_version_of_each_action() {
    let workflows = files(&Path::new(ROOT).join(".github/workflows"), "yml");
    assert!(workflows.len() > 2, "{workflows:?}");
    let scripts = ["tests/", "config/packaging/", ".ci/"];

    for file in workflows {
        let document = parse_yaml(&file).remove(0);
        let jobs = document["jobs"].as_object().expect("jobs");
        for (job, steps) in jobs.iter().map(|(job, body)| (job, &body["steps"])) {
            assert!(jobs[job]["timeout-minutes"].is_number(), "{file:?}: {job}");
            for step in steps.as_array().expect("steps") {
                if let Some(action) = step["uses"].as_str() {
                    let (_, version) = action.split_once('@').expect(action);
                    assert!(version.starts_with('v') && version.len() > 1, "{action}");
                }
                let words = step["run"].as_str().unwrap_or_default().split_whitespace();
                for word in words.filter(|word| scripts.iter().any(|folder| word.starts_with(folder))) {
                    assert!(Path::new(ROOT).join(word).is_file(), "{file:?} runs {word}");
                }
            }
        }
    }
}
