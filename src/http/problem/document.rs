//! Problems in the OpenAPI document: an operation declares which types it can answer with, and the document lists them
//! by status.

use poem_openapi::{
    registry::{MetaMediaType, MetaResponse, MetaResponses},
    types::Type,
};

use super::{CONTENT_TYPE, ProblemBody, types::ProblemType};

/// Declares the error side of an operation: which types of problem it can answer with.
macro_rules! problems {
    ($(#[$doc:meta])* $name:ident: $($kind:ident),+ $(,)?) => {
        $(#[$doc])*
        pub struct $name($crate::http::problem::Problem);

        impl<T: Into<$crate::http::problem::Problem>> From<T> for $name {
            fn from(problem: T) -> Self {
                Self(problem.into())
            }
        }

        impl From<$name> for poem::Error {
            fn from(problem: $name) -> Self {
                problem.0.into()
            }
        }

        impl poem_openapi::ApiResponse for $name {
            fn meta() -> poem_openapi::registry::MetaResponses {
                $crate::http::problem::responses(&[$($kind),+])
            }

            fn register(registry: &mut poem_openapi::registry::Registry) {
                <$crate::http::problem::ProblemBody as poem_openapi::types::Type>::register(registry);
            }
        }
    };
}
pub(crate) use problems;

/// What the document says of these types: one answer a status.
pub(crate) fn responses(kinds: &[ProblemType]) -> MetaResponses {
    let mut statuses: Vec<u16> = kinds.iter().map(|kind| kind.status.as_u16()).collect();
    statuses.sort_unstable();
    statuses.dedup();

    MetaResponses {
        responses: statuses.into_iter().map(|status| response(status, kinds)).collect(),
    }
}

fn response(status: u16, kinds: &[ProblemType]) -> MetaResponse {
    let with_status = kinds.iter().filter(|kind| kind.status.as_u16() == status);
    let described: Vec<String> = with_status
        .map(|kind| format!("{} (`{}`)", kind.title, kind.uri()))
        .collect();

    MetaResponse {
        // Leaked: the framework asks for a static text, and the document is made a few times in the life of a process.
        description: described.join("; ").leak(),
        status: Some(status),
        status_range: None,
        content: vec![MetaMediaType {
            content_type: CONTENT_TYPE,
            schema: ProblemBody::schema_ref(),
        }],
        headers: Vec::new(),
    }
}
