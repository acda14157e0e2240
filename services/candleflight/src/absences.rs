//! Tests of the section "What must stay absent" in ARCHITECTURE.md, as far as the source text shows it.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use crate::documents::root;

/// Files of the walk without I/O.
const MIDDLE: &[&str] = &[
    "crates/kernel/src",
    "crates/position/src",
    "crates/schema/src",
    "proto/src",
    "services/ingest/src/raw_batch.rs",
    "services/ingest/src/decode.rs",
    "services/ingest/src/decoded_batch.rs",
    "services/gold/src/aside.rs",
    "services/gold/src/candle.rs",
    "services/gold/src/run.rs",
    "services/gold/src/window.rs",
    "services/gold/src/rows.rs",
    "services/gold/src/state.rs",
    "services/flight/src/ipc.rs",
    "services/flight/src/bronze/buffer.rs",
    "services/flight/src/gold/changes.rs",
    "services/flight/src/follow/symbols.rs",
];
/// Words that open a file or a connection, or that sleep.
const IO: &[&str] = &[
    "std::fs",
    "tokio::fs",
    "std::net",
    "tokio::net",
    "sleep",
    "object_store",
    "tokio_postgres",
    "Consumer",
    "Producer",
    "reqwest",
];
/// Files that may import each other, because they hold two halves of one idea.
const HALVES: &[(&str, &str)] = &[("queries::watch::plan", "queries::watch::window")];

/// A source file of a crate: its path below the checkout, and its text without tests.
struct Source {
    path: String,
    text: String,
}

fn collect(folder: &Path, sources: &mut Vec<Source>) {
    let mut entries: Vec<PathBuf> =
        fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    entries.sort();
    for path in entries {
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        if path.is_dir() && name != "tests" && name != "target" {
            collect(&path, sources);
        } else if path.extension().is_some_and(|extension| extension == "rs") && name != "tests.rs" {
            let text = fs::read_to_string(&path).unwrap();
            let text = text.split("#[cfg(test)]\nmod tests {").next().unwrap_or_default();
            let lines = text.lines().filter(|line| !line.trim_start().starts_with("//"));
            let path = path.strip_prefix(root()).unwrap().to_string_lossy().into_owned();
            sources.push(Source { path, text: lines.collect::<Vec<_>>().join("\n") });
        }
    }
}

/// Returns the sources of all crates, without this file.
fn sources() -> Vec<Source> {
    let mut sources = Vec::new();
    for folder in ["crates", "services", "proto/src"] {
        collect(&root().join(folder), &mut sources);
    }
    sources.retain(|source| !source.path.ends_with("/absences.rs") && source.path.contains("src"));
    assert!(sources.len() > 100, "only {} sources", sources.len());
    sources
}

/// Checks that `word` is absent from all sources but those whose path contains one of `allowed`.
#[track_caller]
fn check_absent(word: &str, allowed: &[&str]) {
    let found: Vec<String> = sources()
        .into_iter()
        .filter(|source| source.text.contains(word) && !allowed.iter().any(|path| source.path.contains(path)))
        .map(|source| source.path)
        .collect();
    assert!(found.is_empty(), "{word:?} is in {found:?}");
}

#[test]
fn no_service_depends_on_another() {
    let services = ["producer", "ingest", "flight", "gold"];
    for service in services {
        let manifest = root().join("services").join(service).join("Cargo.toml");
        let manifest = fs::read_to_string(manifest).unwrap();
        for other in services {
            assert!(!manifest.contains(&format!("\n{other}.workspace")), "{service} depends on {other}");
        }
    }
}

#[test]
fn the_middle_of_the_walk_has_no_io() {
    let sources = sources();
    for path in MIDDLE {
        let middle: Vec<&Source> = sources.iter().filter(|source| source.path.starts_with(path)).collect();
        assert!(!middle.is_empty(), "{path} is gone");
        for source in middle {
            for word in IO {
                assert!(!source.text.contains(word), "{word} is in {}", source.path);
            }
        }
    }
}

#[test]
fn only_schema_finds_columns_by_literal_names() {
    for word in ["column_by_name(\"", "index_of(\"", "field_with_name(\""] {
        check_absent(word, &["crates/schema/"]);
    }
}

#[test]
fn only_the_lake_spells_the_folders_of_tables() {
    // The second one prints the addresses of the tables.
    for folder in ["streaming_raw", "gold_aggregates"] {
        check_absent(folder, &["crates/lake/src/spec.rs", "services/candleflight/src/up/servers.rs"]);
    }
}

#[test]
fn only_one_file_of_the_server_chooses_a_status() {
    let outside =
        ["crates/", "services/producer", "services/ingest", "services/gold", "services/candleflight"];
    let allowed = [&outside[..], &["services/flight/src/status.rs"]].concat();
    for word in ["Status::new(", "Code::", "Status::internal(", "Status::invalid_argument("] {
        check_absent(word, &allowed);
    }
}

