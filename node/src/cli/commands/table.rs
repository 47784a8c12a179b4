//! Rows for people: aligned columns, and the same rows as JSON for programs.

use std::io::{self, Write};

use serde_json::{Map, Value};

/// Widest cell; the rest is cut off, since JSON has it whole.
const MAX_CELL: usize = 60;

/// Prints `rows` under `titles`, each column as wide as its widest cell.
pub fn print(out: &mut impl Write, titles: &[&str], rows: &[Vec<String>]) -> io::Result<()> {
    let rows: Vec<Vec<String>> = rows.iter().map(|row| row.iter().map(|cell| fit(cell)).collect()).collect();
    let width = |column: usize| {
        let cells = rows.iter().filter_map(|row| row.get(column)).map(|cell| cell.chars().count());
        cells.chain(titles.get(column).map(|title| title.chars().count())).max().unwrap_or(0)
    };
    let widths: Vec<_> = (0..titles.len()).map(width).collect();
    let mut line = |cells: &mut dyn Iterator<Item = &str>| {
        let padded: Vec<_> = cells.zip(&widths).map(|(cell, width)| format!("{cell:width$}")).collect();
        writeln!(out, "{}", padded.join("  ").trim_end())
    };
    line(&mut titles.iter().copied())?;
    rows.iter().try_for_each(|row| line(&mut row.iter().map(String::as_str)))
}

/// The objects in the array called `field`.
pub fn rows_of(answer: &Map<String, Value>, field: &str) -> Vec<Map<String, Value>> {
    let values = answer.get(field).and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
    values.iter().filter_map(Value::as_object).cloned().collect()
}

/// A value as a cell: strings bare, lists joined, the rest as JSON.
pub fn cell(value: Option<&Value>) -> String {
    match value {
        None | Some(Value::Null) => String::new(),
        Some(Value::String(text)) => text.clone(),
        Some(Value::Array(values)) => values.iter().map(|value| cell(Some(value))).collect::<Vec<_>>().join(", "),
        Some(value @ (Value::Bool(_) | Value::Number(_) | Value::Object(_))) => value.to_string(),
    }
}

fn fit(cell: &str) -> String {
    let clean: String = cell.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
    match clean.char_indices().nth(MAX_CELL) {
        Some((cut, _)) => format!("{}...", &clean[..cut]),
        None => clean,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_as_wide_as_their_widest_cell() {
        let mut out = Vec::new();
        print(&mut out, &["ID", "N"], &[vec!["long-name".into(), "1".into()], vec!["x".into(), "22".into()]]).unwrap();
        assert_eq!(String::from_utf8(out).unwrap(), "ID         N\nlong-name  1\nx          22\n");
    }

    #[test]
    fn rows_are_the_objects_of_the_array_and_nothing_else() {
        let answer = serde_json::from_str(r#"{"other":[{}],"rows":[{"a":1},2,{"a":[3,"x"]}],"next":null}"#).unwrap();
        let rows = rows_of(&answer, "rows");
        assert_eq!(rows.len(), 2);
        assert_eq!(cell(rows[1].get("a")), "3, x");
        assert_eq!(cell(rows[1].get("b")), "");
        assert_eq!(rows_of(&answer, "next"), []);
    }

    #[test]
    fn control_characters_never_reach_the_terminal() {
        assert_eq!(fit("a\x1b[2J"), "a [2J");
        assert_eq!(fit(&"y".repeat(100)).len(), MAX_CELL + 3);
    }
}
