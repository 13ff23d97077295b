//! Values that are answered as they are stored, whether this version knows them or not.

use std::{borrow::Cow, marker::PhantomData};

use poem_openapi::{
    registry::{MetaSchemaRef, Registry},
    types::{ParseError, ParseFromJSON, ParseResult, ToJSON, Type},
};
use serde::{Serialize, Serializer};
use serde_json::{Value, json};

/// A stored value that the document describes as a `T`. A newer version that runs beside this one may have stored something else.
#[derive(Debug)]
pub struct AsStored<T, V> {
    value: V,
    described_as: PhantomData<fn() -> T>,
}

impl<T, V> AsStored<T, V> {
    pub fn new(value: V) -> Self {
        Self {
            value,
            described_as: PhantomData,
        }
    }
}

impl<T, V: Serialize> Serialize for AsStored<T, V> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.value.serialize(serializer)
    }
}

impl<T: Type, V: Send + Sync> Type for AsStored<T, V> {
    const IS_REQUIRED: bool = T::IS_REQUIRED;

    type RawValueType = V;
    type RawElementValueType = V;

    fn name() -> Cow<'static, str> {
        T::name()
    }

    fn schema_ref() -> MetaSchemaRef {
        T::schema_ref()
    }

    fn register(registry: &mut Registry) {
        T::register(registry);
    }

    fn as_raw_value(&self) -> Option<&V> {
        Some(&self.value)
    }

    fn raw_element_iter<'a>(&'a self) -> Box<dyn Iterator<Item = &'a V> + 'a> {
        Box::new(self.as_raw_value().into_iter())
    }
}

/// Objects have to be readable as well. Nothing reads answers here.
impl<T: Type, V: Send + Sync> ParseFromJSON for AsStored<T, V> {
    fn parse_from_json(value: Option<Value>) -> ParseResult<Self> {
        Err(ParseError::expected_type(value.unwrap_or_default()))
    }
}

impl<T: Type, V: Serialize + Send + Sync> ToJSON for AsStored<T, V> {
    fn to_json(&self) -> Option<Value> {
        Some(json!(self.value))
    }
}
