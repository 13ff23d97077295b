//! SQL with named parameters, written once for both databases. A statement is one literal in PostgreSQL's dialect, beside
//! the function that runs it; for SQLite a few things are rewritten:
//!
//! | in the literal | PostgreSQL | SQLite |
//! | --- | --- | --- |
//! | `:name` | `$1` | `$1` |
//! | `FROM :rows`, a table of values | `unnest($1::bigint[], …) AS rows(…)` | `(SELECT … FROM json_each($1)) AS rows` |
//! | `= ANY(:ids)`, a list of values | `= ANY($1)` | `IN (SELECT … FROM json_each($1))` |
//! | `FOR NO KEY UPDATE [OF …] [SKIP LOCKED]` | kept | left out: SQLite has one writer |
//!
//! A list is mentioned once in a text, and a literal in it holds no colon but `::`.
//!
//! A batch of any size is one statement with the same text, so it is prepared once, and no limit on bind variables is near.

use std::time::Duration;

use sea_orm::{
    ConnectionTrait, DbBackend, DbErr, FromQueryResult, QueryResult, Statement, TryGetable, TryGetableMany, Value,
};

mod column;
mod render;

pub use column::Column;
use render::Renderer;

use crate::entities::Timestamp;

/// A statement and its parameters. Every `:name` of the text must be bound.
pub struct Sql {
    text: &'static str,
    params: Vec<(&'static str, Param)>,
}

/// What a name in the text stands for.
pub enum Param {
    Value(Value),
    /// `timestamptz` on PostgreSQL, microseconds on SQLite.
    Timestamp(Timestamp),
    /// An interval on PostgreSQL, microseconds on SQLite.
    Duration(Duration),
    /// A list of values, for `= ANY(:name)`.
    List(Column),
    /// A list that repeats what a join says already, for PostgreSQL's planner alone.
    PlannerList(Column),
    /// A derived table called `name`. All its columns have the same length.
    Table(Vec<(&'static str, Column)>),
}

/// Begins a statement. See the module for what its text may hold.
#[must_use]
pub fn sql(text: &'static str) -> Sql {
    Sql {
        text,
        params: Vec::new(),
    }
}

impl Sql {
    /// A value, sent beside the text and never inside it.
    #[must_use]
    pub fn bind(self, name: &'static str, value: impl Into<Value>) -> Self {
        self.param(name, Param::Value(value.into()))
    }

    #[must_use]
    pub fn timestamp(self, name: &'static str, instant: Timestamp) -> Self {
        self.param(name, Param::Timestamp(instant))
    }

    #[must_use]
    pub fn duration(self, name: &'static str, duration: Duration) -> Self {
        self.param(name, Param::Duration(duration))
    }

    /// A list of values, for `= ANY(:name)`.
    #[must_use]
    pub fn list(self, name: &'static str, values: Column) -> Self {
        self.param(name, Param::List(values))
    }

    /// A list of values, for `= ANY(:name)` in a condition that repeats what a join says already: PostgreSQL then finds the rows
    /// by their index under any statistics. SQLite, which would choose a worse plan, is told only that the column is not null.
    #[must_use]
    pub fn planner_list(self, name: &'static str, values: Column) -> Self {
        self.param(name, Param::PlannerList(values))
    }

    /// A derived table, for `FROM :name`; its columns are then `name.column`.
    #[must_use]
    pub fn table<const N: usize>(self, name: &'static str, columns: [(&'static str, Column); N]) -> Self {
        self.param(name, Param::Table(columns.into()))
    }

    fn param(mut self, name: &'static str, param: Param) -> Self {
        self.params.push((name, param));
        self
    }

    /// The statement for the database that `connection` leads to.
    ///
    /// # Panics
    /// When a name in the text is not bound: a mistake in the program, which the first run of the statement shows.
    #[must_use]
    pub fn build(self, connection: &impl ConnectionTrait) -> Statement {
        let backend = connection.get_database_backend();
        let (text, values) = Renderer::new(backend, self.params).render(self.text);
        Statement::from_sql_and_values(backend, text, values)
    }

