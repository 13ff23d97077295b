//! Reading outside a transaction. A statement whose connection turns out to be of no more use is sent once more, on a new one.

use std::sync::Arc;

use sea_orm::{
    ConnectionTrait, DatabaseConnection, DbBackend, DbErr, ExecResult, QueryResult, Statement,
    entity::prelude::async_trait,
};

use super::{Transient as _, eviction::Eviction};

/// Connections for reading. What is sent through them changes nothing, so that it may be sent twice.
#[derive(Clone, Debug)]
pub struct Reader {
    pub(super) connection: DatabaseConnection,
    pub(super) eviction: Arc<Eviction>,
}

impl Reader {
    /// Whether to try again, on a connection that is opened for it.
    fn is_worth_another(&self, error: &DbErr) -> bool {
        let is_useless = error.needs_reconnect();
        if is_useless {
            self.eviction.evict();
        }
        is_useless
    }
}

#[async_trait::async_trait]
impl ConnectionTrait for Reader {
    fn get_database_backend(&self) -> DbBackend {
        self.connection.get_database_backend()
    }

    async fn execute_raw(&self, statement: Statement) -> Result<ExecResult, DbErr> {
        match self.connection.execute_raw(statement.clone()).await {
            Err(error) if self.is_worth_another(&error) => self.connection.execute_raw(statement).await,
            done => done,
        }
    }

    async fn execute_unprepared(&self, statement: &str) -> Result<ExecResult, DbErr> {
        match self.connection.execute_unprepared(statement).await {
            Err(error) if self.is_worth_another(&error) => self.connection.execute_unprepared(statement).await,
            done => done,
        }
    }

    async fn query_one_raw(&self, statement: Statement) -> Result<Option<QueryResult>, DbErr> {
        match self.connection.query_one_raw(statement.clone()).await {
            Err(error) if self.is_worth_another(&error) => self.connection.query_one_raw(statement).await,
            done => done,
        }
    }

    async fn query_all_raw(&self, statement: Statement) -> Result<Vec<QueryResult>, DbErr> {
        match self.connection.query_all_raw(statement.clone()).await {
            Err(error) if self.is_worth_another(&error) => self.connection.query_all_raw(statement).await,
            done => done,
        }
    }
}
