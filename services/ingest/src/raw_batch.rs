//! Consecutive messages of one partition, not decoded: the thread that polls has no time for that.

use position::OffsetRange;
use rdkafka::Message as _;
use rdkafka::message::BorrowedMessage;

/// A Kafka message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Message<'a> {
    /// Offset in the partition.
    pub offset: i64,
    /// Time at which the message was produced or appended, in Unix milliseconds. `None` if the message has no time.
    pub kafka_millis: Option<i64>,
    /// Key. `None` if it is null.
    pub key: Option<&'a [u8]>,
    /// Value. `None` if it is null.
    pub payload: Option<&'a [u8]>,
}

impl<'a> From<&'a BorrowedMessage<'_>> for Message<'a> {
    fn from(message: &'a BorrowedMessage<'_>) -> Self {
        Message {
            offset: message.offset(),
            kafka_millis: message.timestamp().to_millis(),
            key: message.key(),
            payload: message.payload(),
        }
    }
}

/// Consecutive messages of one partition, ascending by offset.
#[derive(Debug)]
pub(crate) struct RawBatch {
    range: OffsetRange,
    entries: Vec<Entry>,
    /// Keys and payloads, joined.
    bytes: Vec<u8>,
}

/// A message whose key and payload are in [`RawBatch::bytes`].
#[derive(Debug)]
struct Entry {
    offset: i64,
    kafka_millis: Option<i64>,
    /// Length of the key. `None` if the key is null.
    key: Option<usize>,
    /// Length of the payload. `None` if the payload is null.
    payload: Option<usize>,
}

impl RawBatch {
    /// Creates an empty run. Its range begins at `first`, even if its first message has a later offset.
    pub(crate) fn new(partition: i32, first: i64) -> Self {
        let range = OffsetRange { partition, first, next: first };
        RawBatch { range, entries: Vec::new(), bytes: Vec::new() }
    }

    /// Adds a message. The range then ends after it.
    pub(crate) fn push(&mut self, message: Message<'_>) {
        let Message { offset, kafka_millis, key, payload } = message;
        for bytes in [key, payload].into_iter().flatten() {
            self.bytes.extend_from_slice(bytes);
        }
        let (key, payload) = (key.map(<[u8]>::len), payload.map(<[u8]>::len));
        self.entries.push(Entry { offset, kafka_millis, key, payload });
        self.range.next = offset + 1;
    }

    /// Returns the offsets that the messages stand for.
    pub(crate) fn range(&self) -> OffsetRange {
        self.range
    }

    /// Returns the number of messages.
    pub(crate) fn count(&self) -> usize {
        self.entries.len()
    }

    /// Returns the memory that the messages take, in bytes.
    pub(crate) fn bytes(&self) -> usize {
        self.bytes.len() + self.entries.len() * size_of::<Entry>()
    }

    /// Takes all messages out and starts an empty run, whose range continues the range of these messages. Returns `None` if there are no
    /// messages.
    pub(crate) fn take(&mut self) -> Option<RawBatch> {
        let next = RawBatch::new(self.range.partition, self.range.next);
        (!self.range.is_empty()).then(|| std::mem::replace(self, next))
    }

    /// Returns the messages one by one.
    pub(crate) fn iter(&self) -> impl Iterator<Item = Message<'_>> {
        let mut rest = self.bytes.as_slice();
        let mut cut = move |len| rest.split_off(..len).expect("a length was added with its bytes");
        self.entries.iter().map(move |entry| Message {
            offset: entry.offset,
            kafka_millis: entry.kafka_millis,
            key: entry.key.map(&mut cut),
            payload: entry.payload.map(&mut cut),
        })
    }
}

#[cfg(test)]
mod tests;
