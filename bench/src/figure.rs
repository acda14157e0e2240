//! One line of the table of results. It has the pipeline's result, the aims, and the results of the bare machine or of alternatives in the
//! same run.

use serde::{Deserialize, Serialize};

/// Values of one subject, one for each run.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct Series {
    /// Name of the subject, such as `DuckDB`.
    pub name: String,
    /// Values in the order of the runs.
    pub values: Vec<f64>,
}

/// Aim of a figure.
#[derive(Clone, Copy, Debug, PartialEq, Deserialize, Serialize)]
pub enum Aim {
    /// At least this value, in the figure's unit.
    AtLeast(f64),
    /// At most this value, in the figure's unit.
    AtMost(f64),
    /// At least this multiple of the greatest of the others: for rates.
    TimesGreatest(f64),
    /// At most this multiple of the least of the others: for durations and sizes.
    TimesLeast(f64),
}

/// One line of the table.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct Figure {
    /// Measurement that the figure belongs to, such as `kernel`.
    pub measurement: String,
    /// Name of the measured quantity.
    pub what: String,
    /// Unit of all values, such as `rows/s`.
    pub unit: String,
    /// Values of the pipeline.
    pub ours: Vec<f64>,
    /// Values of limits and alternatives.
    pub others: Vec<Series>,
    /// Aims, which must all be met.
    pub aims: Vec<Aim>,
    /// Facts that a reader needs to judge the figure.
    pub note: String,
}

impl Figure {
    /// Creates a line without others, aims and note.
    pub fn new(measurement: &str, what: impl Into<String>, unit: &str, ours: Vec<f64>) -> Figure {
        Figure {
            measurement: measurement.to_owned(),
            what: what.into(),
            unit: unit.to_owned(),
            ours,
            others: Vec::new(),
            aims: Vec::new(),
            note: String::new(),
        }
    }

    /// Adds a limit or an alternative.
    pub fn beside(mut self, name: impl Into<String>, values: Vec<f64>) -> Figure {
        self.others.push(Series { name: name.into(), values });
        self
    }

    /// Adds an aim.
    pub fn aim(mut self, aim: Aim) -> Figure {
        self.aims.push(aim);
        self
    }

    /// Sets the facts that a reader needs to judge the figure.
    pub fn note(mut self, note: impl Into<String>) -> Figure {
        self.note = note.into();
        self
    }

    /// Returns the pipeline's median divided by each other median, in the order of the others.
    pub fn ratios(&self) -> Vec<f64> {
        self.others.iter().map(|other| median(&self.ours) / median(&other.values)).collect()
    }

    /// Returns true if more is better: for rates. Less is better for durations, sizes and errors.
    pub fn more_is_better(&self) -> bool {
        self.unit.ends_with("/s")
    }

    /// Returns the name and the median of the best of the others. Returns `None` if no other has a value.
    pub fn best_other(&self) -> Option<(&str, f64)> {
        let others = self.others.iter().map(|other| (&*other.name, median(&other.values)));
        let measured = others.filter(|(_, value)| value.is_finite());
        let order = |one: &(&str, f64), two: &(&str, f64)| one.1.total_cmp(&two.1);
        if self.more_is_better() { measured.max_by(order) } else { measured.min_by(order) }
    }

    /// Returns true if the pipeline's median meets an aim.
    pub fn meets(&self, aim: Aim) -> bool {
        let ours = median(&self.ours);
        match aim {
            Aim::AtLeast(bound) => ours >= bound,
            Aim::AtMost(bound) => ours <= bound,
            Aim::TimesGreatest(times) => self.ratios().into_iter().all(|ratio| ratio >= times),
            Aim::TimesLeast(times) => self.ratios().into_iter().all(|ratio| ratio <= times),
        }
    }
}

/// Returns the middle value. Returns the upper one of an even number of values, and NaN if there are none.
pub fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    sorted.get(sorted.len() / 2).copied().unwrap_or(f64::NAN)
}

#[cfg(test)]
mod tests {
    use super::{Aim, Figure, median};

    #[test]
    fn the_median_is_the_middle_value() {
        assert_eq!(median(&[3.0, 1.0, 2.0]), 2.0);
        assert_eq!(median(&[4.0, 1.0]), 4.0);
        assert!(median(&[]).is_nan());
    }

    #[test]
    fn an_aim_is_met_against_the_best_of_the_others() {
        let rate =
            Figure::new("", "", "rows/s", vec![70.0]).beside("one", vec![100.0]).beside("two", vec![50.0]);
        assert!(rate.meets(Aim::TimesGreatest(0.7)));
        assert!(!rate.meets(Aim::TimesGreatest(0.8)));
        assert!(rate.meets(Aim::AtLeast(70.0)));
        let time = Figure::new("", "", "s", vec![3.0]).beside("one", vec![2.0]).beside("two", vec![9.0]);
        assert!(time.meets(Aim::TimesLeast(1.5)));
        assert!(!time.meets(Aim::TimesLeast(1.4)));
        assert!(!time.meets(Aim::AtMost(2.9)));
    }

    #[test]
    fn the_best_other_has_the_highest_rate_or_the_least_duration() {
        let best = |unit: &str| {
            let figure = Figure::new("", "", unit, vec![1.0]).beside("none", Vec::new());
            let figure = figure.beside("low", vec![2.0]).beside("high", vec![3.0]);
            figure.best_other().map(|(name, value)| (name.to_owned(), value))
        };
        assert_eq!(best("rows/s"), Some(("high".to_owned(), 3.0)));
        assert_eq!(best("s"), Some(("low".to_owned(), 2.0)));
        assert_eq!(Figure::new("", "", "s", vec![1.0]).beside("none", Vec::new()).best_other(), None);
    }

    #[test]
    fn nothing_measured_meets_nothing() {
        let figure = Figure::new("", "", "s", Vec::new()).beside("one", vec![1.0]);
        for aim in [Aim::AtLeast(0.0), Aim::AtMost(1e9), Aim::TimesGreatest(0.0), Aim::TimesLeast(1e9)] {
            assert!(!figure.meets(aim), "{aim:?}");
        }
    }
}