    /// Runs the statement and returns how many rows it changed.
    pub async fn execute(self, connection: &impl ConnectionTrait) -> Result<u64, DbErr> {
        let result = connection.execute_raw(self.build(connection)).await?;
        Ok(result.rows_affected())
    }

    /// Runs this INSERT of `count` rows into a table whose `id` counts up, and returns the ids in the order of the rows.
    /// All rows must be inserted.
    pub async fn insert_numbered(self, connection: &impl ConnectionTrait, count: usize) -> Result<Vec<i64>, DbErr> {
        let mut statement = self.build(connection);
        if connection.get_database_backend() == DbBackend::Postgres {
            // Others insert at the same time, so ids may have gaps; but each row takes its id when it is its turn.
            statement.sql.push_str(" RETURNING id");
            let rows = connection.query_all_raw(statement).await?;
            let ids = rows.iter().map(|row| row.try_get_by_index(0));
            let mut ids = ids.collect::<Result<Vec<i64>, DbErr>>()?;
            ids.sort_unstable();
            return Ok(ids);
        }

        // SQLite has one writer, so the ids follow one another.
        let inserted = connection.execute_raw(statement).await?;
        let last = i64::try_from(inserted.last_insert_id()).unwrap_or(i64::MAX);
        let first = last - i64::try_from(count).unwrap_or(0) + 1;
        Ok((first..=last).collect())
    }

    /// All rows, each made by `read`.
    ///
    /// # Errors
    /// The database's, or that a column has another type than `read` asks for.
    pub async fn rows<T>(
        self,
        connection: &impl ConnectionTrait,
        read: impl Fn(&QueryResult) -> Result<T, DbErr>,
    ) -> Result<Vec<T>, DbErr> {
        let rows = connection.query_all_raw(self.build(connection)).await?;
        rows.iter().map(read).collect()
    }

    /// As [`Sql::rows`], without the rows that cannot be read: somebody has dropped a constraint and stored what must not be
    /// there. They are logged as rows of `what`, and nobody else's answer fails for them.
    ///
    /// # Errors
    /// The database's.
    pub async fn readable_rows<T>(
        self,
        connection: &impl ConnectionTrait,
        what: &str,
        read: impl Fn(&QueryResult) -> Result<T, DbErr>,
    ) -> Result<Vec<T>, DbErr> {
        let rows = connection.query_all_raw(self.build(connection)).await?;
        Ok(readable(&rows, what, read).collect())
    }

    /// All rows by the names of their columns: an entity's model, or whatever derives [`FromQueryResult`].
    pub async fn all<T: FromQueryResult>(self, connection: &impl ConnectionTrait) -> Result<Vec<T>, DbErr> {
        self.rows(connection, |row| T::from_query_result(row, "")).await
    }

    /// The first row, if there is one.
    pub async fn one<T: FromQueryResult>(self, connection: &impl ConnectionTrait) -> Result<Option<T>, DbErr> {
        let row = connection.query_one_raw(self.build(connection)).await?;
        row.map(|row| T::from_query_result(&row, "")).transpose()
    }

    /// All rows as tuples of their columns.
    pub async fn tuples<T: TryGetableMany>(self, connection: &impl ConnectionTrait) -> Result<Vec<T>, DbErr> {
        self.rows(connection, QueryResult::try_get_many_by_index).await
    }

    /// The first column of every row.
    pub async fn scalars<T: TryGetable>(self, connection: &impl ConnectionTrait) -> Result<Vec<T>, DbErr> {
        self.rows(connection, |row| row.try_get_by_index(0)).await
    }
}

/// The rows that can be read. The others are logged as rows of `what`.
pub fn readable<T>(
    rows: &[QueryResult],
    what: &str,
    read: impl Fn(&QueryResult) -> Result<T, DbErr>,
) -> impl Iterator<Item = T> {
    let read_or_log = move |row| {
        let read = read(row).inspect_err(|error| tracing::error!(%error, what, "left out a row that cannot be read"));
        read.ok()
    };
    rows.iter().filter_map(read_or_log)
}
