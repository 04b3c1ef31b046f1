//! JSON as it is read from files: unique keys, errors that name the field.

use std::fmt;

use serde::de::{DeserializeOwned, Deserializer, MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, de};
use serde_json::{Map, Value};

use crate::error::Error;

pub(crate) fn syntax(field: impl Into<String>, message: impl fmt::Display) -> Error {
    Error::RecipeSyntax { field: field.into(), message: message.to_string() }
}

/// Reads JSON, and refuses repeated keys. Skips a byte order mark at the start.
pub(crate) fn unique(text: &str) -> Result<Unique, Error> {
    serde_json::from_str(text.strip_prefix('\u{feff}').unwrap_or(text)).map_err(|e| syntax("json", e))
}

/// Reads a section of a recipe. Errors name the field.
pub(crate) fn section<T: DeserializeOwned>(name: &str, value: Value) -> Result<T, Error> {
    serde_path_to_error::deserialize(value).map_err(|e| {
        let path = e.path().to_string();
        let field = if path == "." { name.to_owned() } else { format!("{name}.{path}") };
        syntax(field, e.into_inner())
    })
}

/// Splits a section of a recipe into its `type`, as an index into these, and the other fields.
pub(crate) fn typed(name: &str, section: Value, types: &[&str]) -> Result<(usize, Value), Error> {
    let Value::Object(mut fields) = section else {
        return Err(syntax(name, "must be an object with a `type`"));
    };
    let field = format!("{name}.type");
    let kind = match fields.remove("type") {
        Some(Value::String(kind)) => kind,
        Some(other) => return Err(syntax(field, format!("must be a string, not {other}"))),
        None => return Err(syntax(name, "lacks its `type`")),
    };
    let (value, allowed) = (format!("`{kind}`"), format!("one of {}", types.join(", ")));
    let index = types.iter().position(|known| *known == kind).ok_or(Error::Recipe { field, value, allowed })?;
    Ok((index, fields.into()))
}

/// Refuses a text in which an object has a key twice: parsers do not agree on its value. Keeps only the keys in memory.
///
/// # Errors
/// The message names the key, or says what is wrong with the text.
#[cfg(not(target_arch = "wasm32"))]
pub(crate) fn check_keys(text: &[u8]) -> Result<(), serde_json::Error> {
    serde_json::from_slice::<Unique<false>>(text).map(drop)
}

/// A value without repeated keys. Without `KEEP`, strings and sequences in it are left out.
pub(crate) struct Unique<const KEEP: bool = true>(pub Value);

impl<'de, const KEEP: bool> Deserialize<'de> for Unique<KEEP> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(UniqueKeys::<KEEP>).map(Self)
    }
}

struct UniqueKeys<const KEEP: bool>;

impl<'de, const KEEP: bool> Visitor<'de> for UniqueKeys<KEEP> {
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
        Ok(if KEEP { value.into() } else { Value::Null })
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut sequence: A) -> Result<Value, A::Error> {
        let mut values = Vec::new();
        while let Some(Unique::<KEEP>(value)) = sequence.next_element()? {
            if KEEP {
                values.push(value);
            }
        }
        Ok(values.into())
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Value, A::Error> {
        let mut values = Map::new();
        while let Some(key) = map.next_key::<String>()? {
            // The key under which serde_json hands out numbers with its feature `arbitrary_precision`.
            if key == "$serde_json::private::Number" {
                let number: String = map.next_value()?;
                return serde_json::from_str(&number).map_err(de::Error::custom);
            }
            if values.contains_key(&key) {
                return Err(de::Error::custom(format_args!("the key `{key}` is there twice")));
            }
            let Unique::<KEEP>(value) = map.next_value()?;
            values.insert(key, value);
        }
        Ok(values.into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_there_once_in_each_object() {
        for text in [r#"{"a": 1, "b": {"a": 2}, "c": [{"a": 3}, {"a": 3}]}"#, "[1, -2, 3.5, null, true, \"x\"]"] {
            check_keys(text.as_bytes()).unwrap();
            let Unique::<true>(value) = serde_json::from_str(text).unwrap();
            assert_eq!(value, serde_json::from_str::<Value>(text).unwrap());
        }
        for text in [r#"{"key": 1, "key": 1}"#, r#"[{"a": {"key": 1, "b": 2, "key": 3}}]"#] {
            let message = check_keys(text.as_bytes()).unwrap_err().to_string();
            assert!(message.contains("`key` is there twice"), "{message}");
            assert!(serde_json::from_str::<Unique>(text).is_err());
        }
    }
}
