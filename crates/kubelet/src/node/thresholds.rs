use coracle_lifecycle::quantity;
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use thiserror::Error;

use super::Room;

/// What must stay free of this machine: with less of it the node is under pressure and takes no more pods.
///
/// The default is the kubelet's for memory and for the file system of the root directory:
/// `memory.available<100Mi,nodefs.available<10%,nodefs.inodesFree<5%`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Thresholds(Vec<(Signal, Least)>);

/// What is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Signal {
    Memory,
    Disk,
    Inodes,
}

/// How much of it must be free.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Least {
    Amount(u64),
    /// A part of all there is, in thousandths of a percent.
    Part(u64),
}

/// Everything, in thousandths of a percent.
const WHOLE: u64 = 100_000;

/// Why thresholds are refused. Each message names the one that is wrong.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum ThresholdError {
    /// Not of the form `signal<quantity`.
    #[error("{0:?} is not of the form signal<quantity")]
    Form(String),
    /// A signal that this node does not have.
    #[error(
        "{0:?} is not memory.available, nodefs.available, nodefs.inodesFree, imagefs.available or imagefs.inodesFree"
    )]
    Signal(String),
    /// The same signal twice.
    #[error("{0:?} is there twice")]
    Repeated(String),
    /// Neither a quantity nor a percentage up to 100.
    #[error("{0:?} is neither a quantity such as 500Mi nor a percentage such as 10%")]
    Value(String),
}

impl Default for Thresholds {
    fn default() -> Self {
        Self(vec![
            (Signal::Memory, Least::Amount(100 << 20)),
            (Signal::Disk, Least::Part(WHOLE / 10)),
            (Signal::Inodes, Least::Part(WHOLE / 20)),
        ])
    }
}

impl Thresholds {
    /// Whether less is free than must be.
    pub(super) fn is_short(&self, signal: Signal, room: Room) -> bool {
        room.available < self.kept(signal, room.total)
    }

    /// How much of `total` must stay free.
    pub(super) fn kept(&self, signal: Signal, total: u64) -> u64 {
        let own = self.0.iter().filter(|(of, _)| *of == signal);
        own.map(|(_, least)| least.of(total)).max().unwrap_or(0)
    }
}

impl Least {
    fn of(self, total: u64) -> u64 {
        match self {
            Self::Amount(amount) => amount,
            Self::Part(part) => {
                u64::try_from(u128::from(total) * u128::from(part) / u128::from(WHOLE)).unwrap_or(total)
            }
        }
    }
}

/// The thresholds in the syntax of the kubelet's `--eviction-hard`: `memory.available<500Mi,nodefs.available<5%`. A signal
/// that is not named has none, and so has one of `0%` or `100%`. Images lie on the file system of everything else.
///
/// <https://kubernetes.io/docs/concepts/scheduling-eviction/node-pressure-eviction/#hard-eviction-thresholds>
///
/// # Errors
/// [`ThresholdError`] names the first that is wrong.
pub fn parse_thresholds(text: &str) -> Result<Thresholds, ThresholdError> {
    let mut names: Vec<&str> = Vec::new();
    let mut thresholds = Vec::new();
    for part in text.split(',').map(str::trim).filter(|part| !part.is_empty()) {
        let (name, value) = part.split_once('<').ok_or_else(|| ThresholdError::Form(part.to_owned()))?;
        let signal = signal(name).ok_or_else(|| ThresholdError::Signal(name.to_owned()))?;
        if names.contains(&name) {
            return Err(ThresholdError::Repeated(name.to_owned()));
        }
        names.push(name);
        thresholds.push((signal, least(value).ok_or_else(|| ThresholdError::Value(value.to_owned()))?));
    }
    Ok(Thresholds(thresholds))
}

fn signal(name: &str) -> Option<Signal> {
    Some(match name {
        "memory.available" => Signal::Memory,
        "nodefs.available" | "imagefs.available" => Signal::Disk,
        "nodefs.inodesFree" | "imagefs.inodesFree" => Signal::Inodes,
        _ => return None,
    })
}

fn least(value: &str) -> Option<Least> {
    let Some(percent) = value.strip_suffix('%') else {
        return quantity::whole(&Quantity(value.to_owned())).ok().map(Least::Amount);
    };
    let is_number = percent.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.');
    let part = quantity::thousandths(&Quantity(percent.to_owned())).ok().filter(|_| is_number)?;
    (part <= WHOLE).then_some(Least::Part(part % WHOLE))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kept(text: &str, signal: Signal) -> u64 {
        parse_thresholds(text).unwrap().kept(signal, 1000)
    }

    #[test]
    fn the_default_is_as_it_is_written() {
        let written = "memory.available<100Mi,nodefs.available<10%,nodefs.inodesFree<5%";
        assert_eq!(parse_thresholds(written), Ok(Thresholds::default()));
    }

    #[test]
    fn a_threshold_is_an_amount_or_a_part() {
        assert_eq!(kept("nodefs.available<300", Signal::Disk), 300);
        assert_eq!(kept("nodefs.available<30%", Signal::Disk), 300);
        assert_eq!(kept(" nodefs.inodesFree<2.5% , memory.available<1Ki", Signal::Inodes), 25);
        assert_eq!(kept("nodefs.available<30%,imagefs.available<35%", Signal::Disk), 350);
        for none in
            ["", "memory.available<1", "nodefs.available<0", "nodefs.available<0%", "nodefs.available<100%"]
        {
            assert_eq!(kept(none, Signal::Disk), 0, "{none}");
        }
    }

    #[test]
    fn what_has_just_enough_is_not_short() {
        let thresholds = parse_thresholds("nodefs.available<10%").unwrap();
        let room = |available| Room { total: 1000, available };
        assert!(thresholds.is_short(Signal::Disk, room(99)) && !thresholds.is_short(Signal::Disk, room(100)));
        assert!(!thresholds.is_short(Signal::Inodes, room(0)), "it has no threshold");
        assert_eq!(thresholds.kept(Signal::Disk, u64::MAX), u64::MAX / 10);
    }

    #[test]
    fn what_is_wrong_is_named() {
        use ThresholdError::{Form, Repeated, Signal, Value};
        for (text, error) in [
            ("memory.available", Form("memory.available".into())),
            ("memory.available>1", Form("memory.available>1".into())),
            ("pid.available<1", Signal("pid.available".into())),
            ("nodefs.available<1,nodefs.available<2", Repeated("nodefs.available".into())),
            ("memory.available<", Value(String::new())),
            ("memory.available<-1", Value("-1".into())),
            ("memory.available<1Ki%", Value("1Ki%".into())),
            ("memory.available<101%", Value("101%".into())),
            ("memory.available<%", Value("%".into())),
        ] {
            assert_eq!(parse_thresholds(text), Err(error), "{text}");
        }
    }
}
