//! The names of the catalog and of its schema.

/// Name of the only catalog.
pub(crate) const CATALOG: &str = "candleflight";
/// Name of the schema of `bronze` and `gold`.
pub(crate) const PUBLIC: &str = "public";
