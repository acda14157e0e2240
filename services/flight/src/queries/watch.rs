//! Points at which a query can be stopped, wherever it computes. DataFusion stops a query only when a stream yields. A join whose filter
//! matches nothing, or a window function over millions of rows, yields only after minutes.
//!
//! Every long computation passes one of these points: a batch between two operators, a join's filter, a window function, or a request for
//! memory. Each point is wrapped in a type that first checks the query's [`Watch`].

mod aggregate;
mod expression;
mod function;
mod memory;
mod pace;
mod plan;
mod window;

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use datafusion::dataframe::DataFrame;
use datafusion::error::{DataFusionError, Result};
use datafusion::execution::memory_pool::{MemoryConsumer, MemoryPool, MemoryReservation};
use datafusion::execution::runtime_env::RuntimeEnv;
use datafusion::physical_plan::ExecutionPlan;

use self::memory::WatchedPool;

pub(crate) use self::function::bound_functions;

/// Flag that stops a query. Clones share it.
#[derive(Clone, Default)]
pub(super) struct Watch(Arc<AtomicBool>);

/// Error of a stopped query. No client receives this error: the client already has the reason, or is gone.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the query was stopped")]
pub(crate) struct Stopped;

impl Watch {
    /// Stops the query at the next point that it passes.
    pub(super) fn stop(&self) {
        self.0.store(true, Ordering::Relaxed);
    }

    /// Checks that the query may continue.
    ///
    /// # Errors
    ///
    /// [`Stopped`] if the query must stop.
    pub(super) fn check(&self) -> Result<()> {
        if self.0.load(Ordering::Relaxed) {
            return Err(DataFusionError::External(Box::new(Stopped)));
        }
        Ok(())
    }

    /// Returns a pool that rejects requests for memory once the query must stop.
    pub(super) fn pool(&self, pool: impl MemoryPool) -> Arc<dyn MemoryPool> {
        Arc::new(WatchedPool { inner: pool, watch: self.clone() })
    }

    /// Plans the execution of `query` in `environment`, with every point watched.
    ///
    /// # Errors
    ///
    /// Errors of the engine.
    pub(super) async fn plan(
        &self,
        query: DataFrame,
        environment: &Arc<RuntimeEnv>,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        let guard = Guard { watch: self.clone(), memory: Arc::clone(&environment.memory_pool) };
        let (state, plan) = query.into_parts();
        let plan = state.optimize(&plan)?;
        aggregate::check_sizes(&plan)?;
        let plan = function::watch_functions(plan, &guard)?;
        let plan = aggregate::watch_aggregates(plan, &guard)?;
        let plan = state.query_planner().create_physical_plan(&plan, &state).await?;
        plan::watch(plan, &guard)
    }
}

/// Stop flag and memory of a query, for each of its points.
#[derive(Clone, Debug)]
struct Guard {
    watch: Watch,
    /// Memory of the query.
    memory: Arc<dyn MemoryPool>,
}

impl Guard {
    fn check(&self) -> Result<()> {
        self.watch.check()
    }

    /// Returns a reservation for `what` that holds no memory yet.
    fn memory(&self, what: &str) -> MemoryReservation {
        MemoryConsumer::new(what).register(&self.memory)
    }
}

impl fmt::Debug for Watch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Watch").field(&self.0.load(Ordering::Relaxed)).finish()
    }
}

#[cfg(test)]
mod tests;
