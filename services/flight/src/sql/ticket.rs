//! Ticket of one execution of a query. It holds the query and an id, which a client uses to cancel the execution.

use arrow_flight::Ticket;
use arrow_flight::sql::{Any, ProstMessageExt as _, TicketStatementQuery};
use prost::Message as _;
use uuid::Uuid;

use super::prepared::Prepared;
use crate::error::CallError;

/// Length of the id at the start of a ticket's handle, in bytes.
const ID_BYTES: usize = 16;

/// One execution of a query.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct QueryTicket {
    pub(super) id: Uuid,
    pub(super) prepared: Prepared,
}

impl QueryTicket {
    /// Creates a ticket with a new id.
    pub(super) fn new(prepared: Prepared) -> Self {
        QueryTicket { id: Uuid::new_v4(), prepared }
    }

    pub(super) fn encode(&self) -> Result<Ticket, CallError> {
        let handle = [&self.id.as_bytes()[..], &self.prepared.encode()?].concat();
        let ticket = TicketStatementQuery { statement_handle: handle.into() };
        Ok(Ticket::new(ticket.as_any().encode_to_vec()))
    }

    /// Reads the handle of a ticket.
    ///
    /// # Errors
    ///
    /// The handle is not one of this server.
    pub(super) fn decode(handle: &[u8]) -> Result<Self, CallError> {
        let (id, prepared) = handle
            .split_at_checked(ID_BYTES)
            .ok_or_else(|| CallError::BadRequest("this server did not issue this ticket".to_owned()))?;
        Ok(QueryTicket {
            id: Uuid::from_slice(id).expect("the id has this length"),
            prepared: Prepared::decode(prepared)?,
        })
    }

    /// Reads only the id of the execution from a whole ticket. Returns `None` if the ticket is not of a query.
    pub(super) fn read_id(ticket: &[u8]) -> Option<Uuid> {
        let ticket: TicketStatementQuery = Any::decode(ticket).ok()?.unpack().ok()??;
        Uuid::from_slice(ticket.statement_handle.get(..ID_BYTES)?).ok()
    }
}
