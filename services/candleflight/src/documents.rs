//! Documents that must agree with the program: the reference of all flags, the names of metrics, and the links between pages.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use clap::{Arg, Command, CommandFactory as _};
use service::metrics::names::ALL;

use crate::Cli;

/// Width of the help in the document.
const WIDTH: usize = 120;

pub(crate) fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .ancestors()
        .nth(2)
        .expect("the crate lies in the checkout")
        .to_owned()
}

/// Adds the help of a command and of its subcommands.
fn describe(command: &Command, name: &str, document: &mut String) {
    let help = command.clone().term_width(WIDTH).mut_args(|arg: Arg| arg.hide_env_values(true));
    let help = help.bin_name(name).render_long_help();
    let help = help.to_string();
    let lines: Vec<&str> = help.lines().map(str::trim_end).collect();
    writeln!(document, "\n## {name}\n\n```text\n{}\n```", lines.join("\n").trim_end()).expect("text");
    for subcommand in command.get_subcommands().filter(|subcommand| subcommand.get_name() != "help") {
        describe(subcommand, &format!("{name} {}", subcommand.get_name()), document);
    }
}

/// `CANDLEFLIGHT_UPDATE=1 cargo test -p candleflight documents` writes the file again.
#[test]
fn the_reference_of_all_flags_is_the_help() {
    let mut document = "# Configuration\n\nThe help of every command, with each flag, its environment variable and its default. A test compares \
                        this page with the program.\n"
        .to_owned();
    describe(&Cli::command(), "candleflight", &mut document);
    let file = root().join("docs/configuration.md");
    if std::env::var_os("CANDLEFLIGHT_UPDATE").is_some() {
        std::fs::write(&file, &document).unwrap();
    }
    let found = std::fs::read_to_string(&file).unwrap_or_default();
    assert!(
        found == document,
        "{} differs from the help: set CANDLEFLIGHT_UPDATE=1 and test again",
        file.display()
    );
}

fn pages(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let is_hidden = name.starts_with('.') && name != ".github";
        if path.is_dir() && !is_hidden && name != "target" && name != "node_modules" {
            pages(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "md") {
            found.push(path);
        }
    }
}

/// Returns the anchor that a page gives to a heading.
fn anchor(heading: &str) -> String {
    let kept = heading.trim_start_matches('#').trim().to_lowercase();
    let kept = kept.chars().filter(|char| char.is_alphanumeric() || matches!(char, ' ' | '-' | '_'));
    kept.map(|char| if char == ' ' { '-' } else { char }).collect()
}

#[test]
fn each_link_between_pages_leads_somewhere() {
    let mut files = Vec::new();
    pages(&root(), &mut files);
    let mut broken = Vec::new();
    for file in &files {
        let text = std::fs::read_to_string(file).unwrap();
        for (at, _) in text.match_indices("](") {
            let target = text[at + 2..].split([')', ' ']).next().unwrap_or_default();
            if target.is_empty() || target.contains("://") || target.starts_with("mailto:") {
                continue;
            }
            let (path, fragment) = target.split_once('#').unwrap_or((target, ""));
            let page = if path.is_empty() { file.clone() } else { file.parent().unwrap().join(path) };
            let headings = || std::fs::read_to_string(&page).unwrap_or_default();
            let has_anchor = || {
                let text = headings();
                let mut anchors = text.lines().filter(|line| line.starts_with('#')).map(anchor);
                anchors.any(|anchor| anchor == fragment)
            };
            if !page.exists() || !fragment.is_empty() && !has_anchor() {
                broken.push(format!("{}: {target}", file.display()));
            }
        }
    }
    assert!(files.len() > 10 && broken.is_empty(), "{} pages, broken links: {broken:#?}", files.len());
}

/// Returns the metrics that a text names, without the suffixes of a histogram's series.
fn metrics_in(text: &str) -> impl Iterator<Item = &str> {
    let is_name = |char: char| char.is_ascii_lowercase() || char.is_ascii_digit() || char == '_';
    let words = text.split(move |char: char| !is_name(char));
    let words = words.filter(|word| word.len() > "candleflight_".len() && word.starts_with("candleflight_"));
    words.map(|word| {
        let suffixes = ["_bucket", "_count", "_sum"];
        suffixes.iter().find_map(|suffix| word.strip_suffix(suffix)).unwrap_or(word)
    })
}

#[test]
fn dashboards_and_rules_name_metrics_that_exist() {
    let known: Vec<&str> = ALL.iter().map(|metric| metric.name).collect();
    let dashboards = std::fs::read_dir(root().join("deploy/grafana/dashboards")).unwrap();
    let dashboards = dashboards.map(|entry| entry.unwrap().path()).filter(|path| path.is_file());
    let rules =
        ["prometheus.rules.yml", "prometheus.rules.test.yml"].map(|name| root().join("deploy").join(name));
    let files: Vec<PathBuf> = dashboards.chain(rules).collect();
    let texts: Vec<String> = files.iter().map(|file| std::fs::read_to_string(file).unwrap()).collect();
    let named: Vec<&str> = texts.iter().flat_map(|text| metrics_in(text)).collect();
    let unknown: Vec<_> = named.iter().filter(|name| !known.contains(name)).collect();
    assert!(named.len() > 20 && unknown.is_empty(), "no such metrics: {unknown:?}");
}

#[test]
fn the_page_of_metrics_describes_each() {
    let page = std::fs::read_to_string(root().join("docs/metrics.md")).unwrap();
    let described =
        |name: &str| page.contains(&format!("| `{}` |", name.trim_start_matches("candleflight_")));
    let missing: Vec<&str> = ALL.iter().map(|metric| metric.name).filter(|name| !described(name)).collect();
    assert!(missing.is_empty(), "docs/metrics.md lacks {missing:?}");
}
