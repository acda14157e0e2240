//! The roles of users.

use std::fmt;

use serde::{Deserialize, Serialize};

/// Permissions of a user. Each role includes the permissions of the roles before it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// Permission to query and follow.
    Reader,
    /// Permission to put bronze and gold, and to report the status of a process.
    Writer,
    /// Permission to see and cancel the queries of other users.
    Admin,
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Role::Reader => "reader",
            Role::Writer => "writer",
            Role::Admin => "admin",
        })
    }
}
