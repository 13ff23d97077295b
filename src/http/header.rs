//! Headers as parameters of operations: a type that reads itself from a request, and that the OpenAPI document
//! describes where a handler asks for it. So no header is documented that is not used.

use poem::{Request, RequestBody};
use poem_openapi::{
    ApiExtractor, ApiExtractorType, ExtractParamOptions,
    registry::{MetaParamIn, MetaSchema, MetaSchemaRef},
};

use super::problem::Problem;

/// A value that is read from a header of a request.
pub trait FromHeader: Sized + Send {
    /// Whether a request without the header is refused.
    const IS_REQUIRED: bool = false;

    /// What the document says of the header's value: where nothing is refused, whatever a header can hold (RFC 9110, section
    /// 5.5), of any length.
    fn schema() -> MetaSchema {
        MetaSchema {
            pattern: Some("^[^\\x00-\\x08\\x0a-\\x1f\\x7f]*$".to_owned()),
            ..MetaSchema::new("string")
        }
    }

    /// # Errors
    /// The header is there and cannot be understood, where that matters.
    fn from_request(request: &Request) -> Result<Self, Problem>;
}

/// Takes a header as a parameter of an operation. A header that is left out is part of the value.
pub struct Header<T>(pub T);

impl<'a, T: FromHeader> ApiExtractor<'a> for Header<T> {
    const TYPES: &'static [ApiExtractorType] = &[ApiExtractorType::Parameter];

    const PARAM_IS_REQUIRED: bool = T::IS_REQUIRED;

    type ParamType = ();
    type ParamRawType = ();

    fn param_in() -> Option<MetaParamIn> {
        Some(MetaParamIn::Header)
    }

    fn param_schema_ref() -> Option<MetaSchemaRef> {
        Some(MetaSchemaRef::Inline(Box::new(T::schema())))
    }

    async fn from_request(
        request: &'a Request,
        _body: &mut RequestBody,
        _options: ExtractParamOptions<Self::ParamType>,
    ) -> poem::Result<Self> {
        Ok(Self(T::from_request(request)?))
    }
}
