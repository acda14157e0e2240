//! A dead letter in the form that PostgreSQL stores for people to read.

use kafka::dead_letter::{
    ERROR, REASON, SOURCE_KEY, SOURCE_OFFSET, SOURCE_PARTITION, SOURCE_TIMESTAMP, SOURCE_TOPIC,
};
use rdkafka::message::{BorrowedMessage, Headers as _, Message as _};

/// Longest part of a message that is kept for people to read, in characters.
const TEXT_CHARS_MAX: usize = 1000;

/// Place of a message.
pub(super) struct Place {
    pub(super) topic: String,
    pub(super) partition: i32,
    pub(super) offset: i64,
}

/// A dead letter in the form that PostgreSQL stores.
pub(super) struct Letter {
    /// Place of the letter.
    pub(super) place: Place,
    /// Place of the message in the letter.
    pub(super) source: Place,
    /// Reason, detail, key and message.
    pub(super) texts: [String; 4],
    /// Time at which the letter was written, in Unix milliseconds. It is at most the current time, so that no letter outlives all others.
    pub(super) millis: i64,
    /// Time at which the message was produced, in Unix milliseconds, if the letter contains it.
    pub(super) message_millis: Option<i64>,
}

impl Letter {
    /// Reads a letter. A letter that another program wrote has no source headers. The letter's own place is then the source.
    pub(super) fn of(message: &BorrowedMessage<'_>) -> Letter {
        let header = |name: &str| {
            let headers = message.headers()?;
            headers.iter().find(|header| header.key == name)?.value
        };
        let number = |name| std::str::from_utf8(header(name)?).ok()?.parse::<i64>().ok();
        let place = || Place {
            topic: message.topic().to_owned(),
            partition: message.partition(),
            offset: message.offset(),
        };
        let source = || {
            Some(Place {
                topic: text(header(SOURCE_TOPIC)),
                partition: number(SOURCE_PARTITION)?.try_into().ok()?,
                offset: number(SOURCE_OFFSET)?,
            })
        };
        let source = source().filter(|source| !source.topic.is_empty()).unwrap_or_else(place);
        let texts = [header(REASON), header(ERROR), header(SOURCE_KEY), message.payload()].map(text);
        let now = service::clock::now_micros() / 1000;
        // Any program may write a letter, with any time.
        let past = |millis: i64| millis.clamp(0, now);
        Letter {
            place: place(),
            source,
            texts,
            millis: past(message.timestamp().to_millis().unwrap_or(now)),
            message_millis: number(SOURCE_TIMESTAMP).map(past),
        }
    }
}

/// Returns the beginning of `bytes` as text, without the character that PostgreSQL cannot store.
fn text(bytes: Option<&[u8]>) -> String {
    // A character has at most four bytes. Cutting first avoids a scan of a large message.
    let bytes = bytes.unwrap_or_default();
    let text = String::from_utf8_lossy(&bytes[..bytes.len().min(4 * TEXT_CHARS_MAX)]);
    text.chars().take(TEXT_CHARS_MAX).map(|c| if c == '\0' { '\u{fffd}' } else { c }).collect()
}
