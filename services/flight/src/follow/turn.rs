//! Turns for reading files. A follower of the hot rows holds one or two messages in memory. A follower that reads files holds megabytes, so
//! only some followers read files at a time.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use access::{Caller, Role};
use futures::FutureExt;
use futures::future::BoxFuture;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::Instant;

/// Memory of a follower that reads files, in bytes: three steps of 12 MiB, two of them read ahead, and two encoded pieces.
const FILES_BYTES: usize = 48 * 1024 * 1024;
/// Longest turn while other followers wait. A new turn repeats the steps that were read ahead, which costs a fraction of a second.
const TURN_MAX: Duration = Duration::from_secs(30);

/// Turns of all followers. Clones share them.
#[derive(Clone, Debug)]
pub(crate) struct Turns {
    /// Turns of callers that may write. They are separate, because gold follows bronze and readers must not delay it.
    writers: Arc<Semaphore>,
    readers: Arc<Semaphore>,
}

/// Turn of one follower.
pub(crate) struct Turn {
    turns: Arc<Semaphore>,
    /// Place in the queue.
    waiting: Option<BoxFuture<'static, OwnedSemaphorePermit>>,
    /// Permit of the turn, and its start.
    held: Option<(OwnedSemaphorePermit, Instant)>,
}

impl Turns {
    /// Creates as many turns as `bytes_max` bytes allow, at least one. Readers and writers each get that number.
    pub(crate) fn new(bytes_max: usize) -> Self {
        let turns = || Arc::new(Semaphore::new((bytes_max / FILES_BYTES).clamp(1, Semaphore::MAX_PERMITS)));
        Turns { writers: turns(), readers: turns() }
    }

    /// Returns a turn for `caller` that is not yet taken.
    pub(crate) fn of(&self, caller: &Caller) -> Turn {
        let turns = if caller.role >= Role::Writer { &self.writers } else { &self.readers };
        Turn { turns: Arc::clone(turns), waiting: None, held: None }
    }
}

impl Turn {
    pub(crate) fn is_held(&self) -> bool {
        self.held.is_some()
    }

    /// Waits for this follower's turn. A caller that stops waiting keeps its place in the queue for the next call.
    pub(crate) async fn take(&mut self) {
        let turns = &self.turns;
        let waiting = self.waiting.get_or_insert_with(|| {
            let turn = Arc::clone(turns).acquire_owned();
            async move { turn.await.expect("the semaphore is never closed") }.boxed()
        });
        self.held = Some((waiting.await, Instant::now()));
        self.waiting = None;
    }

    /// Releases the turn.
    pub(crate) fn end(&mut self) {
        self.held = None;
    }

    /// Returns true if the turn has lasted long enough and other followers may be waiting.
    pub(crate) fn is_over(&self) -> bool {
        let is_long = self.held.as_ref().is_some_and(|(_, began)| began.elapsed() >= TURN_MAX);
        is_long && self.turns.available_permits() == 0
    }
}

impl fmt::Debug for Turn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Turn").field("is_held", &self.is_held()).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use access::{Caller, Role};
    use futures::{FutureExt, poll};

    use super::{FILES_BYTES, Turns};

    #[tokio::test]
    async fn turns_are_taken_in_order_and_writers_have_their_own() {
        let caller = |role| Caller { user: "ada".into(), role };
        let turns = Turns::new(FILES_BYTES);
        let [mut first, mut second, mut third] = [(); 3].map(|()| turns.of(&caller(Role::Reader)));
        first.take().await;
        assert!(poll!(second.take().boxed()).is_pending());
        assert!(poll!(third.take().boxed()).is_pending());
        turns.of(&caller(Role::Writer)).take().await;
        first.end();
        assert!(poll!(third.take().boxed()).is_pending(), "the second has waited longer, though it stopped");
        second.take().await;
        second.end();
        third.take().await;
        assert!(third.is_held() && !first.is_held());
    }
}
