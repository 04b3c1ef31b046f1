//! JSON as it is read from files: keys are unique, and a byte order mark is no error.

use std::collections::HashSet;
use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, de};
use serde_json::{Map, Value};

/// The text without the byte order mark that some editors put first.
pub(crate) fn without_mark(text: &str) -> &str {
    text.strip_prefix('\u{feff}').unwrap_or(text)
}

/// Refuses a text with a key that an object has twice, which parsers read as they please. Keeps nothing of it but the keys.
///
/// # Errors
/// Names the key, or says what is wrong with the text.
#[cfg(not(target_arch = "wasm32"))]
pub(crate) fn check_keys(text: &[u8]) -> Result<(), serde_json::Error> {
    serde_json::from_slice::<Checked>(text).map(drop)
}

/// A value without repeated keys.
pub(crate) struct Unique(pub Value);

impl<'de> Deserialize<'de> for Unique {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Keep(true).deserialize(deserializer).map(Self)
    }
}

#[cfg(not(target_arch = "wasm32"))]
struct Checked;

#[cfg(not(target_arch = "wasm32"))]
impl<'de> Deserialize<'de> for Checked {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Keep(false).deserialize(deserializer).map(|_| Self)
    }
}

/// Reads a value, and keeps it if this is so.
#[derive(Clone, Copy)]
struct Keep(bool);

impl<'de> DeserializeSeed<'de> for Keep {
    type Value = Value;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Keep {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_f64<E>(self, value: f64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_str<E>(self, value: &str) -> Result<Value, E> {
        Ok(if self.0 { value.into() } else { Value::Null })
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut sequence: A) -> Result<Value, A::Error> {
        let mut values = Vec::new();
        while let Some(value) = sequence.next_element_seed(self)? {
            if self.0 {
                values.push(value);
            }
        }
        Ok(values.into())
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Value, A::Error> {
        let (mut seen, mut values) = (HashSet::new(), Map::new());
        while let Some(key) = map.next_key::<String>()? {
            // How serde_json hands out numbers where a program has its feature `arbitrary_precision`.
            if key == "$serde_json::private::Number" {
                let number: String = map.next_value()?;
                return serde_json::from_str(&number).map_err(de::Error::custom);
            }
            if seen.contains(&key) {
                return Err(de::Error::custom(format_args!("the key `{key}` is there twice")));
            }
            let value = map.next_value_seed(self)?;
            if self.0 {
                values.insert(key.clone(), value);
            }
            seen.insert(key);
        }
        Ok(values.into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_there_once_in_each_object() {
        for text in
            [r#"{"a": 1, "b": {"a": 2}, "c": [{"a": 3}, {"a": 3}]}"#, "[1, -2, 3.5, null, true, \"x\"]"]
        {
            check_keys(text.as_bytes()).unwrap();
            let Unique(value) = serde_json::from_str(text).unwrap();
            assert_eq!(value, serde_json::from_str::<Value>(text).unwrap());
        }
        for text in [r#"{"key": 1, "key": 1}"#, r#"[{"a": {"key": 1, "b": 2, "key": 3}}]"#] {
            let message = check_keys(text.as_bytes()).unwrap_err().to_string();
            assert!(message.contains("`key` is there twice"), "{message}");
            assert!(serde_json::from_str::<Unique>(text).is_err());
        }
    }
}
