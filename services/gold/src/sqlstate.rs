//! Table of PostgreSQL's SQLSTATEs: the errors that are transient, and those that end gold with advice.
//!
//! A failover, a full disk, a stopped server or a cancelled statement is transient: gold retries the same transaction until it succeeds. An
//! error that only a person can correct ends gold with advice. A rejected log-in is retried, since it is often corrected at the server.

use tokio_postgres::error::DbError;

use Verdict::{Ends, Passes};

/// Verdict on an error.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// The error is transient.
    Passes,
    /// A person must act. Contains the advice.
    Ends(&'static str),
}

/// SQLSTATEs and classes of SQLSTATEs. The longest match counts.
const VERDICTS: &[(&str, Verdict)] = &[
    // The connection is lost or refused. Poolers use 08P01 for nearly all errors: see POOLER_TEXTS.
    ("08", Passes),
    ("0A", Ends("use PostgreSQL 12 or newer")),
    ("22P05", Ends(ENCODING)),
    // An earlier statement failed and has its own error.
    ("25P02", Passes),
    // The transaction was idle for longer than the server allows, for example because this process was stopped for a while.
    ("25P03", Passes),
    ("25P04", Passes),
    // A standby is being promoted, or a server is read-only because its disk is nearly full.
    ("25006", Passes),
    (
        "26000",
        Ends("a pooler mixes up the sessions of its clients: set it to session or transaction pooling"),
    ),
    ("3D000", Ends("create the database, or give another one in --postgres")),
    ("3F000", Ends("create the schema in search_path, or correct search_path of the role or in --postgres")),
    // Serialization failures, deadlocks, and transactions of unknown outcome. The retry reads the outcome.
    ("40", Passes),
    (
        "42501",
        Ends(
            "allow the role in --postgres to create, read and write tables: GRANT CREATE, USAGE ON SCHEMA, or make it the owner of the tables",
        ),
    ),
    ("42P01", Ends(TABLES)),
    ("42P10", Ends(TABLES)),
    ("42703", Ends(TABLES)),
    ("42804", Ends(TABLES)),
    // Another client of the same pooler has left a statement with that name. The name differs at the next attempt.
    ("42P05", Passes),
    // No connections, memory or disk space left.
    ("53", Passes),
    ("53400", Ends("raise the limit in PostgreSQL's message")),
    // The object is in use or locked.
    ("55006", Passes),
    ("55P03", Passes),
    // The server stops, starts or recovers, or an administrator or a time limit has cancelled the statement.
    ("57", Passes),
    // The server's disk has read or write errors.
    ("58", Passes),
    // A tuple was updated concurrently, or a pooler reports an internal error.
    ("XX000", Passes),
    (
        "XX001",
        Ends(
            "the database is damaged: restore it from a backup, or drop it and let gold create its tables again",
        ),
    ),
    ("XX002", Ends("an index is damaged: REINDEX it")),
];

/// Texts that PgBouncer sends with 08P01 for errors that only a person can correct.
const POOLER_TEXTS: &[(&str, &str)] = &[
    (
        "statement pooling mode",
        "the pooler in --postgres splits transactions: set it to session or transaction pooling",
    ),
    (
        "unsupported startup parameter",
        "remove that parameter from --postgres, or configure the pooler to ignore it (ignore_startup_parameters)",
    ),
    ("no such database", "give a database in --postgres that the pooler serves"),
];

const ENCODING: &str = "create the database with ENCODING 'UTF8', since a symbol may contain any character";
const TABLES: &str = "gold's tables were changed or dropped by hand: restore them, or drop all of them and let gold create them again";
/// Advice for all other states.
const UNEXPECTED: &str = "gold does not expect this error; read PostgreSQL's log";

/// Returns the verdict on an error of the server.
pub(crate) fn verdict(error: &DbError) -> Verdict {
    decide(error.code().code(), error.message())
}

fn decide(state: &str, message: &str) -> Verdict {
    let is_poolers = state == "08P01";
    if let Some((_, advice)) = POOLER_TEXTS.iter().find(|(text, _)| is_poolers && message.contains(text)) {
        return Ends(advice);
    }
    let matching = VERDICTS.iter().filter(|(prefix, _)| state.starts_with(prefix));
    matching.max_by_key(|(prefix, _)| prefix.len()).map_or(Ends(UNEXPECTED), |(_, verdict)| *verdict)
}

#[cfg(test)]
mod tests {
    use super::{TABLES, UNEXPECTED, VERDICTS, Verdict, decide};

    fn check(states: &[&str], expected: Verdict) {
        for state in states {
            assert_eq!(decide(state, ""), expected, "{state}");
        }
    }

    #[test]
    fn what_passes_by_itself_is_waited_out() {
        check(
            &["08006", "08P01", "25006", "25P02", "25P03", "40001", "40P01", "53100", "53300"],
            Verdict::Passes,
        );
        check(
            &["55P03", "57014", "57P01", "57P02", "57P03", "57P05", "58000", "58030", "58P01"],
            Verdict::Passes,
        );
    }

    #[test]
    fn what_only_a_person_can_mend_ends_with_what_to_do() {
        check(&["42P01", "42703"], Verdict::Ends(TABLES));
        check(&["22021", "42601", "P0001", "ZZ000"], Verdict::Ends(UNEXPECTED));
        for state in ["3D000", "42501", "53400", "XX001"] {
            assert!(matches!(decide(state, ""), Verdict::Ends(advice) if advice != UNEXPECTED), "{state}");
        }
    }

    #[test]
    fn a_pooler_is_told_from_a_broken_connection_by_its_text() {
        let message = "transaction blocks not allowed in statement pooling mode";
        assert!(matches!(decide("08P01", message), Verdict::Ends(advice) if advice.contains("session")));
        assert_eq!(decide("08P01", "query_wait_timeout"), Verdict::Passes);
    }

    #[test]
    fn every_state_is_listed_once() {
        let mut states: Vec<&str> = VERDICTS.iter().map(|(state, _)| *state).collect();
        states.sort_unstable();
        assert!(states.windows(2).all(|pair| pair[0] != pair[1]), "{states:?}");
    }
}
