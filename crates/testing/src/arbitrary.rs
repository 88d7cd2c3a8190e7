//! Values of any type that can be deserialized, made of random bytes: the type itself says which fields it has and of what
//! kind, so none is forgotten, not even one that a later version of the API adds.

use std::cell::Cell;

use serde::de::value::{Error, StrDeserializer};
use serde::de::{
    Deserialize, DeserializeSeed, Deserializer, IntoDeserializer, MapAccess, SeqAccess, Visitor,
};
use serde::forward_to_deserialize_any;

/// The value that these bytes stand for; where they end, all that is left is absent, empty or the first choice.
///
/// # Errors
/// The type has a field of a kind that no spec of Kubernetes has, or one that not every text or number fits.
pub fn value<T: for<'de> Deserialize<'de>>(bytes: &[u8]) -> Result<T, Error> {
    T::deserialize(Source { bytes: &Cell::new(bytes), field: "" })
}

/// What stands in texts: names, numbers, quantities, addresses, paths, words of the API, and what is none of these.
const WORDS: [&str; 40] = [
    "a",
    "b",
    "c",
    "",
    "Always",
    "Never",
    "OnFailure",
    "Restart",
    "RestartAllContainers",
    "In",
    "NotIn",
    "Exists",
    "Equal",
    "Gt",
    "Lt",
    "NoExecute",
    "NoSchedule",
    "TCP",
    "UDP",
    "Localhost",
    "Unconfined",
    "linux",
    "windows",
    "Default",
    "None",
    "FallbackToLogsOnError",
    "Enabled",
    "1",
    "-1",
    "100m",
    "1Gi",
    "9223372036854775807",
    "1e99",
    "0.0000001",
    "$(a)",
    "../..",
    "/",
    "192.0.2.1",
    "é\u{0}",
    "kernel.shm_rmid_forced",
];

/// What stands in numbers: small ones, ports, and the ends of what fits.
const NUMBERS: [i32; 11] = [0, 1, 2, 30, 80, 65_535, 65_536, -1, 2_000_000_000, i32::MAX, i32::MIN];

/// Decides by the bytes it has.
#[derive(Clone, Copy)]
struct Source<'a> {
    bytes: &'a Cell<&'a [u8]>,
    field: &'static str,
}

impl<'a> Source<'a> {
    fn next(self) -> usize {
        let Some((first, rest)) = self.bytes.get().split_first() else { return 0 };
        self.bytes.set(rest);
        usize::from(*first)
    }

    fn word(self) -> &'static str {
        let choices = match self.field {
            "name" => &WORDS[..3],
            "creationTimestamp" | "deletionTimestamp" | "time" => &["2026-01-01T00:00:00Z"],
            "restartPolicy" => &WORDS[4..7],
            _ => &WORDS[..],
        };
        choices[self.next() % choices.len()]
    }

    fn number(self) -> i32 {
        NUMBERS[self.next() % NUMBERS.len()]
    }

    fn several(self) -> Several<'a> {
        Several { source: self, left: self.next() % 4 }
    }

    /// What every pod has is always there, of all else about a quarter.
    fn has(self, field: &str) -> bool {
        matches!(field, "name" | "containers") || self.next() % 4 == 1
    }
}

impl<'de> Deserializer<'de> for Source<'_> {
    type Error = Error;

    /// What may be a number or a text.
    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        if self.next().is_multiple_of(2) {
            visitor.visit_i32(self.number())
        } else {
            visitor.visit_str(self.word())
        }
    }

    fn deserialize_bool<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        visitor.visit_bool(self.next() % 2 == 1)
    }

    fn deserialize_i32<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        visitor.visit_i32(self.number())
    }

    fn deserialize_i64<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        match self.next() % 16 {
            0 => visitor.visit_i64(i64::MAX),
            1 => visitor.visit_i64(i64::MIN),
            _ => visitor.visit_i64(self.number().into()),
        }
    }

    fn deserialize_string<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        visitor.visit_str(self.word())
    }

    fn deserialize_str<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        visitor.visit_str(self.word())
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        visitor.visit_some(self)
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(
        self,
        _name: &'static str,
        visitor: V,
    ) -> Result<V::Value, Error> {
        visitor.visit_newtype_struct(self)
    }

    fn deserialize_seq<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        visitor.visit_seq(self.several())
    }

    fn deserialize_map<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        visitor.visit_map(self.several())
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _name: &'static str,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Error> {
        visitor.visit_map(Fields { source: self, left: fields })
    }

    forward_to_deserialize_any! {
        i8 i16 i128 u8 u16 u32 u64 u128 f32 f64 char bytes byte_buf unit unit_struct tuple tuple_struct enum
        identifier ignored_any
    }
}

/// So many elements of a list, or entries of a map.
struct Several<'a> {
    source: Source<'a>,
    left: usize,
}

impl<'de> SeqAccess<'de> for Several<'_> {
    type Error = Error;

    fn next_element_seed<T: DeserializeSeed<'de>>(&mut self, seed: T) -> Result<Option<T::Value>, Error> {
        let Some(left) = self.left.checked_sub(1) else { return Ok(None) };
        self.left = left;
        seed.deserialize(self.source).map(Some)
    }
}

impl<'de> MapAccess<'de> for Several<'_> {
    type Error = Error;

    fn next_key_seed<K: DeserializeSeed<'de>>(&mut self, seed: K) -> Result<Option<K::Value>, Error> {
        self.next_element_seed(seed)
    }

    fn next_value_seed<V: DeserializeSeed<'de>>(&mut self, seed: V) -> Result<V::Value, Error> {
        seed.deserialize(self.source)
    }
}

/// The fields of an object, of which some are there.
struct Fields<'a> {
    source: Source<'a>,
    left: &'static [&'static str],
}

impl<'de> MapAccess<'de> for Fields<'_> {
    type Error = Error;

    fn next_key_seed<K: DeserializeSeed<'de>>(&mut self, seed: K) -> Result<Option<K::Value>, Error> {
        while let Some((field, rest)) = self.left.split_first() {
            self.left = rest;
            if self.source.has(field) {
                self.source.field = field;
                let key: StrDeserializer<'_, Error> = field.into_deserializer();
                return seed.deserialize(key).map(Some);
            }
        }
        Ok(None)
    }

    fn next_value_seed<V: DeserializeSeed<'de>>(&mut self, seed: V) -> Result<V::Value, Error> {
        seed.deserialize(self.source)
    }
}
