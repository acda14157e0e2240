//! Limit of the time that a client may leave a message untaken. When the time is over, the stream ends and its buffers and its place are
//! freed.

use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use arrow_flight::FlightData;
use datafusion::common::runtime::SpawnedTask;
use futures::stream::BoxStream;
use futures::{Stream, StreamExt};
use tokio::time::{Instant, sleep_until};

use crate::error::CallError;

/// Stream with a task that checks how long its last message waits.
pub(crate) struct Watched {
    shared: Arc<Mutex<Shared>>,
    limit: Duration,
    is_over: bool,
    _watch: SpawnedTask<()>,
}

struct Shared {
    /// `None` once the stream is closed for the client.
    messages: Option<BoxStream<'static, Result<FlightData, CallError>>>,
    /// Time when the last message was handed out. `None` while the client waits for the next one.
    untaken_since: Option<Instant>,
}

impl Watched {
    /// Streams `messages` until a message stays untaken for `limit`. Then an error replaces the rest.
    pub(crate) fn new(
        messages: impl Stream<Item = Result<FlightData, CallError>> + Send + 'static,
        limit: Duration,
    ) -> Self {
        let shared = Shared { messages: Some(messages.boxed()), untaken_since: Some(Instant::now()) };
        let shared = Arc::new(Mutex::new(shared));
        let watch = SpawnedTask::spawn(watch(Arc::clone(&shared), limit));
        Watched { shared, limit, is_over: false, _watch: watch }
    }
}

impl Stream for Watched {
    type Item = Result<FlightData, CallError>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        if self.is_over {
            return Poll::Ready(None);
        }
        let shared = Arc::clone(&self.shared);
        let mut shared = locked(&shared);
        let Some(messages) = &mut shared.messages else {
            self.is_over = true;
            return Poll::Ready(Some(Err(CallError::Untaken { limit: self.limit })));
        };
        let polled = messages.poll_next_unpin(context);
        shared.untaken_since = polled.is_ready().then(Instant::now);
        polled
    }
}

impl Drop for Watched {
    fn drop(&mut self) {
        // Dropped here, and not when the task has ended.
        locked(&self.shared).messages = None;
    }
}

async fn watch(shared: Arc<Mutex<Shared>>, limit: Duration) {
    loop {
        let now = Instant::now();
        let since = locked(&shared).untaken_since.unwrap_or(now);
        if now - since >= limit {
            locked(&shared).messages = None;
            return;
        }
        sleep_until(since + limit).await;
    }
}

/// Locks the mutex. The value is consistent even after a panic, because no change takes several steps.
fn locked(shared: &Mutex<Shared>) -> MutexGuard<'_, Shared> {
    shared.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use arrow_flight::FlightData;
    use futures::{StreamExt, poll};
    use tokio::sync::oneshot;

    use super::Watched;
    use crate::error::CallError;

    #[tokio::test]
    async fn a_stream_is_dropped_if_its_client_stops_reading() {
        let (held, is_dropped) = oneshot::channel::<()>();
        let endless = futures::stream::repeat_with(move || {
            let _held = &held;
            Ok(FlightData::default())
        });
        let mut messages = Watched::new(endless, Duration::from_millis(1));
        messages.next().await.unwrap().unwrap();
        is_dropped.await.unwrap_err();
        assert!(matches!(messages.next().await, Some(Err(CallError::Untaken { .. }))));
        assert!(messages.next().await.is_none());
    }

    #[tokio::test]
    async fn a_client_that_waits_is_not_cut_off() {
        let (sender, receiver) = futures::channel::mpsc::unbounded();
        let limit = Duration::from_millis(1);
        let mut messages = Watched::new(receiver, limit);
        assert!(poll!(messages.next()).is_pending());
        // Long enough for the task to check at least once, however it is scheduled.
        for _ in 0..3 {
            tokio::time::sleep(limit * 2).await;
        }
        sender.unbounded_send(Ok(FlightData::default())).unwrap();
        assert!(messages.next().await.unwrap().is_ok());
    }
}
