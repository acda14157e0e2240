//! A dead letter as PostgreSQL keeps it: for people to look at.

use kafka::dead_letter::{
    ERROR, REASON, SOURCE_KEY, SOURCE_OFFSET, SOURCE_PARTITION, SOURCE_TIMESTAMP, SOURCE_TOPIC,
};
use rdkafka::message::{BorrowedMessage, Headers as _, Message as _};

/// How much of a message is kept for people to look at, in characters.
const TEXT_CHARS_MAX: usize = 1000;

/// A message's place.
pub(super) struct Place {
    pub(super) topic: String,
    pub(super) partition: i32,
    pub(super) offset: i64,
}

/// A dead letter as PostgreSQL keeps it.
pub(super) struct Letter {
    /// Where the letter is.
    pub(super) place: Place,
    /// Where the message was that it holds.
    pub(super) source: Place,
    /// Reason, detail, key and message.
    pub(super) texts: [String; 4],
    /// When the letter was written, in Unix milliseconds; not later than now, so that no letter outlives all others.
    pub(super) millis: i64,
    /// When the message was produced, in Unix milliseconds, where the letter says so.
    pub(super) message_millis: Option<i64>,
}

impl Letter {
    /// Reads a letter; one that others wrote, without our headers, stands for itself.
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
        // Anybody may write a letter, with any time.
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

/// Returns the beginning of what may be text, without the character that PostgreSQL cannot hold.
fn text(bytes: Option<&[u8]>) -> String {
    // Four bytes a character at most; cutting first keeps a large message from being looked through.
    let bytes = bytes.unwrap_or_default();
    let text = String::from_utf8_lossy(&bytes[..bytes.len().min(4 * TEXT_CHARS_MAX)]);
    text.chars().take(TEXT_CHARS_MAX).map(|c| if c == '\0' { '\u{fffd}' } else { c }).collect()
}
