//! The frame of the windows, as recorded in PostgreSQL. Rows of two frames in one table could not be distinguished.

use deadpool_postgres::Object;
use tokio_postgres::error::SqlState;
use tokio_postgres::types::Type;

use crate::error::Error;
use crate::sink::postgres::Parameter;
use kernel::Frame;

/// Records the frame of the rows of `topic`. It cannot change once there are rows.
///
/// # Errors
///
/// [`Error::Frame`] if the table has rows of a different frame, or [`Error::Postgres`].
pub(super) async fn settle(client: &Object, topic: &str, frame: Frame) -> Result<(), Error> {
    let failed = Error::postgres("record the frame");
    let upsert = "INSERT INTO candleflight_frame (topic, frame) VALUES ($1, $2) ON CONFLICT (topic) DO UPDATE \
                  SET frame = excluded.frame WHERE NOT EXISTS (SELECT FROM candleflight_position held WHERE held.topic = $1)";
    let values: [Parameter<'_>; 2] = [(&topic, Type::TEXT), (&frame.name(), Type::TEXT)];
    client.execute_typed(upsert, &values).await.map_err(&failed)?;
    match read(client, topic).await? {
        Some(recorded) if recorded != frame => Err(Error::Frame { recorded, given: frame }),
        _ => Ok(()),
    }
}

/// Reads the frame of the rows of `topic`, if it is recorded. Older versions do not have the table.
///
/// # Errors
///
/// [`Error::Postgres`].
pub(crate) async fn read(client: &tokio_postgres::Client, topic: &str) -> Result<Option<Frame>, Error> {
    let query = "SELECT frame FROM candleflight_frame WHERE topic = $1";
    match client.query_typed(query, &[(&topic, Type::TEXT)]).await {
        Ok(rows) => Ok(rows.first().and_then(|row| Frame::from_name(row.get(0)))),
        Err(error) if error.code() == Some(&SqlState::UNDEFINED_TABLE) => Ok(None),
        Err(error) => Err(Error::postgres("read the frame")(error)),
    }
}
