//! The latest warnings and errors of a process, kept as they are logged.

use std::collections::{BTreeMap, VecDeque};
use std::error::Error;
use std::fmt;
use std::sync::{Arc, Mutex};

use serde::{Deserialize, Serialize};
use tracing::field::{Field, Visit};
use tracing::{Level, Subscriber};
use tracing_subscriber::layer::{Context, Layer};

use super::lock;
use crate::clock::now_micros;

/// Log target of dead letters. They are kept apart from other events, so that neither kind displaces the other.
pub const DEAD_LETTER_TARGET: &str = "dead_letter";
/// Maximum number of kept events of each kind: one page.
const EVENTS_MAX: usize = 30;
/// Longest text that is kept, in characters.
const TEXT_CHARS_MAX: usize = 500;

/// A log line that may need a person's action.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Event {
    /// Time of the event, in microseconds UTC.
    pub at_micros: i64,
    /// `WARN` or `ERROR`.
    pub level: String,
    /// Log target: the module that logged it, or [`DEAD_LETTER_TARGET`].
    pub target: String,
    /// Message of the log line.
    pub message: String,
    /// Fields of the log line; an error includes all its causes.
    pub fields: BTreeMap<String, String>,
}

/// Store of the latest events, and the layer of the process's log that fills it. Clones share it.
#[derive(Clone, Debug, Default)]
pub struct Events(Arc<Mutex<Kept>>);

#[derive(Debug, Default)]
struct Kept {
    events: VecDeque<Event>,
    dead_letters: VecDeque<Event>,
}

impl Events {
    /// Returns the latest events and the latest dead letters, each oldest first.
    pub(super) fn latest(&self) -> (Vec<Event>, Vec<Event>) {
        let kept = lock(&self.0);
        (kept.events.iter().cloned().collect(), kept.dead_letters.iter().cloned().collect())
    }
}

impl<S: Subscriber> Layer<S> for Events {
    fn on_event(&self, event: &tracing::Event<'_>, _: Context<'_, S>) {
        let metadata = event.metadata();
        if *metadata.level() > Level::WARN {
            return;
        }
        let mut texts = Texts::default();
        event.record(&mut texts);
        let Texts { message, fields } = texts;
        let kept = Event {
            at_micros: now_micros(),
            level: metadata.level().to_string(),
            target: metadata.target().to_owned(),
            message,
            fields,
        };
        let mut all = lock(&self.0);
        let ring =
            if metadata.target() == DEAD_LETTER_TARGET { &mut all.dead_letters } else { &mut all.events };
        if ring.len() == EVENTS_MAX {
            ring.pop_front();
        }
        ring.push_back(kept);
    }
}

/// The fields of an event as text.
#[derive(Default)]
struct Texts {
    message: String,
    fields: BTreeMap<String, String>,
}

impl Texts {
    fn set(&mut self, field: &Field, text: &str) {
        let text = text.chars().take(TEXT_CHARS_MAX).collect();
        if field.name() == "message" {
            self.message = text;
        } else {
            self.fields.insert(field.name().to_owned(), text);
        }
    }
}

impl Visit for Texts {
    fn record_str(&mut self, field: &Field, value: &str) {
        self.set(field, value);
    }

    fn record_error(&mut self, field: &Field, value: &(dyn Error + 'static)) {
        self.set(field, &crate::error::sentence(value));
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.set(field, &format!("{value:?}"));
    }
}
