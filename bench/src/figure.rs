//! One line of the table: what we do, what the machine or an alternative does in the same run, and what we aim at.

use serde::{Deserialize, Serialize};

/// Values of one thing, a run each.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct Series {
    /// Whose they are, such as `DuckDB`.
    pub name: String,
    /// In the order of the runs.
    pub values: Vec<f64>,
}

/// What is aimed at.
#[derive(Clone, Copy, Debug, PartialEq, Deserialize, Serialize)]
pub enum Aim {
    /// At least so much, in the figure's unit.
    AtLeast(f64),
    /// At most so much, in the figure's unit.
    AtMost(f64),
    /// At least so many times the greatest of the others: for rates.
    TimesGreatest(f64),
    /// At most so many times the least of the others: for durations and sizes.
    TimesLeast(f64),
}

/// One line of the table.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct Figure {
    /// The measurement that it belongs to, such as `kernel`.
    pub measurement: String,
    /// What was measured.
    pub what: String,
    /// Unit of all values, such as `rows/s`.
    pub unit: String,
    /// Ours.
    pub ours: Vec<f64>,
    /// Limits and alternatives.
    pub others: Vec<Series>,
    /// All must be met.
    pub aims: Vec<Aim>,
    /// What a reader must know to judge it.
    pub note: String,
}

impl Figure {
    /// Makes a line without others, aims and note.
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

    /// Sets what a reader must know to judge it.
    pub fn note(mut self, note: impl Into<String>) -> Figure {
        self.note = note.into();
        self
    }

    /// Returns our median over each other's, in their order.
    pub fn ratios(&self) -> Vec<f64> {
        self.others.iter().map(|other| median(&self.ours) / median(&other.values)).collect()
    }

    /// Tells whether our median meets an aim.
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

/// Returns the middle value, of an even number the upper one; NaN of none.
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
    fn nothing_measured_meets_nothing() {
        let figure = Figure::new("", "", "s", Vec::new()).beside("one", vec![1.0]);
        for aim in [Aim::AtLeast(0.0), Aim::AtMost(1e9), Aim::TimesGreatest(0.0), Aim::TimesLeast(1e9)] {
            assert!(!figure.meets(aim), "{aim:?}");
        }
    }
}
