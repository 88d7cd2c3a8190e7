//! Amounts in the notation of the Kubernetes API.

use std::num::TryFromIntError;

use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use thiserror::Error;

/// A quantity that is none, by the grammar of the Kubernetes API.
///
/// <https://kubernetes.io/docs/reference/kubernetes-api/common-definitions/quantity/>
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("{0:?} is not a quantity such as 500m, 1.5 or 64Mi")]
pub struct InvalidQuantity(String);

/// The quantity in whole units (bytes, cores, pieces), rounded up.
///
/// # Errors
/// When it does not follow the grammar, is negative or is out of range.
pub fn whole(quantity: &Quantity) -> Result<u64, InvalidQuantity> {
    scaled(quantity, 1)
}

/// The quantity in thousandths of a unit (milli-cores), rounded up.
///
/// # Errors
/// When it does not follow the grammar, is negative or is out of range.
pub fn thousandths(quantity: &Quantity) -> Result<u64, InvalidQuantity> {
    scaled(quantity, 1_000)
}

/// The quantity of so many thousandths of a unit.
#[must_use]
pub fn from_thousandths(value: u64) -> Quantity {
    if value.is_multiple_of(1_000) {
        Quantity((value / 1_000).to_string())
    } else {
        Quantity(format!("{value}m"))
    }
}

/// So many bytes in the largest unit that divides them, of those that count by 1024 or by 1000.
#[must_use]
pub fn from_bytes(bytes: u64, is_binary: bool) -> Quantity {
    let (step, units): (u64, _) = if is_binary {
        (1024, ["", "Ki", "Mi", "Gi", "Ti", "Pi", "Ei"])
    } else {
        (1000, ["", "k", "M", "G", "T", "P", "E"])
    };
    let (mut number, mut unit) = (bytes, 0);
    while number != 0 && number.is_multiple_of(step) && unit + 1 < units.len() {
        number /= step;
        unit += 1;
    }
    Quantity(format!("{number}{}", units[unit]))
}

fn scaled(quantity: &Quantity, scale: u128) -> Result<u64, InvalidQuantity> {
    parse(&quantity.0, scale).ok_or_else(|| InvalidQuantity(quantity.0.chars().take(100).collect()))
}

/// What the number has to be multiplied with and divided by.
type Factor = (u128, u128);

fn parse(text: &str, scale: u128) -> Option<u64> {
    let text = text.strip_prefix('+').unwrap_or(text);
    let end = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let (number, suffix) = text.split_at(end);
    let (integer, fraction) = number.split_once('.').unwrap_or((number, ""));
    if integer.is_empty() && fraction.is_empty() || number.len() > 30 {
        return None;
    }
    let digits: u128 = format!("{integer}{fraction}").parse().ok()?;
    let (multiply, divide) = factor(suffix)?;
    let divide = divide.checked_mul(10u128.checked_pow(u32::try_from(fraction.len()).ok()?)?)?;
    let value = digits.checked_mul(multiply)?.checked_mul(scale)?.div_ceil(divide);
    u64::try_from(value).map_err(|_: TryFromIntError| ()).ok()
}

fn factor(suffix: &str) -> Option<Factor> {
    const DECIMAL: [(&str, i32); 10] = [
        ("n", -9),
        ("u", -6),
        ("m", -3),
        ("", 0),
        ("k", 3),
        ("M", 6),
        ("G", 9),
        ("T", 12),
        ("P", 15),
        ("E", 18),
    ];
    const BINARY: [&str; 6] = ["Ki", "Mi", "Gi", "Ti", "Pi", "Ei"];
    if let Some(position) = BINARY.iter().position(|unit| *unit == suffix) {
        return Some((1 << (10 * (position + 1)), 1));
    }
    let exponent = match DECIMAL.iter().find(|(unit, _)| *unit == suffix) {
        Some((_, exponent)) => *exponent,
        None => suffix.strip_prefix(['e', 'E'])?.parse().ok()?,
    };
    let power = 10u128.checked_pow(exponent.unsigned_abs())?;
    Some(if exponent < 0 { (1, power) } else { (power, 1) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_are_told_in_the_largest_unit() {
        let check = |bytes: u64, is_binary: bool, expected: &str| {
            assert_eq!(from_bytes(bytes, is_binary).0, expected);
        };
        check(0, true, "0");
        check(1_500, true, "1500");
        check(3 << 20, true, "3Mi");
        check(1 << 60, true, "1Ei");
        check(1_500_000, false, "1500k");
        check(2_000_000, false, "2M");
    }

    #[test]
    fn quantities_of_the_grammar() {
        let check = |text: &str, expected: u64| {
            assert_eq!(thousandths(&Quantity(text.into())).unwrap(), expected, "{text}");
        };
        check("0", 0);
        check("500m", 500);
        check("1.5", 1_500);
        check(".5", 500);
        check("2.", 2_000);
        check("100u", 1);
        check("1n", 1);
        check("64Mi", 64 * 1024 * 1024 * 1_000);
        check("1.5Ki", 1_536_000);
        check("1k", 1_000_000);
        check("1e3", 1_000_000);
        check("1E3", 1_000_000);
        check("12e-1", 1_200);
        check("+5", 5_000);
        assert_eq!(whole(&Quantity("8Ei".into())).unwrap(), 1 << 63);
    }

    #[test]
    fn what_is_no_quantity_is_refused() {
        for bad in
            ["", ".", "m", "-1", "1 Mi", "1mi", "1.2.3", "1e", "1e99", "99999999999999999999999Ei", "0x10"]
        {
            assert!(whole(&Quantity(bad.into())).is_err(), "{bad}");
        }
    }

    #[test]
    fn thousandths_are_written_as_kubernetes_writes_them() {
        assert_eq!(from_thousandths(1_500).0, "1500m");
        assert_eq!(from_thousandths(2_000).0, "2");
    }
}
