//! Figures as Markdown tables, and the places of the tables in a document.

mod headline;

use crate::figure::{Aim, Figure, median};

const HEAD: &str =
    "| what | ours | beside it, in the same run | ours ÷ theirs | aim | |\n|---|---|---|---|---|---|\n";

/// Replaces the headlines and the table of a document. Returns `None` if the document has no place for them.
pub fn insert(document: &str, machine: &str, figures: &[Figure]) -> Option<String> {
    let headlines = headline::table(figures);
    let document = replace(document, "headlines", &format!("{headlines}\n{machine}"))?;
    replace(&document, "figures", &table(figures))
}

/// Replaces the text between the two markers of a name. Returns `None` if the document does not have both.
fn replace(document: &str, name: &str, text: &str) -> Option<String> {
    let begin = format!("<!-- {name}: written by script/bench -->\n");
    let end = format!("<!-- end of {name} -->");
    let (before, rest) = document.split_once(&begin)?;
    let (_, after) = rest.split_once(&end)?;
    Some(format!("{before}{begin}{text}{end}{after}"))
}

/// Describes this machine, so that readers can compare figures.
pub fn machine() -> String {
    let read = |file: &str, key: &str| {
        let text = std::fs::read_to_string(file).unwrap_or_default();
        let value = text.lines().find_map(|line| line.strip_prefix(key)?.split_once(':'));
        value.map_or_else(|| "unknown".to_owned(), |(_, value)| value.trim().to_owned())
    };
    let cores = std::thread::available_parallelism().map_or(0, usize::from);
    let (processor, memory) = (read("/proc/cpuinfo", "model name"), read("/proc/meminfo", "MemTotal"));
    format!("Machine: {cores} cores of {processor}, {memory} of memory.\n")
}

/// Writes `figures` as one table, one line for each, with the medians of the runs.
pub fn table(figures: &[Figure]) -> String {
    let lines: String = figures.iter().map(line).collect();
    let notes: String = figures.iter().filter(|figure| !figure.note.is_empty()).map(note).collect();
    format!("{HEAD}{lines}\n{notes}")
}

fn line(figure: &Figure) -> String {
    let unit = &figure.unit;
    let ours = format!("**{}** {unit}", number(median(&figure.ours)));
    let others =
        figure.others.iter().map(|other| format!("{}: {}", other.name, number(median(&other.values))));
    let ratios = figure.ratios().into_iter().map(number);
    let aims = figure.aims.iter().map(|aim| match aim {
        Aim::AtLeast(bound) => format!("≥ {} {unit}", number(*bound)),
        Aim::AtMost(bound) => format!("≤ {} {unit}", number(*bound)),
        Aim::TimesGreatest(times) => format!("≥ {} ×", number(*times)),
        Aim::TimesLeast(times) => format!("≤ {} ×", number(*times)),
    });
    let what = with_arrow(figure, &figure.what);
    let cells = [&*what, &ours, &join(others), &join(ratios), &join(aims), verdict(figure)];
    format!("| {} |\n", cells.join(" | "))
}

/// Writes the name of a figure after an arrow: up if more is better, down if less is better.
fn with_arrow(figure: &Figure, name: &str) -> String {
    let arrow = if figure.more_is_better() { '↑' } else { '↓' };
    format!("{arrow} {name}")
}

fn verdict(figure: &Figure) -> &'static str {
    match figure.aims.as_slice() {
        [] => "",
        aims if aims.iter().all(|aim| figure.meets(*aim)) => "met",
        _ => "**not met**",
    }
}

fn note(figure: &Figure) -> String {
    format!("* {}: {}\n", figure.what, figure.note)
}

fn join(parts: impl Iterator<Item = String>) -> String {
    parts.collect::<Vec<_>>().join("<br>")
}

/// Writes a number with three significant digits and separated thousands.
fn number(value: f64) -> String {
    if !value.is_finite() {
        return "–".to_owned();
    }
    let decimals = match value.abs() {
        0.0 => 0,
        size if size < 0.001 => return format!("{value:.1e}"),
        size if size < 0.01 => 5,
        size if size < 1.0 => 3,
        size if size < 10.0 => 2,
        size if size < 100.0 => 1,
        _ => 0,
    };
    let text = format!("{value:.decimals$}");
    if decimals > 0 {
        return text;
    }
    let (sign, digits) = text.strip_prefix('-').map_or(("", &*text), |digits| ("-", digits));
    let mut grouped = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            grouped.push(',');
        }
        grouped.push(digit);
    }
    format!("{sign}{grouped}")
}

#[cfg(test)]
mod tests {
    use super::{headline, insert, number, table};
    use crate::figure::{Aim, Figure};

    #[test]
    fn numbers_are_short_and_grouped() {
        for (value, expected) in [
            (1_234_567.8, "1,234,568"),
            (12.34, "12.3"),
            (0.5, "0.500"),
            (4.7e-15, "4.7e-15"),
            (-1500.0, "-1,500"),
            (f64::NAN, "–"),
        ] {
            assert_eq!(number(value), expected);
        }
    }

    #[test]
    fn tables_take_the_places_of_the_old_ones() {
        let document = |headlines: &str, figures: &str| {
            format!(
                "text\n<!-- headlines: written by script/bench -->\n{headlines}<!-- end of headlines -->\nmore\n\
                 <!-- figures: written by script/bench -->\n{figures}<!-- end of figures -->\nend"
            )
        };
        let figures = [Figure::new("get", "DoGet from the hot buffer", "GB/s", vec![1.0])];
        let written = insert(&document("old\n", "old\n"), "Machine.\n", &figures).unwrap();
        let headlines = format!("{}\nMachine.\n", headline::table(&figures));
        assert_eq!(written, document(&headlines, &table(&figures)));
        assert_eq!(insert("text", "Machine.\n", &figures), None);
    }

    #[test]
    fn a_line_shows_ours_theirs_ratio_and_verdict() {
        let figure = Figure::new("sql", "last rows", "s", vec![1.0, 3.0, 2.0])
            .beside("DuckDB", vec![4.0])
            .aim(Aim::TimesLeast(1.2))
            .note("Warm.");
        let table = table(&[figure]);
        assert!(
            table.contains("| ↓ last rows | **2.00** s | DuckDB: 4.00 | 0.500 | ≤ 1.20 × | met |"),
            "{table}"
        );
        assert!(table.ends_with("* last rows: Warm.\n"), "{table}");
    }
}
