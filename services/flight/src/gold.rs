//! Gold: its service puts the newest changes into a buffer and commits all to the table. Followers read both.

pub(crate) mod changes;
pub(crate) mod follow;
pub(crate) mod put;
pub(crate) mod table;
