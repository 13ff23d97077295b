//! Many rows in one statement. A batch goes to the database as a derived table: arrays through `unnest` on
//! PostgreSQL, one JSON document through `json_each` on SQLite. The statement's text stays the same for every size of
//! batch, so it is prepared once, and no limit on bind variables is ever near.

use std::fmt::Write as _;

use sea_orm::{ConnectionTrait, DbBackend, DbErr, Statement, Value, sea_query::ArrayType};
use serde_json::Value as Json;
use uuid::Uuid;

/// One column of a derived table, with its values.
pub enum Column {
    BigInt(Vec<i64>),
    Uuid(Vec<Uuid>),
    Text(Vec<String>),
    /// JSON documents as text.
    Json(Vec<String>),
}

/// Builds a statement for either database, piece by piece.
pub struct Sql {
    backend: DbBackend,
    text: String,
    values: Vec<Value>,
}

impl Sql {
    #[must_use]
    pub fn new(backend: DbBackend, text: &str) -> Self {
        Self {
            backend,
            text: text.to_owned(),
            values: Vec::new(),
        }
    }

    #[must_use]
    pub fn push(mut self, text: &str) -> Self {
        self.text.push_str(text);
        self
    }

    /// A value, sent beside the text and never inside it.
    #[must_use]
    pub fn bind(mut self, value: impl Into<Value>) -> Self {
        self.values.push(value.into());
        let _ = write!(self.text, "${}", self.values.len());
        self
    }

    /// A derived table `name` of the given columns. All columns have the same number of values.
    #[must_use]
    pub fn rows<const N: usize>(self, name: &str, columns: [(&str, Column); N]) -> Self {
        match self.backend {
            DbBackend::Postgres => self.rows_by_unnest(name, columns),
            _ => self.rows_by_json(name, &columns),
        }
    }

    /// A field of a column of JSON as text; NULL where there is none, and where it is no JSON at all, which only SQLite
    /// would store.
    #[must_use]
    pub fn json_text(self, column: &str, field: &str) -> Self {
        match self.backend {
            DbBackend::Postgres => self.push(&format!("({column} ->> '{field}')")),
            _ => self.push(&format!(
                "CASE WHEN json_valid({column}) THEN {column} ->> '$.{field}' END"
            )),
        }
    }

    /// Keeps the rows read locked until the commit, in the order in which they are read. SQLite has one writer
    /// and knows no row locks. `NO KEY` lets others insert rows that refer to the locked ones.
    #[must_use]
    pub fn for_update(self) -> Self {
        match self.backend {
            DbBackend::Postgres => self.push(" FOR NO KEY UPDATE"),
            _ => self,
        }
    }

    /// As [`Sql::for_update`], the rows of one table of several.
    #[must_use]
    pub fn for_update_of(self, table: &str) -> Self {
        match self.backend {
            DbBackend::Postgres => self.push(" FOR NO KEY UPDATE OF ").push(table),
            _ => self,
        }
    }

    /// As [`Sql::for_update`], leaving out the rows that somebody else has locked.
    #[must_use]
    pub fn for_update_skip_locked(self) -> Self {
        match self.backend {
            DbBackend::Postgres => self.push(" FOR NO KEY UPDATE SKIP LOCKED"),
            _ => self,
        }
    }

    /// Runs this INSERT of `count` rows into a table whose `id` counts up, and answers the ids in the order of the rows.
    /// All rows must be inserted.
    ///
    /// # Errors
    /// The database's.
    pub async fn insert_numbered(self, txn: &impl ConnectionTrait, count: usize) -> Result<Vec<i64>, DbErr> {
        if self.backend == DbBackend::Postgres {
            // Others count up at the same time, so there may be gaps; but each row takes its number when it is its turn.
            let rows = txn.query_all_raw(self.push(" RETURNING id").build()).await?;
            let ids = rows.iter().map(|row| row.try_get_by_index(0));
            let mut ids = ids.collect::<Result<Vec<i64>, DbErr>>()?;
            ids.sort_unstable();
            return Ok(ids);
        }
        // Nobody else writes meanwhile, so the numbers follow one another.
        let inserted = txn.execute_raw(self.build()).await?;
        let last = i64::try_from(inserted.last_insert_id()).unwrap_or(i64::MAX);
        let first = last - i64::try_from(count).unwrap_or(0) + 1;
        Ok((first..=last).collect())
    }

    #[must_use]
    pub fn build(self) -> Statement {
        Statement::from_sql_and_values(self.backend, self.text, self.values)
    }

    fn rows_by_unnest<const N: usize>(mut self, name: &str, columns: [(&str, Column); N]) -> Self {
        let names = columns.each_ref().map(|(column, _)| *column).join(", ");
        self.text.push_str("unnest(");
        for (index, (_, column)) in columns.into_iter().enumerate() {
            let (cast, value) = column.into_array();
            self.values.push(value);
            let comma = if index == 0 { "" } else { ", " };
            let _ = write!(self.text, "{comma}${}::{cast}", self.values.len());
        }
        let _ = write!(self.text, ") AS {name}({names})");
        self
    }

    fn rows_by_json<const N: usize>(mut self, name: &str, columns: &[(&str, Column); N]) -> Self {
        let length = columns.iter().map(|(_, column)| column.len()).max().unwrap_or(0);
        let mut rows = String::with_capacity(length * columns.len() * 24 + 2);
        for row in 0..length {
            rows.push(if row == 0 { '[' } else { ',' });
            for (index, (_, column)) in columns.iter().enumerate() {
                rows.push(if index == 0 { '[' } else { ',' });
                column.write_json(row, &mut rows);
            }
            rows.push(']');
        }
        rows.push_str(if length == 0 { "[]" } else { "]" });
        self.values.push(rows.into());
        let source = self.values.len();
        let select: Vec<String> = columns
            .iter()
            .enumerate()
            .map(|(index, (column, values))| values.select_from_json(index, column))
            .collect();
        let _ = write!(
            self.text,
            "(SELECT {} FROM json_each(${source})) AS {name}",
            select.join(", ")
        );
        self
    }
}

impl Column {
    fn len(&self) -> usize {
        match self {
            Self::BigInt(values) => values.len(),
            Self::Uuid(values) => values.len(),
            Self::Text(values) | Self::Json(values) => values.len(),
        }
    }

    fn into_array(self) -> (&'static str, Value) {
        fn array<T: Into<Value>>(kind: ArrayType, values: Vec<T>) -> Value {
            Value::Array(kind, Some(Box::new(values.into_iter().map(Into::into).collect())))
        }
        match self {
            Self::BigInt(values) => ("bigint[]", array(ArrayType::BigInt, values)),
            Self::Uuid(values) => ("uuid[]", array(ArrayType::Uuid, values)),
            Self::Text(values) => ("text[]", array(ArrayType::String, values)),
            Self::Json(values) => ("text[]::jsonb[]", array(ArrayType::String, values)),
        }
    }

    fn write_json(&self, row: usize, into: &mut String) {
        let _ = match self {
            Self::BigInt(values) => write!(into, "{}", values[row]),
            Self::Uuid(values) => write!(into, "\"{}\"", values[row].simple()),
            // The Display of a JSON value is JSON.
            Self::Text(values) | Self::Json(values) => write!(into, "{}", Json::from(values[row].as_str())),
        };
    }

    fn select_from_json(&self, index: usize, name: &str) -> String {
        match self {
            // SeaORM stores a UUID in SQLite as its 16 bytes.
            Self::Uuid(_) => format!("unhex(value ->> {index}) AS {name}"),
            _ => format!("value ->> {index} AS {name}"),
        }
    }
}
