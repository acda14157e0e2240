//! Closing a consumer within a time limit.

use std::ops::Deref;
use std::sync::mpsc;
use std::time::Duration;

/// Longest time that a consumer may take to leave its group. A healthy broker answers within milliseconds.
const CLOSE_MAX: Duration = Duration::from_secs(3);

/// A consumer whose drop takes at most three seconds.
///
/// librdkafka first leaves the group and waits for the group's coordinator without a limit. After a broker has been away, that wait may
/// never end. A consumer that takes longer continues to close on its own thread, and nothing waits for that thread.
#[derive(Debug)]
pub struct Closing<C: Send + 'static>(Option<C>);

impl<C: Send + 'static> Closing<C> {
    /// Wraps a consumer.
    pub fn new(consumer: C) -> Self {
        Closing(Some(consumer))
    }
}

impl<C: Send + 'static> Deref for Closing<C> {
    type Target = C;

    fn deref(&self) -> &C {
        self.0.as_ref().expect("the consumer is present until drop")
    }
}

impl<C: Send + 'static> Drop for Closing<C> {
    fn drop(&mut self) {
        let consumer = self.0.take();
        let (closed, is_closed) = mpsc::channel();
        std::thread::spawn(move || {
            drop(consumer);
            // The receiver is gone if the wait has timed out.
            let _too_late = closed.send(());
        });
        if is_closed.recv_timeout(CLOSE_MAX).is_err() {
            tracing::warn!("a Kafka consumer does not leave its group in time; continuing without it");
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;
    use std::time::Duration;

    use super::Closing;

    /// Blocks in its drop until a message arrives, as librdkafka does.
    struct Stuck(mpsc::Receiver<()>, mpsc::Sender<()>);

    impl Drop for Stuck {
        fn drop(&mut self) {
            let _released = self.0.recv();
            let _nobody = self.1.send(());
        }
    }

    #[test]
    fn what_does_not_close_is_left_behind_and_closes_later() {
        let (release, released) = mpsc::channel();
        let (closed, is_closed) = mpsc::channel();
        drop(Closing::new(Stuck(released, closed)));
        release.send(()).unwrap();
        is_closed.recv_timeout(Duration::from_secs(10)).unwrap();
    }
}
