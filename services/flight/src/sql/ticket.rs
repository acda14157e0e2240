//! The ticket of one execution of a query. It holds the query and a name, by which the execution can be cancelled.

use arrow_flight::Ticket;
use arrow_flight::sql::{Any, ProstMessageExt as _, TicketStatementQuery};
use prost::Message as _;
use uuid::Uuid;

use super::prepared::Prepared;
use crate::error::Refusal;

/// Bytes of the name at the head of a ticket's handle.
const ID_BYTES: usize = 16;

/// One execution of a query.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct QueryTicket {
    pub(super) id: Uuid,
    pub(super) prepared: Prepared,
}

impl QueryTicket {
    /// Names a new execution.
    pub(super) fn new(prepared: Prepared) -> Self {
        QueryTicket { id: Uuid::new_v4(), prepared }
    }

    pub(super) fn encode(&self) -> Result<Ticket, Refusal> {
        let handle = [&self.id.as_bytes()[..], &self.prepared.encode()?].concat();
        let ticket = TicketStatementQuery { statement_handle: handle.into() };
        Ok(Ticket::new(ticket.as_any().encode_to_vec()))
    }

    /// Reads the handle of a ticket.
    ///
    /// # Errors
    ///
    /// It is none of ours.
    pub(super) fn decode(handle: &[u8]) -> Result<Self, Refusal> {
        let (id, prepared) = handle.split_at_checked(ID_BYTES).ok_or_else(|| {
            Refusal::BadRequest("this ticket is not one that this server has given".to_owned())
        })?;
        Ok(QueryTicket {
            id: Uuid::from_slice(id).expect("it has as many bytes"),
            prepared: Prepared::decode(prepared)?,
        })
    }

    /// Reads only the name of the execution from a whole ticket; `None` where it is of no query.
    pub(super) fn read_id(ticket: &[u8]) -> Option<Uuid> {
        let ticket: TicketStatementQuery = Any::decode(ticket).ok()?.unpack().ok()??;
        Uuid::from_slice(ticket.statement_handle.get(..ID_BYTES)?).ok()
    }
}
