use proptest::prelude::*;

use super::{Message, RawBatch};

/// Number of offsets missing before a message, its time, key and value, and whether messages are taken out after it.
type Step = (i64, Option<i64>, Option<Vec<u8>>, Option<Vec<u8>>, bool);

fn step() -> impl Strategy<Value = Step> {
    let bytes = || prop::option::of(prop::collection::vec(any::<u8>(), 0..20));
    (0..3_i64, any::<Option<i64>>(), bytes(), bytes(), any::<bool>())
}

proptest! {
    /// Ranges join, and each message comes out as it went in, whatever offsets are missing and wherever messages are taken out.
    #[test]
    fn messages_come_out_as_they_went_in(steps in prop::collection::vec(step(), 1..50)) {
        let (mut open, mut taken) = (RawBatch::new(3, 100), Vec::new());
        let (mut offset, mut pushed) = (100, Vec::new());
        for (missing, kafka_millis, key, payload, is_taken) in &steps {
            offset += missing;
            let message = Message { offset, kafka_millis: *kafka_millis, key: key.as_deref(), payload: payload.as_deref() };
            let bytes = open.bytes();
            open.push(message);
            prop_assert!(open.bytes() > bytes);
            pushed.push(message);
            offset += 1;
            if *is_taken {
                taken.extend(open.take());
                prop_assert_eq!((open.count(), open.bytes()), (0, 0));
                prop_assert!(open.take().is_none());
            }
        }
        taken.extend(open.take());
        let mut next = 100;
        for messages in &taken {
            let range = messages.range();
            prop_assert_eq!((range.partition, range.first), (3, next));
            next = range.next;
            prop_assert!(messages.iter().all(|message| (range.first..range.next).contains(&message.offset)));
        }
        prop_assert_eq!(next, offset);
        prop_assert_eq!(taken.iter().flat_map(RawBatch::iter).collect::<Vec<_>>(), pushed);
    }
}
