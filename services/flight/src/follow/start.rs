//! Mapping from a ticket to the position where a follower starts.

use access::Caller;
use position::Position;
use proto::ticket::{Follow, Start};

use crate::bronze::buffer::HotBuffer;
use crate::error::CallError;
use crate::follow::FollowRequest;
use crate::follow::symbols::Symbols;
use crate::gold::changes::ChangeBuffer;
use crate::sql::Sql;

/// Resolves a ticket for bronze.
///
/// # Errors
///
/// The ticket names a different bronze table, or the query for the ticket's time fails.
pub(crate) async fn bronze(
    ticket: Follow,
    caller: &Caller,
    hot: &HotBuffer,
    sql: &Sql,
) -> Result<FollowRequest, CallError> {
    check_table(ticket.table.as_ref(), hot)?;
    let from = match ticket.from {
        Start::Position(position) => position,
        Start::Now => hot.progress().received,
        Start::Time(micros) => at(micros, caller, hot, sql).await?,
    };
    let turn = sql.queries.turns().of(caller);
    Ok(FollowRequest { from, until: ticket.until, symbols: Symbols::new(ticket.symbols), turn })
}

/// Resolves a ticket for gold. Its position also counts bronze's offsets.
///
/// # Errors
///
/// The ticket names a different bronze table, the query for the ticket's time fails, or the gold table's log cannot be read.
pub(crate) async fn gold(
    ticket: Follow,
    caller: &Caller,
    hot: &HotBuffer,
    changes: &ChangeBuffer,
    sql: &Sql,
) -> Result<FollowRequest, CallError> {
    check_table(ticket.table.as_ref(), hot)?;
    let from = match ticket.from {
        Start::Position(position) => position,
        Start::Now => {
            let reached = sql.catalog.gold().snapshot().await?.position().greater(&changes.position());
            // A partition without gold starts at offset 0, because all of its gold is still to come.
            let known: Position = hot.partitions().into_iter().map(|partition| (partition, 0)).collect();
            reached.greater(&known)
        }
        Start::Time(micros) => at(micros, caller, hot, sql).await?,
    };
    let turn = sql.queries.turns().of(caller);
    Ok(FollowRequest { from, until: ticket.until, symbols: Symbols::new(ticket.symbols), turn })
}

/// Checks that a ticket's positions belong to this bronze table, if the ticket names a table.
///
/// # Errors
///
/// [`CallError::OtherTable`].
pub(crate) fn check_table(table: Option<&String>, hot: &HotBuffer) -> Result<(), CallError> {
    let ours = hot.origin().table;
    match table {
        Some(theirs) if *theirs != ours => Err(CallError::OtherTable { ours, theirs: theirs.clone() }),
        _ => Ok(()),
    }
}

async fn at(micros: i64, caller: &Caller, hot: &HotBuffer, sql: &Sql) -> Result<Position, CallError> {
    // Read before the query, so that rows that arrive during the query are not skipped.
    let mut position = hot.progress().received;
    for (partition, next) in sql.offsets_at(caller, micros).await?.iter() {
        position.set(partition, next);
    }
    Ok(position)
}
