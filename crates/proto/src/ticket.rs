//! The tickets of DoGet.

use arrow_flight::Ticket as FlightTicket;
use position::Position;
use serde::{Deserialize, Serialize};

use crate::DecodeError;

/// What a DoGet reads, as JSON. Flight SQL's own tickets are protobuf and never begin with `{`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "read", rename_all = "snake_case", deny_unknown_fields)]
pub enum Ticket {
    /// Bronze in offset order: `{"read":"bronze","from":{"0":128}}`.
    Bronze(Bronze),
    /// The candles of one symbol around a span of event time, as of an offset: what gold needs to recompute late rows.
    History(History),
}

/// Reads bronze in offset order, partition by partition, every offset exactly once.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Bronze {
    /// Where to start; a partition that is absent starts at its first offset in bronze.
    #[serde(default)]
    pub from: Position,
    /// Where to stop; the stream waits until bronze has received that far and then ends. Partitions that are absent are not read.
    /// Without it the stream follows new batches for ever.
    #[serde(default)]
    pub until: Option<Position>,
}

/// Reads one symbol's candles with an event time in `span` (micros, both ends inclusive) and an offset below `below_offset`, widened on both sides by
/// `margin`; the later offset wins where an event time occurs twice. Rows ascend by event time.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct History {
    /// The symbol.
    pub symbol: String,
    /// The Kafka partition of the symbol.
    pub partition: i32,
    /// Only offsets below this one count. The server waits until it has received all of them.
    pub below_offset: i64,
    /// First event time, microseconds UTC.
    pub first_micros: i64,
    /// Last event time, microseconds UTC; [`i64::MAX`] for all that follows.
    pub last_micros: i64,
    /// How much to add on both sides.
    pub margin: Margin,
}

/// How much history a window looks back on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Margin {
    /// Candles less than this many microseconds before the first or after the last event time.
    Micros(i64),
    /// This many candles before the first and after the last event time.
    Rows(u32),
}

impl Ticket {
    /// Writes the ticket.
    pub fn encode(&self) -> FlightTicket {
        FlightTicket::new(crate::encode(self))
    }

    /// Reads a ticket.
    ///
    /// # Errors
    ///
    /// [`DecodeError`] when the bytes are no ticket of ours: the client's mistake.
    pub fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        crate::decode("ticket", bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::{Bronze, History, Margin, Ticket};

    #[track_caller]
    fn check(json: &str, ticket: &Ticket) {
        assert_eq!(Ticket::decode(json.as_bytes()).unwrap(), *ticket);
        assert_eq!(Ticket::decode(&ticket.encode().ticket).unwrap(), *ticket);
    }

    #[test]
    fn a_position_is_read_from_a_ticket() {
        let from = [(0, 128), (11, 9)].into_iter().collect();
        check(r#"{"read":"bronze","from":{"0":128,"11":9}}"#, &Ticket::Bronze(Bronze { from, until: None }));
        let until = Some([(0, 1)].into_iter().collect());
        check(r#"{"read":"bronze","until":{"0":1}}"#, &Ticket::Bronze(Bronze { until, ..Bronze::default() }));
        check(r#"{"read":"bronze"}"#, &Ticket::Bronze(Bronze::default()));
    }

    #[test]
    fn a_history_is_read_from_a_ticket() {
        let history = History {
            symbol: "BTC-USD".to_owned(),
            partition: 0,
            below_offset: 7,
            first_micros: 1,
            last_micros: i64::MAX,
            margin: Margin::Rows(29),
        };
        let json = r#"{"read":"history","symbol":"BTC-USD","partition":0,"below_offset":7,"first_micros":1,
            "last_micros":9223372036854775807,"margin":{"rows":29}}"#;
        check(json, &Ticket::History(history));
    }
}
