//! Aligned text tables for the terminal.

use comfy_table::{CellAlignment, ContentArrangement, Table, presets};

/// Columns under their names, two spaces apart, numbers to the right. A column of numbers is one
/// whose every filled cell starts with a digit or sign. No line ends in spaces.
pub fn table(header: &[&str], rows: &[Vec<String>]) -> String {
    let mut table = Table::new();
    table
        .load_style(presets::NOTHING)
        .set_content_arrangement(ContentArrangement::Disabled)
        .set_header(header);
    table.add_rows(rows);
    for (index, column) in table.column_iter_mut().enumerate() {
        column.set_padding((0, if index + 1 < header.len() { 2 } else { 0 }));
        if numeric(rows, index) {
            column.set_cell_alignment(CellAlignment::Right);
        }
    }
    table.trim_fmt()
}

fn numeric(rows: &[Vec<String>], column: usize) -> bool {
    let number = |cell: &str| {
        let unsigned = cell.trim_start_matches(['+', '-', '−', '<', '~']);
        unsigned.starts_with(|first: char| first.is_ascii_digit())
    };
    let mut cells = rows
        .iter()
        .filter_map(|row| row.get(column))
        .filter(|cell| !cell.is_empty());
    cells.clone().next().is_some() && cells.all(|cell| number(cell))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_go_to_the_left_and_numbers_to_the_right() {
        let row = |cells: [&str; 3]| cells.map(String::from).to_vec();
        let rows = [
            row(["conv1", "34,944", "reads the image"]),
            row(["fc6", "37,752,832", ""]),
            row(["größer", "−1.5 %", "all"]),
        ];
        let expected = "\
layer   parameters  input
conv1       34,944  reads the image
fc6     37,752,832
größer      −1.5 %  all";
        assert_eq!(table(&["layer", "parameters", "input"], &rows), expected);
    }

    #[test]
    fn a_table_without_rows_is_its_header() {
        assert_eq!(table(&["a", "b"], &[]), "a  b");
    }
}
