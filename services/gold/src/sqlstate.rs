//! The one table of PostgreSQL's SQLSTATEs: which errors pass by themselves, and which end gold with what to do.
//!
//! A failover, a full disk, a stopped server or a cancelled statement passes: the same transaction is tried again until it does. What
//! only a person can mend ends gold with a sentence. A log-in that is refused waits: as often as not it is put right at the server.

use tokio_postgres::error::DbError;

use Verdict::{Ends, Passes};

/// What follows from an error.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// It passes by itself.
    Passes,
    /// A person must act; what to do.
    Ends(&'static str),
}

/// SQLSTATEs and classes of them; the longest that matches counts.
const VERDICTS: &[(&str, Verdict)] = &[
    // The connection is lost or refused. Poolers use 08P01 for nearly everything: see POOLER_TEXTS.
    ("08", Passes),
    ("0A", Ends("use PostgreSQL 12 or newer")),
    ("22P05", Ends(ENCODING)),
    // A statement before it failed, and has its own error.
    ("25P02", Passes),
    // Our transaction was idle for longer than the server lets it, as when this process was stopped for a while.
    ("25P03", Passes),
    ("25P04", Passes),
    // A standby that is being promoted, or a server that takes no writes because its disk is nearly full.
    ("25006", Passes),
    ("26000", Ends("a pooler mixes up the sessions of its clients: use its session or transaction pooling")),
    ("3D000", Ends("create the database, or name another one in --postgres")),
    (
        "3F000",
        Ends("create the schema that search_path names, or correct search_path of the role or in --postgres"),
    ),
    // Serialization failures, deadlocks, and transactions of unknown outcome, which is then read.
    ("40", Passes),
    (
        "42501",
        Ends(
            "let the role of --postgres create, read and write tables: GRANT CREATE, USAGE ON SCHEMA, or make it their owner",
        ),
    ),
    ("42P01", Ends(TABLES)),
    ("42P10", Ends(TABLES)),
    ("42703", Ends(TABLES)),
    ("42804", Ends(TABLES)),
    // Another program behind the same pooler has left a statement of that name; ours has another one the next time.
    ("42P05", Passes),
    // Out of connections, memory or disk.
    ("53", Passes),
    ("53400", Ends("raise the limit that PostgreSQL names")),
    // In use or locked.
    ("55006", Passes),
    ("55P03", Passes),
    // The server stops, starts or recovers; an administrator or a time limit has cancelled us.
    ("57", Passes),
    // Its disk fails to read or write.
    ("58", Passes),
    // A tuple that was updated at the same time, or whatever a pooler calls internal.
    ("XX000", Passes),
    (
        "XX001",
        Ends("the database is damaged: restore it from a backup, or drop it and let gold make it again"),
    ),
    ("XX002", Ends("an index is damaged: REINDEX it")),
];

/// What PgBouncer says by texts, under 08P01, of what only a person can mend.
const POOLER_TEXTS: &[(&str, &str)] = &[
    (
        "statement pooling mode",
        "the pooler in --postgres splits transactions: use its session or transaction pooling",
    ),
    (
        "unsupported startup parameter",
        "remove that parameter from --postgres, or let the pooler ignore it (ignore_startup_parameters)",
    ),
    ("no such database", "name a database in --postgres that the pooler has"),
];

const ENCODING: &str = "make the database with ENCODING 'UTF8': gold holds any symbol";
const TABLES: &str = "gold's tables were changed or dropped by hand: restore them, or drop all of them and let gold make them again";
/// What is said of the other states.
const UNEXPECTED: &str = "gold does not expect that; PostgreSQL's log says more";

/// Says what follows from an error of the server's.
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
