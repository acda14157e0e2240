//! Each message that a document shows in JSON is one of the contract.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

use std::path::{Path, PathBuf};

use proto::metadata::{BatchMetadata, Progress};
use proto::put::Put;
use proto::ticket::Ticket;

/// Reads a message. Returns the reason if the message violates the contract.
type Read = fn(&[u8]) -> Result<(), String>;

/// The beginnings of the messages in JSON.
const KINDS: [(&str, Read); 4] = [
    ("{\"read\":", read::<Ticket>),
    ("{\"put\":", read::<Put>),
    ("{\"range\":", read::<BatchMetadata>),
    ("{\"received\":", read::<Progress>),
];

fn read<M: proto::Message>(json: &[u8]) -> Result<(), String> {
    M::decode(json).map(drop).map_err(|error| error.to_string())
}

fn documents(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(folder).into_iter().flatten() {
        let path = entry.unwrap().path();
        let is_document = path.extension().is_some_and(|extension| extension == "md" || extension == "proto");
        if path.is_dir() {
            documents(&path, found);
        } else if is_document {
            found.push(path);
        }
    }
}

/// Returns the text up to the brace that closes its first one.
fn object(text: &str) -> Option<&str> {
    let mut depth = 0;
    for (index, character) in text.char_indices() {
        match character {
            '{' => depth += 1,
            '}' => depth -= 1,
            _ => {}
        }
        if depth == 0 {
            return Some(&text[..=index]);
        }
    }
    None
}

#[test]
fn each_message_in_a_document_is_one_of_the_contract() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    let mut files = vec![root.join("README.md"), root.join("ARCHITECTURE.md")];
    documents(&root.join("docs"), &mut files);
    documents(&root.join("proto"), &mut files);
    let mut count = 0;
    for file in files {
        let text = std::fs::read_to_string(&file).unwrap().replace("{ \"", "{\"").replace("\": ", "\":");
        for (begin, read) in KINDS {
            for (at, _) in text.match_indices(begin) {
                let message = object(&text[at..]).unwrap_or(&text[at..]);
                // An ellipsis stands for what a document leaves out.
                if !message.contains('…') {
                    let error = read(message.as_bytes()).err();
                    assert_eq!(error, None, "{}: {message}", file.display());
                    count += 1;
                }
            }
        }
    }
    assert!(count > 5, "only {count} messages were found");
}
