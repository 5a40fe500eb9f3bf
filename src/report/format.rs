//! Numbers as text, the same way in progress, summary and pictures.

use std::path::Path;
use std::time::Duration;

/// A fraction in per cent: `percent(0.0512, 1)` is "5.1 %".
pub fn percent(fraction: f64, decimals: usize) -> String {
    format!("{:.decimals$} %", fraction * 100.0)
}

/// A rate (images per second) with three digits or so: "0.45", "8.1", "1234".
pub fn rate(per_second: f64) -> String {
    match per_second.abs() {
        rate if rate < 1.0 => format!("{per_second:.2}"),
        rate if rate < 20.0 => format!("{per_second:.1}"),
        _ => format!("{per_second:.0}"),
    }
}

/// A duration for reading: "12.3 s", "4 min 05 s", "3 h 20 min", "5 d 7 h".
pub fn duration(time: Duration) -> String {
    let seconds = time.as_secs_f64().round() as u64;
    match seconds {
        0..60 => format!("{:.1} s", time.as_secs_f64()),
        60..3600 => format!("{} min {:02} s", seconds / 60, seconds % 60),
        3600..86400 => format!("{} h {:02} min", seconds / 3600, seconds / 60 % 60),
        _ => format!("{} d {} h", seconds / 86400, seconds / 3600 % 24),
    }
}

/// A count with thousands separated: "60,965,224".
pub fn grouped(count: u64) -> String {
    let digits = count.to_string();
    let mut text = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// A path as one word of a shell's command line, quoted where it must be.
pub fn shell_word(path: &Path) -> String {
    let text = path.display().to_string();
    let plain = |c: char| c.is_alphanumeric() || "_-./+=:,@%".contains(c);
    if !text.is_empty() && text.chars().all(plain) {
        return text;
    }
    format!("'{}'", text.replace('\'', r"'\''"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_is_quoted_where_a_shell_would_take_it_apart() {
        let word = |path: &str| shell_word(Path::new(path));
        assert_eq!(word("runs/2026-11-29_02-57-00"), "runs/2026-11-29_02-57-00");
        assert_eq!(word("my runs/a;b"), "'my runs/a;b'");
        assert_eq!(word("it's"), r"'it'\''s'");
        assert_eq!(word("~/$x"), "'~/$x'");
    }

    #[test]
    fn numbers_read_well_at_every_size() {
        assert_eq!(percent(0.0512, 1), "5.1 %");
        assert_eq!(
            [rate(0.456), rate(8.14), rate(1234.5)],
            ["0.46", "8.1", "1234"]
        );
        assert_eq!(
            [grouped(7), grouped(1000), grouped(60_965_224)],
            ["7", "1,000", "60,965,224"]
        );
        let text = |seconds| duration(Duration::from_secs_f64(seconds));
        assert_eq!([text(12.34), text(245.0)], ["12.3 s", "4 min 05 s"]);
        assert_eq!([text(12_000.0), text(458_000.0)], ["3 h 20 min", "5 d 7 h"]);
    }
}
