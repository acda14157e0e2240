//! Which records of a client that was closed are not in the topic: those that the next client sends.

use std::collections::HashMap;

use rdkafka::Message;

use crate::resume::origin;

/// The records in the topic that may be ours, counted: their key, file and line.
#[derive(Default)]
pub(crate) struct Appended(HashMap<Identity, u64>);

/// Records that are in the topic, and those that are not, with their numbers.
type Split<M> = (Vec<(usize, M)>, Vec<(usize, M)>);

type Identity = (Vec<u8>, Vec<u8>, u64);

impl Appended {
    /// Takes in a record of the topic.
    pub(crate) fn add(&mut self, record: &impl Message) {
        if let Some(identity) = identity(record) {
            *self.0.entry(identity).or_default() += 1;
        }
    }

    /// Splits `records`, which are in sending order, into those that are in the topic and those that are not.
    ///
    /// A line that was sent several times is in the topic from its first time on.
    pub(crate) fn split<M: Message>(mut self, records: Vec<(usize, M)>) -> Split<M> {
        records.into_iter().partition(|(_, record)| {
            let count = identity(record).and_then(|identity| self.0.get_mut(&identity));
            count.filter(|count| **count > 0).map(|count| *count -= 1).is_some()
        })
    }
}

fn identity(record: &impl Message) -> Option<Identity> {
    let (source, line) = origin(record)?;
    Some((record.key()?.to_owned(), source.to_owned(), line))
}

#[cfg(test)]
mod tests {
    use rdkafka::Timestamp;
    use rdkafka::message::{Header, OwnedHeaders, OwnedMessage};

    use super::Appended;
    use crate::sink::{LINE, SOURCE};

    fn record((symbol, line): (&str, u64)) -> OwnedMessage {
        let line = line.to_string();
        let headers = OwnedHeaders::new()
            .insert(Header { key: SOURCE, value: Some("a.csv") })
            .insert(Header { key: LINE, value: Some(&line) });
        let (key, topic) = (Some(symbol.as_bytes().to_vec()), "topic".to_owned());
        OwnedMessage::new(None, key, topic, Timestamp::NotAvailable, 0, 0, Some(headers))
    }

    /// `in_topic` and `returned`: symbols and lines; `unsent`: the indexes of those returned that are to be sent.
    fn check(in_topic: &[(&str, u64)], returned: &[(&str, u64)], unsent: &[usize]) {
        let mut appended = Appended::default();
        for line in in_topic {
            appended.add(&record(*line));
        }
        let (_, rest) = appended.split(returned.iter().copied().map(record).enumerate().collect());
        let rest: Vec<usize> = rest.into_iter().map(|(index, _)| index).collect();
        assert_eq!(rest, unsent, "{in_topic:?} {returned:?}");
    }

    #[test]
    fn what_is_not_in_the_topic_is_sent_in_order() {
        check(&[], &[("ONE", 7), ("TWO", 7), ("ONE", 8)], &[0, 1, 2]);
        check(&[("ONE", 7)], &[("ONE", 7), ("TWO", 7), ("ONE", 8)], &[1, 2]);
        check(&[("TWO", 7), ("ONE", 7), ("ONE", 8)], &[("ONE", 7), ("TWO", 7), ("ONE", 8)], &[]);
    }

    #[test]
    fn a_line_that_was_sent_twice_is_in_the_topic_from_its_first_time_on() {
        check(&[("ONE", 2), ("ONE", 3)], &[("ONE", 2), ("ONE", 3), ("ONE", 2), ("ONE", 3)], &[2, 3]);
    }

    #[test]
    fn what_others_sent_changes_nothing() {
        check(&[("THREE", 7), ("ONE", 9)], &[("ONE", 7), ("ONE", 8)], &[0, 1]);
    }
}
