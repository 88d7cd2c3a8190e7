//! The variables of a container, and where they are used.

mod expansion;
mod file;
mod services;
mod sources;

pub use expansion::expand;
pub use file::{EnvironmentFileError, file_variable};
pub use services::service_variables;
pub use sources::{EnvironmentError, Given, file_references, object_names, variables};

/// Variables in order, each name once.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Variables {
    entries: Vec<(String, String)>,
}

impl Variables {
    /// Sets a variable; one of the same name keeps its place.
    pub fn set(&mut self, name: &str, value: String) {
        match self.entries.iter_mut().find(|(existing, _)| existing == name) {
            Some(existing) => existing.1 = value,
            None => self.entries.push((name.to_owned(), value)),
        }
    }

    /// The value of a variable.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&str> {
        self.entries.iter().find(|(existing, _)| existing == name).map(|(_, value)| value.as_str())
    }
}

impl From<Variables> for Vec<(String, String)> {
    fn from(variables: Variables) -> Self {
        variables.entries
    }
}
