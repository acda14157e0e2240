//! The tickets of DoGet.

mod start;

use position::Position;
use serde::{Deserialize, Serialize};

pub use self::start::Start;
use crate::Message;
use crate::metadata::position_of;
use crate::v1;

/// The first bytes of the tickets of [`Ticket`] in either encoding: `{`, and the tags of [`v1::Ticket`]'s fields. Those of Flight SQL
/// begin with the tag of field 1.
const FIRST_BYTES: [u8; 4] = [b'{', crate::tag(2), crate::tag(3), crate::tag(4)];

/// The ticket of a DoGet.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "read", rename_all = "snake_case", deny_unknown_fields)]
pub enum Ticket {
    /// Bronze in offset order, partition by partition, each offset once: `{"read":"bronze","from":{"0":128}}`.
    Bronze(Follow),
    /// The changes of gold, as upserts: `{"read":"gold","from":"now"}`. A row replaces the row of the same symbol and event time. A row can
    /// come again unchanged.
    Gold(Follow),
    /// The candles of one symbol around a span of event time, as of a position. Gold recomputes late rows from them.
    History(History),
}

/// A stream of a table from a position on, batch by batch, each with the offsets that it stands for.
///
/// The stream begins with an empty batch for each partition. Its empty range is the offset where the partition starts. The position after
/// any batch is where a reader continues.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Follow {
    /// The start of the stream.
    #[serde(default)]
    pub from: Start,
    /// End of the stream: the stream ends when the table has received these offsets. Bronze then sends no later row, and no partition that
    /// is absent here. Gold can also send later changes. Without this field, the stream has no end.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub until: Option<Position>,
    /// Symbols whose rows are sent. The ranges remain those of all symbols. Without this field, all rows are sent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub symbols: Option<Vec<String>>,
    /// Id of the bronze table that the positions belong to, as the `progress` action returns it. A server with a different table rejects
    /// the ticket. Without this field, any server accepts it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub table: Option<String>,
}

/// One symbol's candles between two event times, both included, with a margin on both sides, as of the position `below`.
///
/// The answer has one row for each event time and partition: the row of the latest offset that gold can hold. Rows ascend by event time
/// and partition.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct History {
    /// The symbol.
    pub symbol: String,
    /// Position: only offsets below it count. Partitions that are absent have no rows. The server waits until it has received these
    /// offsets.
    pub below: Position,
    /// First event time, microseconds UTC.
    pub first_micros: i64,
    /// Last event time, microseconds UTC. [`i64::MAX`] means no end.
    pub last_micros: i64,
    /// The margin before the first and after the last event time.
    pub margin: Margin,
    /// The id of the bronze table that the offset counts in, as in [`Follow::table`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub table: Option<String>,
}

/// The candles before the first and after the last event time of a history.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Margin {
    /// Candles less than this many microseconds before the first or after the last event time.
    Micros(i64),
    /// Minimum number of candles before the first and after the last event time. There are fewer if the table has fewer.
    Rows(u32),
}

impl Follow {
    /// Follows from `position` without an end. A partition that is absent from `position` starts at its beginning.
    pub fn from(position: Position) -> Self {
        Follow { from: Start::Position(position), ..Follow::default() }
    }

    /// Stops at `until`.
    pub fn until(self, until: Position) -> Self {
        Follow { until: Some(until), ..self }
    }

    /// Binds the positions to the bronze table `table`.
    pub fn of_table(self, table: String) -> Self {
        Follow { table: Some(table), ..self }
    }
}

impl Ticket {
    /// Returns true if the bytes are a ticket of this protocol, and not of Flight SQL.
    pub fn is_ours(bytes: &[u8]) -> bool {
        bytes.first().is_some_and(|first| FIRST_BYTES.contains(first))
    }
}

impl Message for Ticket {
    type Protobuf = v1::Ticket;

    const NAME: &'static str = "ticket";

    fn to_protobuf(&self) -> v1::Ticket {
        use v1::ticket::Read;
        let read = match self {
            Ticket::Bronze(follow) => Read::Bronze(follow.to_protobuf()),
            Ticket::Gold(follow) => Read::Gold(follow.to_protobuf()),
            Ticket::History(history) => Read::History(history.to_protobuf()),
        };
        v1::Ticket { read: Some(read) }
    }
}

impl TryFrom<v1::Ticket> for Ticket {
    type Error = String;

    fn try_from(ticket: v1::Ticket) -> Result<Self, String> {
        use v1::ticket::Read;
        Ok(match ticket.read.ok_or("the ticket reads nothing: it has none of bronze, gold and history")? {
            Read::Bronze(follow) => Ticket::Bronze(follow.try_into()?),
            Read::Gold(follow) => Ticket::Gold(follow.try_into()?),
            Read::History(history) => Ticket::History(history.try_into()?),
        })
    }
}

impl Follow {
    fn to_protobuf(&self) -> v1::Follow {
        use v1::follow::From;
        let from = match &self.from {
            Start::Position(position) => From::Position(position.into()),
            Start::Now => From::Now(v1::Now {}),
            Start::Time(micros) => From::TimeMicros(*micros),
        };
        v1::Follow {
            from: Some(from),
            until: self.until.as_ref().map(Into::into),
            symbols: self.symbols.clone().map(|symbols| v1::Symbols { symbols }),
            table: self.table.clone(),
        }
    }
}

impl TryFrom<v1::Follow> for Follow {
    type Error = String;

