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

/// The rows of an answer: the array in it, under whatever name, or its JSON lines.
pub fn rows(body: &[u8]) -> Option<Vec<Map<String, Value>>> {
    let objects = |values: Vec<Value>| {
        values.into_iter().map(|value| match value {
            Value::Object(object) => Some(object),
            Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) | Value::Array(_) => None,
        })
    };
    match serde_json::from_slice(body) {
        Ok(Value::Array(values)) => objects(values).collect(),
        Ok(Value::Object(object)) => match object.values().find_map(Value::as_array) {
            Some(values) => objects(values.clone()).collect(),
            None => Some(vec![object]),
        },
        Ok(Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_)) => None,
        Err(_) => {
            let lines = body.split(|byte| *byte == b'\n').filter(|line| !line.trim_ascii().is_empty());
            let values: Result<Vec<Value>, _> = lines.map(serde_json::from_slice).collect();
            objects(values.ok()?).collect()
        }
    }
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
    fn rows_are_found_in_an_array_in_an_object_and_in_lines() {
        for body in [r#"[{"a":1},{"a":2}]"#, r#"{"next":null,"items":[{"a":1},{"a":2}]}"#, "{\"a\":1}\n{\"a\":2}\n"] {
            assert_eq!(rows(body.as_bytes()).unwrap().len(), 2, "{body}");
        }
        assert_eq!(rows(b""), Some(vec![]));
        assert_eq!(rows(b"not json"), None);
        assert_eq!(rows(b"[1]"), None);
    }

    #[test]
    fn control_characters_never_reach_the_terminal() {
        assert_eq!(fit("a\x1b[2J"), "a [2J");
        assert_eq!(fit(&"y".repeat(100)).len(), MAX_CELL + 3);
    }
}
