//! Writes a statement's text for one database, and collects the values that are sent beside it.

use std::fmt::Write as _;

use sea_orm::{DbBackend, Value};

use super::{Column, Param, column};

const ROW_LOCK: &str = "FOR NO KEY UPDATE";
const IN_LIST: &str = "= ANY(";

pub(super) struct Renderer {
    backend: DbBackend,
    text: String,
    values: Vec<Value>,
    /// Parameters that the text has not mentioned yet.
    params: Vec<(&'static str, Param)>,
    /// Parameters that it has mentioned, and what to write for them the next time.
    rendered: Vec<(&'static str, String)>,
}

impl Renderer {
    pub(super) fn new(backend: DbBackend, params: Vec<(&'static str, Param)>) -> Self {
        Self {
            backend,
            text: String::new(),
            values: Vec::with_capacity(params.len()),
            rendered: Vec::with_capacity(params.len()),
            params,
        }
    }

    pub(super) fn render(mut self, text: &'static str) -> (String, Vec<Value>) {
        self.text.reserve(text.len() + 128);
        let mut rest = text;

        while let Some(at) = rest.find([':', 'F']) {
            self.text.push_str(&rest[..at]);
            rest = &rest[at..];

            if let Some(after) = rest.strip_prefix("::") {
                self.text.push_str("::");
                rest = after;
            } else if let Some(after) = rest.strip_prefix(':') {
                let (name, after) = split_name(after);
                self.mention(name);
                rest = after;
            } else if let Some(after) = rest.strip_prefix(ROW_LOCK) {
                rest = self.row_lock(after);
            } else {
                self.text.push('F');
                rest = &rest[1..];
            }
        }

        self.text.push_str(rest);
        (self.text, self.values)
    }

    fn mention(&mut self, name: &str) {
        if let Some((_, rendered)) = self.rendered.iter().find(|(known, _)| *known == name) {
            let is_json_list = self.text.ends_with(IN_LIST) && self.backend != DbBackend::Postgres;
            assert!(!is_json_list, "the list :{name} is mentioned twice");
            self.text.push_str(rendered);
            return;
        }
        let index = self.params.iter().position(|(bound, _)| *bound == name);
        let index = index.unwrap_or_else(|| panic!("the statement's parameter :{name} is not bound"));
        let (name, param) = self.params.swap_remove(index);
        let is_postgres = self.backend == DbBackend::Postgres;

        let again = match param {
            Param::Value(value) => self.placeholder(value),
            Param::Timestamp(instant) => self.placeholder(instant.to_value(self.backend)),
            Param::Duration(duration) if is_postgres => {
                let seconds = self.placeholder(duration.as_secs_f64().into());
                format!("make_interval(secs => {seconds})")
            }
            Param::Duration(duration) => {
                let micros = i64::try_from(duration.as_micros()).unwrap_or(i64::MAX);
                self.placeholder(micros.into())
            }
            Param::List(values) | Param::PlannerList(values) if is_postgres => self.placeholder(values.into_array()),
            Param::List(values) => self.json_list(&values),
            Param::PlannerList(_) => self.not_null(),
            // The first mention defines the table, others are its name.
            Param::Table(columns) => {
                let table = if is_postgres {
                    self.unnest(name, columns)
                } else {
                    self.json_table(name, &columns)
                };
                self.text.push_str(&table);
                self.rendered.push((name, name.to_owned()));
                return;
            }
        };
        self.text.push_str(&again);
        self.rendered.push((name, again));
    }

    fn placeholder(&mut self, value: Value) -> String {
        self.values.push(value);
        format!("${}", self.values.len())
    }

    fn unnest(&mut self, name: &str, columns: Vec<(&'static str, Column)>) -> String {
        let (mut names, mut arrays) = (Vec::new(), Vec::new());
        for (column, values) in columns {
            let array_type = values.array_type();
            arrays.push(format!("{}::{array_type}", self.placeholder(values.into_array())));
            names.push(column);
        }
        format!("unnest({}) AS {name}({})", arrays.join(", "), names.join(", "))
    }

    fn json_table(&mut self, name: &str, columns: &[(&'static str, Column)]) -> String {
        let mut select = String::new();
        for (index, (column, values)) in columns.iter().enumerate() {
            let comma = if index == 0 { "" } else { ", " };
            let value = values.decode_json(&format!("value ->> {index}"));
            let _ = write!(select, "{comma}{value} AS {column}");
        }
        let rows = self.placeholder(column::rows_as_json(columns).into());
        format!("(SELECT {select} FROM json_each({rows})) AS {name}")
    }

    /// The text ends in `= ANY(`, which SQLite does not know: it becomes `IN (`.
    fn json_list(&mut self, values: &Column) -> String {
        assert!(self.text.ends_with(IN_LIST), "a list stands in `= ANY(:name)`");
        self.text.truncate(self.text.len() - IN_LIST.len());
        self.text.push_str("IN (");

        let value = values.decode_json("value");
        let list = self.placeholder(column::list_as_json(values).into());
        format!("SELECT {value} FROM json_each({list})")
    }

    /// `= ANY(` becomes `IS NOT (NULL`, which is closed by the bracket that follows.
    fn not_null(&mut self) -> String {
        assert!(self.text.ends_with(IN_LIST), "a list stands in `= ANY(:name)`");
        self.text.truncate(self.text.len() - IN_LIST.len());
        self.text.push_str("IS NOT (");
        "NULL".to_owned()
    }

    /// Keeps a locking clause, or leaves it out to the end of its line or bracket.
    fn row_lock<'a>(&mut self, after: &'a str) -> &'a str {
        if self.backend == DbBackend::Postgres {
            self.text.push_str(ROW_LOCK);
            return after;
        }
        let end = after.find(['\n', ')']).unwrap_or(after.len());
        &after[end..]
    }
}

fn split_name(text: &str) -> (&str, &str) {
    let is_name = |letter: char| letter.is_ascii_alphanumeric() || letter == '_';
    let end = text.find(|letter| !is_name(letter)).unwrap_or(text.len());
    text.split_at(end)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::entities::Timestamp;

    fn render(backend: DbBackend, text: &'static str, params: Vec<(&'static str, Param)>) -> (String, usize) {
        let (text, values) = Renderer::new(backend, params).render(text);
        (text, values.len())
    }

    #[test]
    fn a_name_that_is_mentioned_twice_is_sent_once() {
        let text = "SELECT :a::bigint + :b WHERE FALSE OR id = :a";
        let params = || vec![("b", Param::Value(2.into())), ("a", Param::Value(1.into()))];
        for backend in [DbBackend::Postgres, DbBackend::Sqlite] {
            let expected = "SELECT $1::bigint + $2 WHERE FALSE OR id = $1";
            assert_eq!(render(backend, text, params()), (expected.to_owned(), 2));
        }
    }

    #[test]
    fn a_list_a_table_and_a_lock_are_written_for_either_database() {
        let text =
            "SELECT t.id FROM :t JOIN o ON o.id = t.id WHERE o.id = ANY(:ids) ORDER BY o.id FOR NO KEY UPDATE OF o";
        let params = || {
            vec![
                ("t", Param::Table(vec![("id", Column::BigInt(vec![1, 2]))])),
                ("ids", Param::List(Column::BigInt(vec![3]))),
            ]
        };
        assert_eq!(
            render(DbBackend::Postgres, text, params()).0,
            "SELECT t.id FROM unnest($1::bigint[]) AS t(id) JOIN o ON o.id = t.id WHERE o.id = ANY($2) ORDER BY o.id FOR NO KEY UPDATE OF o"
        );
        assert_eq!(
            render(DbBackend::Sqlite, text, params()).0,
            "SELECT t.id FROM (SELECT value ->> 0 AS id FROM json_each($1)) AS t JOIN o ON o.id = t.id WHERE o.id IN (SELECT value FROM json_each($2)) ORDER BY o.id "
        );
    }

    #[test]
    fn a_list_for_the_planner_alone_says_nothing_to_sqlite() {
        let text = "SELECT 1 FROM o WHERE o.id = ANY(:ids) AND true";
        let params = || vec![("ids", Param::PlannerList(Column::BigInt(vec![3])))];
        let postgres = "SELECT 1 FROM o WHERE o.id = ANY($1) AND true";
        assert_eq!(render(DbBackend::Postgres, text, params()), (postgres.to_owned(), 1));
        let sqlite = "SELECT 1 FROM o WHERE o.id IS NOT (NULL) AND true";
        assert_eq!(render(DbBackend::Sqlite, text, params()), (sqlite.to_owned(), 0));
    }

    #[test]
    fn instants_and_durations_have_the_form_of_the_database() {
        let text = "SELECT :now + :wait * 2";
        let params = || {
            vec![
                ("now", Param::Timestamp(Timestamp(1_000_000))),
                ("wait", Param::Duration(Duration::from_secs(5))),
            ]
        };
        let (postgres, values) = Renderer::new(DbBackend::Postgres, params()).render(text);
        assert_eq!(postgres, "SELECT $1 + make_interval(secs => $2) * 2");
        assert_eq!(values[1], Value::from(5.0));

        let (sqlite, values) = Renderer::new(DbBackend::Sqlite, params()).render(text);
        assert_eq!(sqlite, "SELECT $1 + $2 * 2");
        assert_eq!(values, [Value::from(1_000_000_i64), Value::from(5_000_000_i64)]);
    }

    #[test]
    #[should_panic(expected = ":missing is not bound")]
    fn a_name_that_is_not_bound_is_a_mistake_in_the_program() {
        render(DbBackend::Postgres, "SELECT :missing", Vec::new());
    }
}
