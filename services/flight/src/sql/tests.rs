use access::{Caller, Role};
use arrow_flight::sql::server::FlightSqlService as _;
use arrow_flight::sql::{
    ActionCreatePreparedStatementRequest, ActionCreatePreparedSubstraitPlanRequest,
    CommandPreparedStatementQuery, CommandStatementQuery, CommandStatementSubstraitPlan, SubstraitPlan,
    TicketStatementQuery,
};
use arrow_flight::{Action, FlightDescriptor, Ticket};
use bytes::Bytes;
use futures::TryStreamExt as _;
use proto::ticket::{History, Margin};
use tonic::{Code, Request, Status};

use crate::catalog::tests::{Server, lines};

fn request<T>(message: T) -> Request<T> {
    let mut request = Request::new(message);
    request.extensions_mut().insert(Caller { user: "ada".into(), role: Role::Reader });
    request
}

/// The length of a text is checked before the text is read, at every entry point.
#[tokio::test]
async fn a_text_that_is_too_long_is_refused_at_every_inlet() {
    let sql = Server::new().await.sql;
    let text = format!("SELECT 1 WHERE 1 IN ({})", vec!["1"; 1 << 19].join(","));
    let plan = || Some(SubstraitPlan { plan: Bytes::from(vec![0; (1 << 20) + 1]), version: String::new() });
    let handle = |kind: u8| {
        let length = u32::try_from(text.len()).unwrap().to_le_bytes();
        Bytes::from([&[kind][..], &length, text.as_bytes()].concat())
    };
    let statement = || CommandStatementQuery { query: text.clone(), transaction_id: None };
    let substrait = || CommandStatementSubstraitPlan { plan: plan(), transaction_id: None };
    let prepared = |kind| CommandPreparedStatementQuery { prepared_statement_handle: handle(kind) };
    let ticket = TicketStatementQuery { statement_handle: [&[7; 16][..], &handle(b'q')].concat().into() };
    let create = ActionCreatePreparedStatementRequest { query: text.clone(), transaction_id: None };
    let create_plan = ActionCreatePreparedSubstraitPlanRequest { plan: plan(), transaction_id: None };
    let (descriptor, got, action) = (FlightDescriptor::default, Ticket::default, Action::default);
    let refusals: [Option<Status>; 8] = [
        sql.get_flight_info_statement(statement(), request(descriptor())).await.err(),
        sql.get_flight_info_substrait_plan(substrait(), request(descriptor())).await.err(),
        sql.get_flight_info_prepared_statement(prepared(b'q'), request(descriptor())).await.err(),
        sql.do_get_prepared_statement(prepared(b'q'), request(got())).await.err(),
        sql.do_get_prepared_statement(prepared(b's'), request(got())).await.err(),
        sql.do_get_statement(ticket, request(got())).await.err(),
        sql.do_action_create_prepared_statement(create, request(action())).await.err(),
        sql.do_action_create_prepared_substrait_plan(create_plan, request(action())).await.err(),
    ];
    for (inlet, status) in refusals.into_iter().enumerate() {
        let status = status.unwrap_or_else(|| panic!("inlet {inlet} takes it"));
        assert_eq!(status.code(), Code::InvalidArgument, "inlet {inlet}: {status}");
        assert!(status.message().contains("--query-text-max"), "inlet {inlet}: {status}");
    }
}

#[tokio::test]
async fn a_history_is_read_within_the_limits_of_a_query() {
    let sql = Server::new().await.sql;
    let caller = Caller { user: "gold".into(), role: Role::Writer };
    let history = History {
        symbol: "BTC-USD".to_owned(),
        below: [(0, 2)].into_iter().collect(),
        first_micros: 0,
        last_micros: i64::MAX,
        margin: Margin::Rows(5),
        table: None,
    };
    let rows: Vec<_> = sql.history(&caller, history).await.unwrap().batches.try_collect().await.unwrap();
    assert_eq!(lines(&rows).len(), 2, "the offsets below");
}
