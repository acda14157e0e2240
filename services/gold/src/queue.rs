//! A queue between two stages, bounded by rows. The receiver takes all waiting items at once. So items are combined while the next stage is
//! busy, and pass singly while it is idle.

use std::sync::Arc;

use tokio::sync::{Semaphore, mpsc};

/// Maximum number of items that wait, even if they have few rows: 4 minutes at 16 batches a second.
const ITEMS_MAX: usize = 4096;

/// The receiving stage has ended. Its own error contains the cause.
#[derive(Debug, thiserror::Error)]
#[error("the next stage has ended")]
pub(crate) struct Closed;

/// Sending end.
#[derive(Debug)]
pub(crate) struct Sender<T> {
    items: mpsc::Sender<(u32, T)>,
    room: Arc<Semaphore>,
    rows_max: u32,
}

/// Receiving end.
#[derive(Debug)]
pub(crate) struct Receiver<T> {
    items: mpsc::Receiver<(u32, T)>,
    room: Arc<Semaphore>,
}

/// Creates a queue for items of `rows_max` rows in total, or for one larger item.
pub(crate) fn bounded<T>(rows_max: u32) -> (Sender<T>, Receiver<T>) {
    let (sender, receiver) = mpsc::channel(ITEMS_MAX);
    let room = Arc::new(Semaphore::new(usize::try_from(rows_max).unwrap_or(Semaphore::MAX_PERMITS)));
    (Sender { items: sender, room: Arc::clone(&room), rows_max }, Receiver { items: receiver, room })
}

impl<T> Sender<T> {
    /// Waits for room, then sends `item`.
    pub(crate) async fn send(&self, rows: usize, item: T) -> Result<(), Closed> {
        let rows = u32::try_from(rows).unwrap_or(u32::MAX).min(self.rows_max);
        self.room.acquire_many(rows).await.map_err(|_| Closed)?.forget();
        self.items.send((rows, item)).await.map_err(|_| Closed)
    }

    /// Sends `item` if there is room for it now. Returns true if it was sent.
    pub(crate) fn try_send(&self, rows: usize, item: T) -> bool {
        let rows = u32::try_from(rows).unwrap_or(u32::MAX).min(self.rows_max);
        let Ok(room) = self.room.try_acquire_many(rows) else { return false };
        let is_sent = self.items.try_send((rows, item)).is_ok();
        if is_sent {
            room.forget();
        }
        is_sent
    }
}

impl<T> Receiver<T> {
    /// Waits for an item and returns all items in the queue. Returns an empty vector if the queue is empty and all senders are dropped.
    pub(crate) async fn recv_all(&mut self) -> Vec<T> {
        let mut taken = Vec::new();
        self.items.recv_many(&mut taken, ITEMS_MAX).await;
        let rows: u32 = taken.iter().map(|(rows, _)| rows).sum();
        self.room.add_permits(usize::try_from(rows).unwrap_or(0));
        taken.into_iter().map(|(_, item)| item).collect()
    }
}

impl<T> Drop for Receiver<T> {
    fn drop(&mut self) {
        self.room.close();
    }
}

#[cfg(test)]
mod tests {
    use super::bounded;

    #[tokio::test]
    async fn the_receiver_takes_all_that_waits() {
        let (sender, mut receiver) = bounded(100);
        for item in 0..3 {
            sender.send(10, item).await.unwrap();
        }
        assert_eq!(receiver.recv_all().await, [0, 1, 2]);
        drop(sender);
        assert_eq!(receiver.recv_all().await, [0_i32; 0]);
    }

    #[tokio::test]
    async fn a_full_queue_makes_the_sender_wait_until_the_receiver_takes() {
        let (sender, mut receiver) = bounded(100);
        sender.send(100, 'a').await.unwrap();
        let mut second = Box::pin(sender.send(1, 'b'));
        assert!(futures::poll!(&mut second).is_pending());
        assert_eq!(receiver.recv_all().await, ['a']);
        second.await.unwrap();
        assert_eq!(receiver.recv_all().await, ['b']);
    }

    #[tokio::test]
    async fn try_send_returns_false_when_the_queue_is_full() {
        let (sender, mut receiver) = bounded(100);
        assert!(sender.try_send(60, 'a'));
        assert!(!sender.try_send(60, 'b'));
        assert!(sender.try_send(40, 'c'));
        assert_eq!(receiver.recv_all().await, ['a', 'c']);
        assert!(sender.try_send(100, 'd'));
        drop(receiver);
        assert!(!sender.try_send(0, 'e'));
    }

    #[tokio::test]
    async fn an_item_larger_than_the_queue_passes_alone() {
        let (sender, mut receiver) = bounded(100);
        sender.send(1_000_000, 'a').await.unwrap();
        assert_eq!(receiver.recv_all().await, ['a']);
    }

    #[tokio::test]
    async fn a_sender_does_not_wait_for_a_receiver_that_is_gone() {
        let (sender, receiver) = bounded(1);
        sender.send(1, 'a').await.unwrap();
        let mut second = Box::pin(sender.send(1, 'b'));
        assert!(futures::poll!(&mut second).is_pending());
        drop(receiver);
        assert!(second.await.is_err());
    }
}
