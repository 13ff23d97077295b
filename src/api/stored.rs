//! Values that are answered as they are stored, whether this version knows them or not.

use std::{borrow::Cow, marker::PhantomData};

use poem_openapi::{
    registry::{MetaSchemaRef, Registry},
    types::{ParseFromJSON, ParseResult, ToJSON, Type},
};
use serde::{Serialize, Serializer};
use serde_json::Value;

/// JSON that the document describes as a `T`. A newer version that runs beside this one may have stored something else.
#[derive(Debug)]
pub struct AsStored<T> {
    json: Value,
    of: PhantomData<fn() -> T>,
}

impl<T> AsStored<T> {
    pub fn new(json: impl Into<Value>) -> Self {
        Self {
            json: json.into(),
            of: PhantomData,
        }
    }
}

impl<T> Serialize for AsStored<T> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.json.serialize(serializer)
    }
}

impl<T: Type> Type for AsStored<T> {
    const IS_REQUIRED: bool = T::IS_REQUIRED;

    type RawValueType = Value;
    type RawElementValueType = Value;

    fn name() -> Cow<'static, str> {
        T::name()
    }

    fn schema_ref() -> MetaSchemaRef {
        T::schema_ref()
    }

    fn register(registry: &mut Registry) {
        T::register(registry);
    }

    fn as_raw_value(&self) -> Option<&Value> {
        Some(&self.json)
    }

    fn raw_element_iter<'a>(&'a self) -> Box<dyn Iterator<Item = &'a Value> + 'a> {
        Box::new(self.as_raw_value().into_iter())
    }
}

impl<T: Type> ParseFromJSON for AsStored<T> {
    fn parse_from_json(value: Option<Value>) -> ParseResult<Self> {
        Ok(Self::new(value.unwrap_or_default()))
    }
}

impl<T: Type> ToJSON for AsStored<T> {
    fn to_json(&self) -> Option<Value> {
        Some(self.json.clone())
    }
}