    fn try_from(follow: v1::Follow) -> Result<Self, String> {
        use v1::follow::From;
        let from = match follow.from {
            None => Start::default(),
            Some(From::Position(position)) => Start::Position(position_of(position)?),
            Some(From::Now(_)) => Start::Now,
            Some(From::TimeMicros(micros)) => Start::Time(micros),
        };
        Ok(Follow {
            from,
            until: follow.until.map(position_of).transpose()?,
            symbols: follow.symbols.map(|symbols| symbols.symbols),
            table: follow.table,
        })
    }
}

impl History {
    fn to_protobuf(&self) -> v1::History {
        let margin = match self.margin {
            Margin::Micros(micros) => v1::history::Margin::MarginMicros(micros),
            Margin::Rows(rows) => v1::history::Margin::MarginRows(rows),
        };
        v1::History {
            symbol: self.symbol.clone(),
            below: Some((&self.below).into()),
            first_micros: self.first_micros,
            last_micros: self.last_micros,
            margin: Some(margin),
            table: self.table.clone(),
        }
    }
}

impl TryFrom<v1::History> for History {
    type Error = String;

    fn try_from(history: v1::History) -> Result<Self, String> {
        let margin = match history.margin.ok_or("a history has a margin: margin_micros or margin_rows")? {
            v1::history::Margin::MarginMicros(micros) => Margin::Micros(micros),
            v1::history::Margin::MarginRows(rows) => Margin::Rows(rows),
        };
        Ok(History {
            symbol: history.symbol,
            below: position_of(history.below.ok_or("a history has a position: below")?)?,
            first_micros: history.first_micros,
            last_micros: history.last_micros,
            margin,
            table: history.table,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::{Follow, History, Margin, Start, Ticket};
    use crate::{Encoding, Message as _};

    #[track_caller]
    fn check(json: &str, ticket: &Ticket) {
        assert_eq!(Ticket::decode(json.as_bytes()).unwrap(), *ticket);
        for encoding in [Encoding::Json, Encoding::Protobuf] {
            let bytes = ticket.encode(encoding);
            assert_eq!(Ticket::decode(&bytes).unwrap(), *ticket);
            assert!(Encoding::of(&bytes) == encoding && Ticket::is_ours(&bytes));
        }
    }

    #[track_caller]
    fn check_refused(json: &str, reason: &str) {
        let cause = Ticket::decode(json.as_bytes()).unwrap_err().to_string();
        assert!(cause.contains(reason), "{json}: {cause}");
    }

    #[test]
    fn a_position_is_read_from_a_ticket() {
        let from = Follow::from([(0, 128), (11, 9)].into_iter().collect());
        check(r#"{"read":"bronze","from":{"0":128,"11":9}}"#, &Ticket::Bronze(from));
        let until = Follow::default().until([(0, 1)].into_iter().collect());
        check(r#"{"read":"bronze","until":{"0":1}}"#, &Ticket::Bronze(until));
        check(r#"{"read":"gold"}"#, &Ticket::Gold(Follow::default()));
    }

    #[test]
    fn a_start_is_a_position_now_or_a_time() {
        let from = |from| Ticket::Gold(Follow { from, ..Follow::default() });
        check(r#"{"read":"gold","from":"now"}"#, &from(Start::Now));
        let micros = 1_767_225_600_000_000;
        check(r#"{"read":"gold","from":{"time":"2026-01-01T00:00:00Z"}}"#, &from(Start::Time(micros)));
        check(r#"{"read":"gold","from":{"time":"2026-01-01T01:00:00+01:00"}}"#, &from(Start::Time(micros)));
    }

    #[test]
    fn symbols_are_read_from_a_ticket() {
        let symbols = Some(vec!["BTC-USD".to_owned()]);
        let ticket = Ticket::Bronze(Follow { from: Start::Now, symbols, ..Follow::default() });
        check(r#"{"read":"bronze","from":"now","symbols":["BTC-USD"]}"#, &ticket);
    }

    #[test]
    fn a_table_is_read_from_a_ticket() {
        let ticket = Ticket::Bronze(Follow::default().of_table("5f0c".to_owned()));
        check(r#"{"read":"bronze","table":"5f0c"}"#, &ticket);
    }

    #[test]
    fn a_ticket_that_is_none_is_refused_with_what_is_wrong() {
        check_refused(r#"{"read":"silver"}"#, "unknown variant `silver`");
        check_refused(r#"{"read":"gold","form":"now"}"#, "unknown field `form`");
        check_refused(
            r#"{"read":"gold","from":"then"}"#,
            r#"expected a position such as {"0":128}, "now" or {"time":"#,
        );
        check_refused(r#"{"read":"gold","from":128}"#, r#"expected a position such as {"0":128}"#);
        check_refused(r#"{"read":"gold","from":{"zero":128}}"#, r#""zero" is no partition"#);
        check_refused(r#"{"read":"gold","from":{"0":-1}}"#, "-1 is no offset");
        check_refused(r#"{"read":"gold","from":{"0":"128"}}"#, r#""128" is no offset"#);
        check_refused(r#"{"read":"gold","from":{"time":"yesterday"}}"#, r#""yesterday" is no time"#);
        check_refused(
            r#"{"read":"gold","from":{"time":"2026-01-01T00:00:00Z","0":1}}"#,
            "both a time and offsets",
        );
    }

    #[test]
    fn a_history_is_read_from_a_ticket() {
        let history = History {
            symbol: "BTC-USD".to_owned(),
            below: [(0, 7), (3, 9)].into_iter().collect(),
            first_micros: 1,
            last_micros: i64::MAX,
            margin: Margin::Rows(29),
            table: None,
        };
        let json = r#"{"read":"history","symbol":"BTC-USD","below":{"0":7,"3":9},"first_micros":1,
            "last_micros":9223372036854775807,"margin":{"rows":29}}"#;
        check(json, &Ticket::History(history));
    }
}
