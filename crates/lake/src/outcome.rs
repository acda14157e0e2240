//! The meaning of one failure.

/// The meaning of a failure for the service, and for the person who runs it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Verdict {
    /// True if the same call may succeed later without a change of the service's configuration.
    pub(crate) passes: bool,
    /// The failure in plain words and what to do, if that is known.
    pub(crate) advice: Option<String>,
}

impl Verdict {
    /// Returns the verdict on a failure that passes by itself.
    pub(crate) fn passes() -> Verdict {
        Verdict { passes: true, advice: None }
    }

    /// Returns the verdict on a failure that passes once a person has acted outside the service.
    pub(crate) fn waits(advice: impl Into<String>) -> Verdict {
        Verdict { passes: true, advice: Some(advice.into()) }
    }

    /// Returns the verdict on a failure that stays until a person changes the configuration.
    pub(crate) fn ends(advice: impl Into<String>) -> Verdict {
        Verdict { passes: false, advice: Some(advice.into()) }
    }
}
