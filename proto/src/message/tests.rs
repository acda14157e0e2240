use position::{OffsetRange, Origin, Position, Topic};
use proptest::prelude::*;

use super::{Encoding, Message};
use crate::metadata::{BatchMetadata, Progress};
use crate::put::Put;
use crate::ticket::{Follow, History, Margin, Start, Ticket};

/// Times that a ticket in JSON can hold: the years 1970 to 2262, in microseconds.
const TIMES: std::ops::Range<i64> = 0..9_223_372_036_854_775;

fn position() -> impl Strategy<Value = Position> {
    prop::collection::btree_map(0..i32::MAX, 0..i64::MAX, 0..4).prop_map(|next| next.into_iter().collect())
}

fn follow() -> impl Strategy<Value = Follow> {
    let start =
        prop_oneof![position().prop_map(Start::Position), Just(Start::Now), TIMES.prop_map(Start::Time),];
    let symbols = prop::option::of(prop::collection::vec(any::<String>(), 0..3));
    (start, prop::option::of(position()), symbols, prop::option::of(any::<String>()))
        .prop_map(|(from, until, symbols, table)| Follow { from, until, symbols, table })
}

fn ticket() -> impl Strategy<Value = Ticket> {
    let margin = prop_oneof![any::<i64>().prop_map(Margin::Micros), any::<u32>().prop_map(Margin::Rows)];
    let history =
        (any::<String>(), position(), any::<i64>(), any::<i64>(), margin, prop::option::of(any::<String>()))
            .prop_map(|(symbol, below, first_micros, last_micros, margin, table)| History {
                symbol,
                below,
                first_micros,
                last_micros,
                margin,
                table,
            });
    prop_oneof![
        follow().prop_map(Ticket::Bronze),
        follow().prop_map(Ticket::Gold),
        history.prop_map(Ticket::History),
    ]
}

fn topic() -> impl Strategy<Value = Topic> {
    (any::<String>(), prop::option::of(any::<String>())).prop_map(|(name, id)| Topic { name, id })
}

fn progress() -> impl Strategy<Value = Progress> {
    let origin = (topic(), any::<String>()).prop_map(|(topic, table)| Origin { topic, table });
    (position(), position(), prop::option::of(origin)).prop_map(|(received, durable, origin)| Progress {
        received,
        durable,
        origin,
    })
}

/// Checks that both encodings give the message back, and that the first byte tells them apart.
fn check<M: Message + PartialEq + std::fmt::Debug>(message: &M) {
    for encoding in [Encoding::Json, Encoding::Protobuf] {
        let bytes = message.encode(encoding);
        assert_eq!(Encoding::of(&bytes), encoding);
        assert_eq!(M::decode(&bytes).unwrap(), *message);
    }
}

proptest! {
    #[test]
    fn both_encodings_of_a_ticket_say_the_same(ticket in ticket()) {
        check(&ticket);
        prop_assert!(Ticket::is_ours(&ticket.encode(Encoding::Json)));
        prop_assert!(Ticket::is_ours(&ticket.encode(Encoding::Protobuf)));
    }

    #[test]
    fn both_encodings_of_metadata_say_the_same(partition in any::<i32>(), first in any::<i64>(), next in any::<i64>()) {
        check(&BatchMetadata { range: OffsetRange { partition, first, next } });
    }

    #[test]
    fn both_encodings_of_progress_say_the_same(progress in progress()) {
        check(&progress);
    }

    #[test]
    fn both_encodings_of_a_put_say_the_same(topic in prop::option::of(topic())) {
        for put in [Put::Bronze { topic }, Put::Gold {}] {
            check(&put);
            prop_assert!(Put::is_ours(&put.encode(Encoding::Json)) && Put::is_ours(&put.encode(Encoding::Protobuf)));
        }
    }

    #[test]
    fn any_bytes_are_read_or_rejected(bytes in prop::collection::vec(any::<u8>(), 0..64)) {
        let _read_or_rejected = Ticket::decode(&bytes);
        let _read_or_rejected = BatchMetadata::decode(&bytes);
        let _read_or_rejected = Progress::decode(&bytes);
    }
}

#[test]
fn a_message_that_lacks_a_part_is_rejected_with_what_is_missing() {
    use prost::Message as _;
    let check = |bytes: &[u8], reason: &str| {
        let cause = Ticket::decode(bytes).unwrap_err().to_string();
        assert!(cause.contains(reason), "{cause}");
    };
    let history =
        crate::v1::Ticket { read: Some(crate::v1::ticket::Read::History(crate::v1::History::default())) };
    check(&history.encode_to_vec(), "margin");
    let negative = crate::v1::Position { next: [(0, -1)].into() };
    let follow = crate::v1::Follow { until: Some(negative), ..crate::v1::Follow::default() };
    let bronze = crate::v1::Ticket { read: Some(crate::v1::ticket::Read::Bronze(follow)) };
    check(&bronze.encode_to_vec(), "negative");
    check(b"\x12\xff", "as Protobuf");
    check(b"{", "as JSON");
}
