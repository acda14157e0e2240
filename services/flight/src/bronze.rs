//! Bronze: a put enters the hot buffer, a flush makes it durable, and followers read both.

pub(crate) mod buffer;
pub(crate) mod flush;
pub(crate) mod follow;
pub(crate) mod put;
