//! The threads that queries run on.

use std::thread::available_parallelism;

use tokio::runtime::{Builder, Runtime};
use tokio::task::JoinHandle;

/// How much queries yield to everything else: whoever puts and follows bronze goes first, and queries have what is left.
const NICENESS: i32 = 10;

/// Most threads; they cost nothing while they wait.
const THREADS_MAX: usize = 256;

/// Stack of a thread, of which memory holds only what was used: the engine plans by recursion, 10 KB a step.
const STACK_BYTES: usize = 128 << 20;

/// A runtime of its own, so that a query that computes holds up neither puts nor followers.
#[derive(Debug)]
pub(super) struct Engine(Option<Runtime>);

impl Engine {
    /// Starts the threads: as many as so many queries can use at once, so that one which computes on and on leaves the others theirs. The
    /// system shares out the cores.
    pub(super) fn start(queries_max: usize) -> Engine {
        let cores = available_parallelism().map_or(1, usize::from);
        let threads = (cores * queries_max).clamp(cores, THREADS_MAX.max(cores));
        let runtime = Builder::new_multi_thread()
            .worker_threads(threads)
            .thread_name("query")
            .thread_stack_size(STACK_BYTES)
            .on_thread_start(|| {
                // On Linux the niceness is a thread's own. Where it is refused, queries are only less polite.
                let _refused = rustix::process::nice(NICENESS);
            })
            .enable_all()
            .build();
        Engine(Some(runtime.expect("the system has threads to give")))
    }

    pub(super) fn spawn<F>(&self, future: F) -> JoinHandle<F::Output>
    where
        F: Future<Output: Send> + Send + 'static,
    {
        self.0.as_ref().expect("it is there until it is dropped").spawn(future)
    }
}

#[cfg(test)]
impl Engine {
    /// Returns the tasks that have not ended.
    pub(super) fn tasks(&self) -> usize {
        self.0.as_ref().map_or(0, |runtime| runtime.metrics().num_alive_tasks())
    }
}

impl Drop for Engine {
    fn drop(&mut self) {
        if let Some(runtime) = self.0.take() {
            runtime.shutdown_background();
        }
    }
}