#[test]
fn only_topic_id_is_unsafe() {
    check_absent("unsafe {", &["crates/topic-id/"]);
}

#[test]
fn no_channel_is_unbounded() {
    check_absent("unbounded", &[]);
}

/// The crates are those that `deny.toml` names. `cargo deny` also checks licences and advisories, where it is installed.
#[test]
fn crates_of_the_data_and_the_wire_have_one_version_and_all_crates_come_from_the_registry() {
    let rules = fs::read_to_string(root().join("deny.toml")).unwrap();
    let single: Vec<&str> = rules
        .lines()
        .filter(|line| line.contains("deny-multiple-versions = true"))
        .filter_map(|line| line.split('"').nth(1))
        .collect();
    assert!(single.contains(&"arrow") && single.contains(&"tonic"), "{single:?}");
    let lock = fs::read_to_string(root().join("Cargo.lock")).unwrap();
    for name in single {
        let count = lock.matches(&format!("\nname = \"{name}\"\n")).count();
        assert_eq!(count, 1, "{name} has {count} versions");
    }
    let sources = lock.lines().filter_map(|line| line.strip_prefix("source = \""));
    let foreign: Vec<&str> = sources.filter(|source| !source.starts_with("registry+")).collect();
    assert!(foreign.is_empty(), "{foreign:?}");
}

/// Returns the name of the module of a file, such as `queries::watch`. The name of a crate's root is empty.
fn module_of(path: &str) -> String {
    let below = path.split_once("src/").map_or(path, |(_, below)| below);
    let name = below.trim_end_matches(".rs").replace('/', "::");
    if name == "lib" || name == "main" { String::new() } else { name }
}

/// Returns the paths below `crate::` that a module names, with every name of a group in braces.
fn imports(module: &str, text: &str) -> BTreeSet<String> {
    let mut imports = BTreeSet::new();
    let inside =
        |module: &str| if module.is_empty() { "crate::".to_owned() } else { format!("crate::{module}::") };
    let parent = module.rsplit_once("::").map_or("", |(parent, _)| parent);
    let text = text.replace("super::", &inside(parent)).replace("self::", &inside(module));
    for (at, prefix) in text.match_indices("crate::") {
        let rest = &text[at + prefix.len()..];
        let is_path = |char: char| char.is_alphanumeric() || char == '_' || char == ':';
        let path: &str = rest.split(|char| !is_path(char)).next().unwrap_or_default();
        match rest[path.len()..].strip_prefix('{') {
            Some(group) => {
                let names = group.split('}').next().unwrap_or_default().split(',');
                imports.extend(names.map(|name| format!("{path}{}", name.trim())));
            }
            None => _ = imports.insert(path.to_owned()),
        }
    }
    imports
}

/// Returns true if one of the modules contains the other, or if they are the same.
fn are_family(one: &str, other: &str) -> bool {
    let is_in = |inner: &str, outer: &str| outer.is_empty() || inner.starts_with(&format!("{outer}::"));
    one == other || is_in(one, other) || is_in(other, one)
}

#[test]
fn no_circle_of_imports() {
    let mut crates: BTreeMap<String, BTreeMap<String, String>> = BTreeMap::new();
    for Source { path, text } in sources() {
        let Some((folder, _)) = path.split_once("src/") else { continue };
        crates.entry(folder.to_owned()).or_default().insert(module_of(&path), text);
    }
    let mut circles = BTreeSet::new();
    for modules in crates.values() {
        let target = |import: &str| {
            let ends = import.match_indices("::").map(|(at, _)| at).chain([import.len()]);
            ends.map(|end| &import[..end])
                .filter(|name| modules.contains_key(*name))
                .last()
                .map(str::to_owned)
        };
        let edges: BTreeMap<&str, BTreeSet<String>> = modules
            .iter()
            .map(|(name, text)| {
                let targets =
                    imports(name, text).iter().filter_map(|import| target(import)).collect::<BTreeSet<_>>();
                (name.as_str(), targets.into_iter().filter(|other| !are_family(name, other)).collect())
            })
            .collect();
        for start in edges.keys().copied() {
            let (mut open, mut reached) = (vec![start], BTreeSet::new());
            while let Some(module) = open.pop() {
                for next in edges.get(module).into_iter().flatten() {
                    if reached.insert(next.as_str()) {
                        open.push(next);
                    }
                }
            }
            let is_half = HALVES.iter().any(|(one, other)| *one == start || *other == start);
            if reached.contains(start) && !is_half {
                circles.insert(start.to_owned());
            }
        }
    }
    assert!(circles.is_empty(), "these files import each other in a circle: {circles:#?}");
}
