//! Triggers of the tests' own: every change of the rows that count is written down, with the transaction that made it.

use sea_orm::{ConnectionTrait as _, QueryResult, Statement};
use serde_json::Value;
use shop::app::App;

const TABLES: [&str; 5] = ["orders", "order_items", "products", "stock_movements", "outbox"];

/// A row before and after; `None` where it did not exist.
#[derive(Clone, Debug)]
pub struct Change {
    /// On SQLite it is not known which changes one transaction made.
    pub transaction: Option<i64>,
    pub table: String,
    pub before: Option<Value>,
    pub after: Option<Value>,
}

/// Records from now on. Call it once, on an up-to-date schema.
pub async fn record(app: &App) {
    let statements = if app.db.is_sqlite() {
        for_sqlite(app).await
    } else {
        for_postgres()
    };
    for statement in statements {
        app.db.write().execute_unprepared(&statement).await.expect(&statement);
    }
}

/// All that was recorded, in the order in which each row changed.
pub async fn read(app: &App) -> Vec<Change> {
    let select = r#"SELECT "transaction", "table", "before", "after" FROM history ORDER BY number"#;
    let backend = app.db.read().get_database_backend();
    let rows = app.db.read().query_all_raw(Statement::from_string(backend, select));

    let row = |row: QueryResult| {
        let json = |column| -> Option<Value> {
            let text: Option<String> = row.try_get_by_index(column).expect("text");
            text.map(|text| serde_json::from_str(&text).expect("JSON"))
        };
        Change {
            transaction: row.try_get_by_index(0).expect("a number"),
            table: row.try_get_by_index(1).expect("a name"),
            before: json(2),
            after: json(3),
        }
    };
    rows.await
        .expect("the history can be read")
        .into_iter()
        .map(row)
        .collect()
}

fn for_postgres() -> Vec<String> {
    let table = r#"
        CREATE TABLE history (
            number bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
            "transaction" bigint DEFAULT txid_current(),
            "table" text NOT NULL,
            "before" text,
            "after" text
        )"#;
    let function = r#"
        CREATE FUNCTION record_history() RETURNS trigger LANGUAGE plpgsql AS $$
        BEGIN
            INSERT INTO history ("table", "before", "after")
            VALUES (TG_TABLE_NAME, CASE WHEN TG_OP <> 'INSERT' THEN to_jsonb(OLD) END,
                                   CASE WHEN TG_OP <> 'DELETE' THEN to_jsonb(NEW) END);
            RETURN NULL;
        END $$"#;
    let trigger = |table: &str| {
        format!(
            "CREATE TRIGGER record_history AFTER INSERT OR UPDATE OR DELETE ON {table}
                 FOR EACH ROW EXECUTE FUNCTION record_history()"
        )
    };

    let mut statements = vec![table.to_owned(), function.to_owned()];
    statements.extend(TABLES.map(trigger));
    statements
}

async fn for_sqlite(app: &App) -> Vec<String> {
    let table = r#"
        CREATE TABLE history (
            number INTEGER PRIMARY KEY AUTOINCREMENT,
            "transaction" INTEGER,
            "table" TEXT NOT NULL,
            "before" TEXT,
            "after" TEXT
        ) STRICT"#;
    let mut statements = vec![table.to_owned()];

    for table in TABLES {
        let columns = format!("SELECT name FROM pragma_table_info('{table}')");
        let backend = app.db.read().get_database_backend();
        let rows = app.db.read().query_all_raw(Statement::from_string(backend, columns));
        let columns: Vec<String> = rows
            .await
            .expect("the columns")
            .iter()
            .map(|row| row.try_get_by_index(0).expect("a name"))
            .collect();

        let json = |row: &str| {
            // JSON has no bytes; ids are written in hexadecimal.
            let field = |column: &String| {
                format!(
                    "'{column}', CASE typeof({row}.{column}) WHEN 'blob' THEN hex({row}.{column}) ELSE {row}.{column} END"
                )
            };
            format!(
                "json_object({})",
                columns.iter().map(field).collect::<Vec<_>>().join(", ")
            )
        };
        let none = "NULL".to_owned();
        for (event, before, after) in [
            ("INSERT", none.clone(), json("NEW")),
            ("UPDATE", json("OLD"), json("NEW")),
            ("DELETE", json("OLD"), none),
        ] {
            statements.push(format!(
                r#"CREATE TRIGGER record_{table}_{event} AFTER {event} ON {table} BEGIN
                       INSERT INTO history ("table", "before", "after") VALUES ('{table}', {before}, {after});
                   END"#
            ));
        }
    }
    statements
}
