//! The generated code is that of the `.proto` files, and the contract only grows.
//!
//! `CANDLEFLIGHT_UPDATE=1 cargo test -p proto --test contract` writes both files again.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use prost_types::field_descriptor_proto::{Label, Type};
use prost_types::{DescriptorProto, FieldDescriptorProto, FileDescriptorSet};

const FILES: [&str; 3] =
    ["candleflight/v1/candle.proto", "candleflight/v1/flight.proto", "candleflight/v1/status.proto"];

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn descriptors() -> FileDescriptorSet {
    protox::compile(FILES, [root()]).expect("the files are valid")
}

/// Checks that a file holds `text`, or writes it where the environment says so.
fn check(file: PathBuf, text: &str) {
    if std::env::var_os("CANDLEFLIGHT_UPDATE").is_some() {
        std::fs::write(&file, text).unwrap();
    }
    let found = std::fs::read_to_string(&file).unwrap_or_default();
    assert!(found == text, "{} is not up to date: set CANDLEFLIGHT_UPDATE=1 and test again", file.display());
}

#[test]
fn the_generated_code_is_that_of_the_files() {
    let folder = std::env::temp_dir().join(format!("candleflight-proto-{}", std::process::id()));
    std::fs::create_dir_all(&folder).unwrap();
    let mut config = prost_build::Config::new();
    config.btree_map(["."]).out_dir(&folder);
    config.compile_fds(descriptors()).unwrap();
    let generated = std::fs::read_to_string(folder.join("candleflight.v1.rs")).unwrap();
    std::fs::remove_dir_all(&folder).unwrap();
    check(root().join("src/v1.rs"), &generated);
}

/// Describes each field in a line.
fn contract() -> BTreeSet<String> {
    let mut lines = BTreeSet::new();
    for file in descriptors().file {
        for message in &file.message_type {
            describe(file.package(), message, &mut lines);
        }
    }
    lines
}

fn describe(parent: &str, message: &DescriptorProto, lines: &mut BTreeSet<String>) {
    let name = format!("{parent}.{}", message.name());
    lines.insert(format!("message {name}"));
    for field in &message.field {
        lines.insert(format!("field {name} {} = {}: {}", field.name(), field.number(), kind(message, field)));
    }
    for nested in &message.nested_type {
        describe(&name, nested, lines);
    }
}

fn kind(message: &DescriptorProto, field: &FieldDescriptorProto) -> String {
    let kind = match field.r#type() {
        Type::Message => field.type_name().to_owned(),
        scalar => scalar.as_str_name().to_owned(),
    };
    let is_optional = field.proto3_optional();
    let choice = field.oneof_index.filter(|_| !is_optional).map(|index| {
        let index = usize::try_from(index).expect("an index");
        format!(" oneof {}", message.oneof_decl[index].name())
    });
    let label = match field.label() {
        Label::Repeated => " repeated",
        _ if is_optional => " optional",
        _ => "",
    };
    format!("{kind}{label}{}", choice.unwrap_or_default())
}

/// A field that is taken away, or gets another number, name or type, breaks clients: it must be a new version of the package.
#[test]
fn the_contract_only_grows() {
    let file = root().join("candleflight/v1/contract.txt");
    let (now, before) = (contract(), std::fs::read_to_string(&file).unwrap_or_default());
    let broken: Vec<&str> = before.lines().filter(|line| !now.contains(*line)).collect();
    assert!(broken.is_empty(), "these parts of v1 are gone or changed, which breaks clients: {broken:#?}");
    let text: String = now.iter().map(|line| format!("{line}\n")).collect();
    check(file, &text);
}
